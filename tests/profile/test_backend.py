"""Profiles on an engine: TensorRT faked, CUDA host-only. Stamps, the record, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemed.bundle.read import Bundle
from edgemed.profile.coldstart import child
from edgemed.profile.coldstart.series import ENGINE_STAGES
from edgemed.profile.result import RESULT, Result, read_result
from edgemed.profile.stamps import (
    COMPUTE_END,
    COMPUTE_START,
    COPY_IN_END,
    COPY_IN_START,
    COPY_OUT_END,
    COPY_OUT_START,
    STAGES,
    Samples,
    stage_of,
)
from edgemed.profile.text import honest_rows
from edgemed.runners.ort import OnnxRuntimeRunner
from edgemed.runtime.cuda import open_cuda
from tests.engine.fake_runtime import EngineScript
from tests.runtime.conftest import device, fakecuda, script
from tests.runtime.fakecuda.handle import FakeCudaHandle
from tests.runtime.faked_device import Build, command, write

__all__ = ["device", "fakecuda", "script"]

FAST = ("--load", "rate:500", "--frames", "60", "--warmup", "20ms", "--no-telemetry")
DEVICE = [COPY_IN_START, COPY_IN_END, COMPUTE_START, COMPUTE_END, COPY_OUT_START, COPY_OUT_END]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write(tmp_path / "little.edgemed")


def profiled(bundle: Bundle, folder: Path, *options: str) -> Result:
    assert command("profile", bundle.path, *FAST, "--output", folder, *options) == 0
    return read_result(folder / RESULT)


def said_of(result: Result) -> dict[str, str]:
    return {row[0]: row[1] for row in honest_rows(result)}


@pytest.mark.parametrize("options", [(), ("--policy", "lossless"), ("--policy", "latest")], ids=" ".join)
def test_stages_are_the_devices_and_add_up(
    bundle: Bundle, device: Build, tmp_path: Path, options: tuple[str, ...]
) -> None:
    device(bundle)
    result = profiled(bundle, tmp_path / "out", *options)
    assert {"copy-in", "compute", "copy-out", "queue", "post"} <= result.stages.keys()
    rows = np.concatenate([chunk.copy() for chunk in Samples(tmp_path / "out" / "samples.npy").chunks()])
    rows = rows[rows[:, COMPUTE_START] > 0]
    assert len(rows) >= result.counts.answered
    assert (np.diff(rows[:, DEVICE], axis=1) >= 0).all()
    total = sum(stage_of(rows, name)[0] for name in STAGES)
    np.testing.assert_array_equal(total, rows[:, -1] - rows[:, 1])
    assert all((stage_of(rows, name)[0] >= 0).all() for name in STAGES)


@pytest.mark.parametrize("options", [(), ("--policy", "lossless")], ids=" ".join)
def test_the_record_says_what_answered_and_how(
    bundle: Bundle, device: Build, tmp_path: Path, options: tuple[str, ...]
) -> None:
    engine = device(bundle)
    result = profiled(bundle, tmp_path / "out", *options)
    mark, settings = result.fingerprint, result.settings
    assert (mark.backend, mark.tensorrt, mark.backend_version) == ("tensorrt", "10.3.0", "10.3.0")
    assert mark.engine_sha256 == engine.record.plan_sha256
    assert mark.bundle_digest == bundle.digest
    assert mark.gpu == mark.device == open_cuda().facts.name
    assert (settings.sync, settings.cuda_graph, settings.copies_counted) == ("blocking", True, True)
    assert settings.no_cuda_graph is None
    missing = " ".join(result.not_measured)
    assert "copies" not in missing
    assert "computation" not in missing
    said = said_of(result)
    assert (said["CUDA graph"], said["Copies"]) == ("replayed", "in the latency")
    assert said["Waiting"] == "sleeps until the device is done"


def test_a_graph_that_is_not_replayed_says_why(
    fakecuda: FakeCudaHandle, bundle: Bundle, device: Build, tmp_path: Path
) -> None:
    device(bundle)
    fakecuda.fail("cuGraphInstantiateWithFlags", 801)  # CUDA_ERROR_NOT_SUPPORTED
    result = profiled(bundle, tmp_path / "out")
    assert result.settings.cuda_graph is False
    why = result.settings.no_cuda_graph
    assert why is not None
    assert "NOT_SUPPORTED" in why
    assert said_of(result)["CUDA graph"] == f"off: {why}"


@pytest.fixture
def shared(fakecuda: FakeCudaHandle) -> None:
    """A GPU that works in the host's memory, as a Jetson's does."""
    fakecuda.set(integrated=1, map_host=1)


@pytest.mark.parametrize("options", [(), ("--policy", "lossless")], ids=" ".join)
def test_where_memory_is_shared_there_are_no_copies_and_none_are_missed(
    shared: None, bundle: Bundle, device: Build, tmp_path: Path, options: tuple[str, ...]
) -> None:
    device(bundle)
    result = profiled(bundle, tmp_path / "out", *options)
    assert result.settings.copies_counted is None
    assert "compute" in result.stages
    assert not {"copy-in", "copy-out"} & result.stages.keys()
    assert not any("copies" in text for text in result.not_measured)
    assert said_of(result)["Copies"] == "none: the device works in the host's memory"


def test_onnx_runtime_says_why_it_is_not_the_engine(
    bundle: Bundle, device: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = profiled(bundle, tmp_path / "out")
    assert result.fingerprint.backend == "onnxruntime"
    assert (result.fingerprint.tensorrt, result.fingerprint.engine_sha256, result.settings.sync) == (None, None, "host")
    assert result.warnings[0].startswith("On ONNX Runtime. No fp32 engine of little.edgemed is kept")
    assert "On ONNX Runtime. No fp32 engine" in " ".join(capsys.readouterr().err.split())


def test_asked_for_it_is_onnx_runtime_though_there_is_an_engine(bundle: Bundle, device: Build, tmp_path: Path) -> None:
    device(bundle)
    result = profiled(bundle, tmp_path / "out", "--runner", "onnxruntime")
    assert result.fingerprint.backend == "onnxruntime"
    assert not any("ONNX Runtime" in text for text in result.warnings)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--runner", "tensorrt"), 4, "edgemed build"),
        (("--runner", "tensorrt", "--policy", "latest"), 4, "edgemed build"),
        (("--runner", "tensorrt", "--cold-start", "1"), 4, "edgemed build"),
        (("--dla-core", "1"), 4, "--dla-core 1"),
        (("--runner", "onnxruntime", "--dla-core", "0"), 2, "no DLA core"),
    ],
)
def test_what_cannot_be_had_is_refused_with_what_to_do(
    bundle: Bundle,
    device: Build,
    tmp_path: Path,
    options: tuple[str, ...],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command("profile", bundle.path, *FAST, "--output", tmp_path / "out", *options) == code
    err = " ".join(capsys.readouterr().err.split())
    assert said in err
    assert "what to do:" in err
    assert not (tmp_path / "out").exists()


def test_a_damaged_engine_measures_nothing(bundle: Bundle, device: Build, tmp_path: Path) -> None:
    (device(bundle).folder / "plan").write_bytes(b"damaged")
    assert command("profile", bundle.path, *FAST, "--output", tmp_path / "out") == 5
    assert not (tmp_path / "out" / RESULT).exists()


def test_a_cold_start_tells_context_and_engine_apart(
    bundle: Bundle, device: Build, script: EngineScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child's own work, in this process, where TensorRT is faked."""
    device(bundle)
    monkeypatch.setattr(OnnxRuntimeRunner, "__enter__", lambda _: pytest.fail("ONNX Runtime was entered"))
    marks = child.main(str(bundle.path), "", "tensorrt")
    assert tuple(marks) == ENGINE_STAGES
    assert sorted(marks.values()) == list(marks.values())
    assert [call[0] for call in script.calls].count("deserialize") == 1


