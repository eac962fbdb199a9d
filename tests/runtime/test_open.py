"""Which Runner a bundle gets here, and `--runner` of `run` and `verify`, with TensorRT faked and CUDA host-only."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluate.bundles import write_images
from evaluate.hostile import reseal, with_golden

from benchmarks.gpu import engines
from edgemed.base.errors import DeviceStateError, IntegrityError, MissingSoftwareError, UsageError
from edgemed.base.hashing import sha256_bytes
from edgemed.bundle.read import Bundle, open_bundle
from edgemed.device.here import Here
from edgemed.engine import onboard
from edgemed.runners.ort import OnnxRuntimeRunner
from edgemed.runtime import open as opening
from edgemed.runtime.contained.build import build as build_worker
from edgemed.runtime.contained.spec import BundleWorker
from edgemed.runtime.cuda import open_cuda
from edgemed.runtime.open import choose_backend, open_lane, open_runner
from edgemed.runtime.runner_lane import RunnerLane
from edgemed.runtime.tensorrt import TensorRtLane, TensorRtRunner
from tests.engine.fake_runtime import EngineScript
from tests.engine.fake_tensorrt import Script, make_fake
from tests.runtime.fakecuda.handle import FakeCudaHandle
from tests.runtime.faked_device import SHAPE, Build, affine, command, write
from tests.runtime.standin import GAIN, OFFSET


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write(tmp_path / "little.edgemed")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return next(write_images(tmp_path / "data", {"a": [100]}).rglob("*.png"))


@pytest.fixture
def nothing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A laptop."""
    monkeypatch.setattr(opening, "detect_here", lambda: Here(None, None))


def test_the_engine_of_this_device_is_taken(bundle: Bundle, device: Build) -> None:
    device(bundle)
    opened = open_runner(bundle)
    assert opened.why is None
    assert isinstance(opened.runner, TensorRtRunner)
    assert choose_backend(bundle) == ("tensorrt", None)
    assert choose_backend(bundle, runner="onnxruntime") == ("onnxruntime", None)
    with opened.runner as runner:
        assert (runner.info.backend, runner.info.bundle_digest) == ("tensorrt", bundle.digest)
        image = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
        np.testing.assert_array_equal(
            runner.infer({"image": image})["score"], np.float32(GAIN) * image + np.float32(OFFSET)
        )


def test_without_a_gpu_it_is_onnx_runtime_and_nothing_is_said(bundle: Bundle, nothing_here: None) -> None:
    opened = open_runner(bundle)
    assert isinstance(opened.runner, OnnxRuntimeRunner)
    assert opened.why is None
    assert choose_backend(bundle) == ("onnxruntime", None)


def test_with_a_gpu_and_no_engine_it_says_why_and_what_to_do(bundle: Bundle, device: Build) -> None:
    opened = open_runner(bundle)
    assert isinstance(opened.runner, OnnxRuntimeRunner)
    lane = open_lane(bundle, slots=2)
    assert isinstance(lane.lane, RunnerLane)
    assert (lane.lane.slots, lane.why) == (2, opened.why)
    assert choose_backend(bundle) == ("onnxruntime", opened.why)
    assert opened.why is not None
    assert "No fp32 engine of little.edgemed is kept for tensorrt-10.3.0-sm" in opened.why
    assert f"edgemed build {bundle.path}" in opened.why


