"""Clients that others wrote ask a running daemon: tritonclient, kserve, `mlserver infer`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.serve.http.peers import fetch

HERE = Path(__file__).parent / "peers"
SCORE = pytest.approx([1 / (1 + np.exp(-20 * (0.9 - 0.5)))], rel=1e-5)  # one float32 sigmoid against a float64 one


def peer(name: str) -> str:
    if reason := fetch.unsupported(name):
        pytest.skip(reason)
    python = fetch.python_of(name)
    if python is None:
        pytest.skip(f"{name} is not in the cache; `make peers` fetches it from the package index")
    return str(python)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_tritonclient(running: Any) -> None:
    _, server, _ = running
    told = json.loads(
        run(peer("tritonclient"), str(HERE / "ask_tritonclient.py"), str(server.port), str(server.grpc_port))
    )
    for how in ("json", "binary", "grpc"):
        assert told[how] == {"live": True, "ready": True, "model": True, "version": True, "score": SCORE, "id": "7"}
    assert told["metadata"]["name"] == "edgemed"
    assert told["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [1, 4, 4, 1]}]
    assert told["grpc_inputs"] == [{"name": "image", "datatype": "FP32", "shape": ["1", "4", "4", "1"]}]
    assert (told["config"], told["stats"]) == ("chest", "chest")
    assert told["index"] == [{"name": "chest", "version": "1", "state": "READY"}]
    assert "does not offer" in told["load"]
    assert told["missing"] == "StatusCode.NOT_FOUND"


def test_kserve(running: Any) -> None:
    _, server, _ = running
    told = json.loads(run(peer("kserve"), str(HERE / "ask_kserve.py"), str(server.port), str(server.grpc_port)))
    assert told["rest"] == {"live": True, "ready": True, "model": True, "json": SCORE, "binary": SCORE}
    assert told["grpc"] == {"live": True, "ready": True, "model": True, "typed": SCORE, "raw": SCORE}


def test_mlserver_infer(running: Any, tmp_path: Path) -> None:
    _, server, _ = running
    image = {"name": "image", "shape": [1, 4, 4, 1], "datatype": "FP32", "data": [0.9] * 16}
    asked, answered = tmp_path / "in.txt", tmp_path / "out.txt"
    asked.write_text(json.dumps({"inputs": [image], "outputs": [{"name": "score"}]}) + "\n")
    python = peer("mlserver")
    command = [python, str(Path(python).with_name("mlserver")), "infer", "--url", f"127.0.0.1:{server.port}"]
    run(*command, "--model-name", "chest", "-i", str(asked), "-o", str(answered))
    assert json.loads(answered.read_text())["outputs"][0]["data"] == SCORE
