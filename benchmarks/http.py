"""Inference over HTTP beside the bare Runner, and beside MLServer with the same model: `make bench-http`.

Each server is a process of its own on loopback; the client is this one. A request is a 224×224×3 float32 image.
MLServer has no runtime for ONNX files, so `benchmarks/http_mlserver.py` is one, run in MLServer's own process
(`parallel_workers` 0: the faster way). ONNX Runtime has the same settings everywhere. MLServer's REST takes tensors as
JSON only, its gRPC raw ones: both are shown, and `vs_mlserver` compares like with like, REST with REST.
Contestants run in turn, round by round; figures are medians of rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.http_load import Rest, Rpc, latencies_ns, rate
from benchmarks.http_model import SIZE, write_bundle
from edgemed.bundle.read import open_bundle
from edgemed.evaluate.bundled import runner_of
from edgemed.serve.http.proto import Proto
from tests.serve.http.peers import fetch

CONNECTIONS = 4
WARM = 20

RATIOS = (
    ("vs_mlserver", "REST binary", "REST JSON"),
    ("grpc_vs_mlserver", "gRPC raw", "gRPC raw"),
    ("json_vs_mlserver", "REST JSON", "REST JSON"),
)

CONFIG = """
[daemon]
state = "state"
[http]
port = {port}
grpc_port = {grpc}
[[models]]
name = "little"
bundle = "little.edgemed"
runner = "onnxruntime"
[trust]
allow_unsigned = true
[golden]
every = "1h"
believed = "3h"
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def server(command: list[str], folder: Path, ready: str, environment: dict[str, str] | None = None) -> Iterator[None]:
    """A server, from the moment when it is ready."""
    log = folder / f"{Path(command[0]).name}.{ready.split(':')[2][:5]}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **(environment or {})}, stdout=sink, stderr=sink
        )
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(ready, timeout=1):
                    break
            except OSError:
                if process.poll() is not None:
                    raise RuntimeError(log.read_text()[-2000:]) from None
                time.sleep(0.1)
        else:
            raise RuntimeError(log.read_text()[-2000:])
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def ours(folder: Path) -> Iterator[tuple[int, int]]:
    port, grpc = free_port(), free_port()
    (folder / "bedside.toml").write_text(CONFIG.format(port=port, grpc=grpc))
    with server(
        [sys.executable, "-m", "edgemed", "serve", "bedside.toml"], folder, f"http://127.0.0.1:{port}/v2/health/ready"
    ):
        yield port, grpc


@contextmanager
def theirs(folder: Path) -> Iterator[tuple[int, int]]:
    port, grpc, metrics = free_port(), free_port(), free_port()
    home = folder / "mlserver"
    home.mkdir()
    settings = {
        "http_port": port,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "host": "127.0.0.1",
        "parallel_workers": 0,
    }
    (home / "settings.json").write_text(json.dumps({**settings, "debug": False}))
    uri = str((folder / "little.edgemed" / "graphs" / "float.onnx").resolve())
    model = {"name": "little", "implementation": "http_mlserver.Onnx", "parameters": {"uri": uri}}
    (home / "model-settings.json").write_text(json.dumps(model))
    python = fetch.ensure("mlserver-onnx")
    command = [str(python), str(python.with_name("mlserver")), "start", "."]
    # beside the settings: this folder has an http.py, which must not stand for Python's own
    shutil.copy(Path(__file__).with_name("http_mlserver.py"), home)
    path = {"PYTHONPATH": str(home), "PYTHONWARNINGS": "ignore"}
    with server(command, home, f"http://127.0.0.1:{port}/v2/models/little/ready", path):
        yield port, grpc


def clients(image: np.ndarray, our: tuple[int, int], their: tuple[int, int] | None) -> dict[str, Rest | Rpc]:
    """Every way to ask, by name."""
    tensor = {"name": "image", "shape": list(image.shape), "datatype": "FP32"}
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": image.nbytes}}]}).encode()
    in_json = json.dumps({"inputs": [{**tensor, "data": [round(x, 4) for x in image.ravel().tolist()]}]}).encode()
    request, _ = Proto().methods["ModelInfer"]
    message = request(model_name="little", inputs=[tensor], raw_input_contents=[image.tobytes()]).SerializeToString()
    path, kind = "/v2/models/little/infer", {"Content-Type": "application/json"}
    length = {"Inference-Header-Content-Length": str(len(head))}
    asked: dict[str, Rest | Rpc] = {
        "edgemed, REST binary": Rest(our[0], path, head + image.tobytes(), kind | length),
        "edgemed, REST JSON": Rest(our[0], path, in_json, kind),
        "edgemed, gRPC raw": Rpc(our[1], message),
    }
    if their is not None:
        asked["MLServer, REST JSON"] = Rest(their[0], path, in_json, kind)
        asked["MLServer, gRPC raw"] = Rpc(their[1], message)
    return asked


def run(rounds: int, requests: int, seconds: float, folder: Path, *, beside: bool = True) -> dict[str, Any]:
    bundle = open_bundle(write_bundle(folder / "little.edgemed"))
    image = np.random.default_rng(1).random((1, SIZE, SIZE, 3), np.float32)
    p50: dict[str, list[float]] = defaultdict(list)
    rates: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        our = stack.enter_context(ours(folder))
        their = stack.enter_context(theirs(folder)) if beside else None
        runner = stack.enter_context(runner_of(bundle, "fp32"))
        asked = clients(image, our, their)
        for name, client in asked.items():
            latencies_ns(client, WARM if "JSON" not in name else 3)
        for _ in range(rounds):
            bare = []
            for _ in range(requests):
                begin_ns = time.perf_counter_ns()
                runner.infer({"image": image})
                bare.append(time.perf_counter_ns() - begin_ns)
            p50["bare Runner"].append(statistics.median(bare) / 1e6)
            for name, client in asked.items():
                count = requests if "JSON" not in name else max(10, requests // 10)
                p50[name].append(statistics.median(latencies_ns(client, count)) / 1e6)
                rates[name].append(rate(client, CONNECTIONS, seconds))
    return {
        "p50": {k: statistics.median(v) for k, v in p50.items()},
        "rate": {k: statistics.median(v) for k, v in rates.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--alone", action="store_true", help="without MLServer, which takes minutes to install")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = run(options.rounds, options.requests, options.seconds, Path(scratch), beside=not options.alone)
    p50, rates = found["p50"], found["rate"]
    print(f"{'':24}{'p50 ms':>10}{'added ms':>10}{f'requests/s ({CONNECTIONS} connections)':>30}")
    for name, value in p50.items():
        shown = f"{rates[name]:30.1f}" if name in rates else ""
        print(f"{name:24}{value:10.2f}{value - p50['bare Runner']:10.2f}{shown}")
    result = {"name": "http", "added_ms_p50": round(p50["edgemed, REST binary"] - p50["bare Runner"], 3)}
    for name, way, other in () if options.alone else RATIOS:
        result[name] = round(rates[f"edgemed, {way}"] / rates[f"MLServer, {other}"], 2)
    print("BENCH " + json.dumps(result))


if __name__ == "__main__":
    main()