def test_cold_starts_are_told_what_was_chosen(
    bundle: Bundle, device: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgemed.profile.coldstart import series

    device(bundle)
    asked: list[list[str]] = []

    def start(_: Path, chosen: list[str], stages: tuple[str, ...]) -> list[int]:
        """A fresh process would not have the faked TensorRT: its work is done here."""
        asked.append(list(chosen))
        marks = child.main(str(bundle.path), *chosen)
        return [marks[stage] - marks["process"] + 1 for stage in stages]

    monkeypatch.setattr(series, "_start", start)
    result = profiled(bundle, tmp_path / "out", "--cold-start", "2")
    assert asked == [["", "tensorrt", ""]] * 2
    assert result.cold_start is not None
    assert tuple(result.cold_start.stages) == ENGINE_STAGES


def test_compare_hands_the_runner_to_its_runs(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgemed.profile import interleave

    asked: list[Any] = []

    def once(bundle: Path, arguments: list[str], folder: Path) -> None:
        asked.append((bundle, arguments))
        folder.mkdir()

    monkeypatch.setattr(interleave, "run_once", once)
    options = ("--runs", "1", "--output", tmp_path / "both", "--runner", "tensorrt", "--dla-core", "1")
    command("compare", bundle.path, bundle.path, *options)
    wanted = ["--load", "closed", "--duration", "10s", "--runner", "tensorrt", "--dla-core", "1"]
    assert asked == [(bundle.path, wanted)] * 2
    capsys.readouterr()
    assert command("compare", bundle.path, bundle.path, "--runner", "tensorrt") == 2
    assert "--runs" in capsys.readouterr().err


def test_objectives_for_another_backend_are_told_before_the_run(
    bundle: Bundle, device: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device(bundle)
    slo = tmp_path / "slo.toml"
    slo.write_text('schema = "edgemed/slo/1"\n[latency]\np50_ms = 3600000.0\n[state]\nbackend = "onnxruntime"\n')
    assert command("profile", bundle.path, *FAST, "--slo", slo) == 4
    told = " ".join(capsys.readouterr().err.split())
    assert "backend is tensorrt, and shall be onnxruntime, so this run" in told
    slo.write_text(slo.read_text().replace("onnxruntime", "tensorrt"))
    assert command("profile", bundle.path, *FAST, "--slo", slo) == 0
    assert "no evidence" not in capsys.readouterr().err


def test_json_carries_the_settings(bundle: Bundle, device: Build, capsys: pytest.CaptureFixture[str]) -> None:
    device(bundle)
    assert command("profile", bundle.path, *FAST, "--json", "--runner", "tensorrt") == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert (settings["sync"], settings["cuda_graph"], settings["no_cuda_graph"]) == ("blocking", True, None)
