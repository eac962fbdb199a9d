"""`edgemed profile` and `edgemed compare` as processes, on ONNX Runtime: results, exit codes, Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from evaluate.bundles import write_bundle
from evaluate.hostile import with_golden

from tests.waiting import wait_for

COMMAND = [sys.executable, "-m", "edgemed"]
SLO = 'schema = "edgemed/slo/1"\n'


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_golden(write_bundle(tmp_path_factory.mktemp("user") / "little.edgemed", boundaries={"float": 0.5}))[0]


FAST = ("--load", "rate:500", "--frames", "400", "--warmup", "100ms")


def test_a_profile_is_written_and_printed(bundle, tmp_path):
    out = tmp_path / "out"
    done = run("profile", bundle, *FAST, "--deadline", "1h", "--output", out, "--samples", "csv", "--no-telemetry")
    assert done.returncode == 0, done.stderr
    result = json.loads((out / "result.json").read_text())
    assert result["counts"]["answered"] == 400
    assert result["settings"]["warmup_frames"] == 50
    assert result["fingerprint"]["backend"] == "onnxruntime"
    assert result["misses"]["rate"]["count"] == 0
    assert set(result["stages"]) == {"wait", "queue", "compute", "post"}
    assert result["telemetry"] == []
    assert any("energy" in text for text in result["not_measured"])
    assert np.load(out / "samples.npy").shape == (450, 11)
    assert len((out / "samples.csv").read_text().splitlines()) == 451
    assert "p99.9" in done.stdout
    assert "needs 2595 more samples" in done.stdout


def test_a_stream_goes_through_the_ring(bundle):
    done = run("profile", bundle, *FAST, "--policy", "latest", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["settings"]["ring"].startswith("latest")
    counts = result["counts"]
    assert counts["answered"] + sum(counts["dropped"].values()) == counts["arrived"] == 400
    assert "pre" in result["stages"]


@pytest.mark.parametrize(
    ("slo", "code", "outcome"),
    [
        ("[latency]\np50_ms = 3600000.0\n", 0, "pass"),
        ("[latency]\np50_ms = 0.000001\n", 1, "fail"),
        ("[latency]\np99_99_ms = 3600000.0\n", 3, "inconclusive"),
        ('[latency]\np50_ms = 3600000.0\n[state]\npower_mode = "MAXN"\n', 4, "wrong-state"),
    ],
)
def test_verdicts_are_exit_codes_and_the_result_is_there_before(bundle, tmp_path, slo, code, outcome):
    (tmp_path / "slo.toml").write_text(SLO + slo)
    done = run("profile", bundle, *FAST, "--slo", tmp_path / "slo.toml", "--output", tmp_path / "out")
    assert done.returncode == code, done.stdout + done.stderr
    assert json.loads((tmp_path / "out" / "result.json").read_text())["verdict"]["outcome"] == outcome
    assert ("what to do:" in done.stderr) == (code != 0)


def test_json_is_one_document_and_nothing_is_kept_without_output(bundle, tmp_path):
    done = subprocess.run(
        [*COMMAND, "profile", bundle, *FAST, "--json"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["samples"] is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    ["--load fast", "--frames 3 --duration 1s", "--duration 3", "--soak", "--policy newest", "--slo no.toml"],
)  # fmt: skip
def test_wrong_usage_measures_nothing(bundle, arguments):
    done = run("profile", bundle, *arguments.split())
    assert done.returncode == (6 if "no.toml" in arguments else 2)
    assert done.stdout == ""
    assert "what to do:" in done.stderr


def test_results_are_not_overwritten_nor_put_into_a_bundle(bundle, tmp_path):
    (tmp_path / "result.json").write_text("mine")
    for output in (tmp_path, bundle / "profile"):
        done = run("profile", bundle, *FAST, "--output", output)
        assert done.returncode == 2
    assert (tmp_path / "result.json").read_text() == "mine"


def intended_of(stamps: Path, row: int) -> int:
    """When a frame was meant to arrive, of a file that is being written; 0: it is not there yet."""
    with stamps.open("rb") as file:
        file.seek(4096 + 88 * row + 8)
        return int.from_bytes(file.read(8), "little")


def test_ctrl_c_keeps_what_was_measured(bundle, tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*COMMAND, "profile", bundle, "--load", "rate:100", "--duration", "1h", "--output", out],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    # until frames behind the warm-up of 100 are answered
    wait_for(lambda: (out / "samples.npy").exists() and intended_of((out / "samples.npy"), 150), seconds=120)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    result = json.loads((out / "result.json").read_text())
    assert result["ended"]["reason"] == "interrupted"
    assert result["counts"]["answered"] > 0
    assert (out / "samples.npy").stat().st_size == 4096 + 88 * result["samples"]["rows"]


def test_two_bundles_are_compared_by_turns(bundle, tmp_path):
    done = run(
        "compare", bundle, bundle, "--runs", "1", "--load", "rate:200", "--duration", "1s", "--margin", "p50=50%",
        "--output", tmp_path / "runs", "--json",
    )  # fmt: skip
    assert done.returncode == 3, done.stderr  # one run of five
    comparison = json.loads(done.stdout)
    assert (comparison["runs_a"], comparison["runs_b"], comparison["outcome"]) == (1, 1, "inconclusive")
    again = run("compare", tmp_path / "runs" / "a", tmp_path / "runs" / "b")
    assert again.returncode == 0, again.stderr
    assert "unjudged" in again.stdout