def test_an_engine_of_another_tensorrt_is_not_this_devices(
    bundle: Bundle, device: Build, script: EngineScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    device(bundle)
    monkeypatch.setitem(sys.modules, "tensorrt", make_fake("10.7.0", Script(), script))
    assert isinstance(open_runner(bundle).runner, OnnxRuntimeRunner)
    with pytest.raises(DeviceStateError, match=r"is kept for tensorrt-10\.7\.0") as caught:
        open_runner(bundle, runner="tensorrt")
    assert caught.value.exit_code == 4


def test_a_damaged_engine_is_an_error_and_no_reason_for_another_answer(bundle: Bundle, device: Build) -> None:
    folder = device(bundle).folder
    (folder / "plan").write_bytes(b"damaged")
    with pytest.raises(IntegrityError, match="does not match its hash"):
        open_runner(bundle).runner.__enter__()
    (folder / "engine.json").write_bytes(b"{}")
    with pytest.raises(IntegrityError, match="does not follow its schema"):
        open_runner(bundle)


def test_without_pycuda_it_says_so(bundle: Bundle, device: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    device(bundle)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)  # what import does where it is not installed
    opened = open_runner(bundle)
    assert isinstance(opened.runner, OnnxRuntimeRunner)
    assert opened.why is not None
    assert "pycuda is needed to run models on the GPU" in opened.why
    with pytest.raises(MissingSoftwareError):
        open_runner(bundle, runner="tensorrt")


def test_a_record_of_another_key_in_this_folder_is_not_taken(bundle: Bundle, device: Build) -> None:
    record = device(bundle).folder / "engine.json"
    record.write_text(record.read_text().replace('"precision": "fp32"', '"precision": "fp16"'))
    assert isinstance(open_runner(bundle).runner, OnnxRuntimeRunner)


def test_what_is_asked_for_is_given_or_refused(bundle: Bundle, nothing_here: None) -> None:
    assert isinstance(open_runner(bundle, runner="onnxruntime").runner, OnnxRuntimeRunner)
    with pytest.raises(DeviceStateError, match="no NVIDIA GPU"):
        open_runner(bundle, runner="tensorrt")
    with pytest.raises(UsageError, match="no DLA core"):
        open_runner(bundle, runner="onnxruntime", dla_core=0)
    with pytest.raises(DeviceStateError, match="no NVIDIA GPU"):
        open_runner(bundle, dla_core=0)


def test_no_dla_engine_is_said_with_the_command_that_makes_one(bundle: Bundle, device: Build) -> None:
    device(bundle)
    with pytest.raises(DeviceStateError, match="-dla1") as caught:
        open_runner(bundle, dla_core=1)
    assert caught.value.hint.endswith(f"edgemed build {bundle.path} --dla-core 1")


def ahead(bundle: Bundle, here: Here, **changes: Any) -> Bundle:
    """The bundle with a plan that was compiled ahead of time."""
    plan = {
        "path": "engines/ahead.plan",
        "sha256": sha256_bytes(b"plan"),
        "flavour": "tensorrt",
        "version": "10.3.0",
        "precision": "fp32",
        "compute_capabilities": [here.compute_capability, "12.0"],
    } | changes
    (bundle.path / "engines").mkdir(exist_ok=True)
    reseal(bundle.path, files={"engines/ahead.plan": b"plan"}, edit=lambda m: m.update(engines=[plan]))
    return open_bundle(bundle.path)


def test_a_plan_that_was_compiled_ahead_serves_where_no_engine_is_kept(
    bundle: Bundle, device: Build, script: EngineScript
) -> None:
    bundle = ahead(bundle, opening.detect_here())
    with open_runner(bundle).runner as runner:
        assert runner.info.backend == "tensorrt"
        assert runner.infer({"image": np.zeros(SHAPE, np.float32)})["score"].flat[0] == OFFSET
    assert [call[1] for call in script.calls if call[0] == "deserialize"] == [b"plan"]


@pytest.mark.parametrize("changes", [{"version": "10.4.0"}, {"precision": "int8"}, {"compute_capabilities": ["5.0"]}])
def test_a_plan_of_something_else_does_not(bundle: Bundle, device: Build, changes: dict[str, Any]) -> None:
    bundle = ahead(bundle, opening.detect_here(), **changes)
    assert isinstance(open_runner(bundle).runner, OnnxRuntimeRunner)


def test_a_worker_is_built_on_the_engine(bundle: Bundle, device: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onboard, "detect_here", opening.detect_here)
    device(bundle)
    message = BundleWorker(bundle.path, "tensorrt", options={"slots": 2, "contexts": 2}).read().message
    with build_worker(message) as lane:
        assert isinstance(lane, TensorRtLane)
        assert (lane.slots, lane.info.backend) == (2, "tensorrt")
        lane.inputs(0)["image"][...] = 0
        lane.start(0)
        assert lane.finish(0)["score"].flat[0] == OFFSET


def test_the_check_on_a_real_gpu_works_on_a_faked_one(
    bundle: Bundle, device: Build, script: EngineScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onboard, "detect_here", opening.detect_here)
    monkeypatch.setattr(engines, "_TIMES", 20)
    report = engines.run(bundle.path)
    assert "failed" not in report
    assert report["outputs"]["error"] == {"score": 0.0}
    assert report["times_us"]["graphs"] == "replayed"
    script.context_is_null = True
    assert engines.run(bundle.path)["failed"] == "outputs"


# ---- the command line


def test_run_answers_from_the_engine(
    bundle: Bundle, image: Path, device: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    device(bundle)
    assert command("run", bundle.path, image, "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert (result["backend"], result["precision"]) == ("tensorrt", "fp32")
    assert command("run", bundle.path, image, "--json", "--runner", "onnxruntime") == 0
    (other,) = json.loads(capsys.readouterr().out)["results"]
    assert other["backend"] == "onnxruntime"
    assert result["outputs"] == other["outputs"]


def test_run_says_on_stderr_why_it_is_not_the_engine(
    bundle: Bundle, image: Path, device: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("run", bundle.path, image, "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["results"][0]["backend"] == "onnxruntime"
    assert "On ONNX Runtime. No fp32 engine" in " ".join(said.err.split())


def test_a_stream_runs_on_the_engine(
    bundle: Bundle, image: Path, device: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    device(bundle)
    assert command("run", bundle.path, image, image, "--slots", "2", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [result["backend"] for result in document["results"]] == ["tensorrt", "tensorrt"]
    assert document["account"]["answered"] == 2
    assert {"copy-in", "compute", "copy-out"} <= document["account"]["stages"].keys()


def test_verify_runs_the_golden_vectors_on_the_engine(
    bundle: Bundle, device: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    device(bundle)
    assert command("verify", bundle.path, "--runner", "tensorrt", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["passed"]
    assert document["runner"] == "tensorrt"
    assert document["golden"] == {"fp32": {"score": {"difference": 0.0, "tolerance": 1e-5}}}
    assert command("verify", bundle.path, "--runner", "tensorrt") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"8 samples, 1 of 1 precisions right on tensorrt/{open_cuda().facts.name}" in said


def test_an_engine_that_computes_something_else_fails_verification(
    bundle: Bundle, device: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hashes are right, the answers are not: the graph's gain is not the kernel's."""
    reseal(bundle.path, files={"graphs/float.onnx": affine(3.0)})
    with_golden(bundle.path)
    device(open_bundle(bundle.path))
    assert command("verify", bundle.path, "--runner", "tensorrt") == 1
    assert "Golden vectors: fp32 output score differs by" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("run", "--runner", "tensorrt"), 4, "No fp32 engine"),
        (("verify", "--runner", "tensorrt"), 4, "No fp32 engine"),
        (("verify", "--precision", "fp16"), 2, "are the engine's"),
        (("run", "--runner", "onnxruntime", "--dla-core", "0"), 2, "no DLA core"),
        (("build", "--dla-core", "0"), 4, "There is no DLA core 0"),
    ],
)
def test_refusals(
    bundle: Bundle,
    image: Path,
    device: Build,
    arguments: tuple[str, ...],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onboard, "detect_here", opening.detect_here)
    name, *options = arguments
    assert command(name, bundle.path, *([image] if name == "run" else []), *options) == code
    assert said in " ".join(capsys.readouterr().err.split())


FAULTS: list[tuple[dict[str, Any], int, str]] = [
    ({"plan_errors": (("INTERNAL_ERROR", "Version tag does not match"),)}, 4, "Version tag does not match"),
    ({"plan_errors": (("INTERNAL_ERROR", "Magic tag does not match"),)}, 5, "Magic tag does not match"),
    ({"context_is_null": True}, 6, "could not make an execution context"),
    ({"refused": {"execute_async_v3": (("FAILED_EXECUTION", "it broke"),)}}, 6, "could not run the engine: it broke"),
    ({"hosted": ("image",)}, 2, "is read from host memory"),
    ({"runtime_is_null": True}, 4, "cannot start its runtime"),
]


@pytest.mark.parametrize(("changes", "code", "said"), FAULTS, ids=[said for _, _, said in FAULTS])
def test_each_fault_of_an_engine_has_its_exit_code(
    bundle: Bundle,
    device: Build,
    script: EngineScript,
    changes: dict[str, Any],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    device(bundle)
    for name, value in changes.items():
        setattr(script, name, value)
    assert command("verify", bundle.path, "--runner", "tensorrt") == code
    assert said in " ".join(capsys.readouterr().err.split())


def test_an_out_of_memory_start_is_six(
    fakecuda: FakeCudaHandle, bundle: Bundle, device: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    device(bundle)
    fakecuda.set(memory=16)
    assert command("verify", bundle.path, "--runner", "tensorrt") == 6
    assert "memory" in capsys.readouterr().err
