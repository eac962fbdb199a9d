"""Loading an engine: what is verified, what is compared, what is refused, and in which order all of it is freed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgemed.base.errors import (
    DeviceStateError,
    EdgemedError,
    GpuError,
    GpuMemoryError,
    InputError,
    IntegrityError,
)
from edgemed.base.runner import TensorSpec
from edgemed.device.gpu import Gpu
from edgemed.device.here import Here
from edgemed.engine.load import load_engine
from edgemed.engine.plans import kept_plan, require_key
from tests.engine.engines import PLAN, Memory, asked, bridge_to, loaded, plan_of, write_engine
from tests.engine.fake_runtime import EngineScript
from tests.engine.test_onboard import orin_nano

VERSIONS = ("8.6.1", "10.3.0", "10.13.0", "11.4.0")
BATCHED = (("x", "INPUT", "FLOAT", (-1, 3, 8, 8)), ("y", "OUTPUT", "HALF", (-1, 2)))
PROFILE = {"x": ((1, 3, 8, 8), (4, 3, 8, 8), (8, 3, 8, 8))}


@pytest.mark.parametrize("version", VERSIONS)
def test_an_engine_is_what_its_record_says(tmp_path: Path, version: str) -> None:
    script = EngineScript(tensors=BATCHED, profiles=(PROFILE,), aux_streams=2)
    folder = write_engine(tmp_path / "engine", script, version=version)
    with load_engine(folder, bridge_to(script, version), orin_nano()) as engine:
        assert engine.specs.inputs == (TensorSpec("x", "float32", (None, 3, 8, 8)),)
        assert engine.specs.outputs == (TensorSpec("y", "float16", (None, 2)),)
        assert engine.profiles == (PROFILE,)
        assert engine.aux_streams == 2
        assert engine.key == kept_plan(folder).key
    # host code that a plan may bring stays off
    assert asked(script, "deserialize") == [(PLAN, False, -1)]


def test_the_very_bytes_that_were_hashed_are_loaded(tmp_path: Path) -> None:
    script = EngineScript()
    folder = write_engine(tmp_path / "engine", script)
    kept = kept_plan(folder)

    def read_and_replace() -> bytes:
        data = kept.read()
        (folder / "plan").write_bytes(b"something else, written after the hash was checked")
        return data

    load_engine(replace(kept, read=read_and_replace), bridge_to(script), orin_nano()).close()
    assert [call[0] for call in asked(script, "deserialize")] == [PLAN]


def test_an_engine_that_is_replaced_after_it_was_chosen_is_refused(tmp_path: Path) -> None:
    script = EngineScript()
    plan = kept_plan(write_engine(tmp_path / "engine", script))
    write_engine(tmp_path / "engine", script, b"a newer plan, whole")
    with pytest.raises(IntegrityError, match="was replaced after it was chosen"):
        load_engine(plan, bridge_to(script), orin_nano())
    assert not script.calls


@pytest.mark.parametrize("damage", ["plan", "engine.json", "no plan"])
def test_a_damaged_engine_never_reaches_tensorrt(tmp_path: Path, damage: str) -> None:
    script = EngineScript()
    folder = write_engine(tmp_path / "engine", script)
    if damage == "no plan":
        (folder / "plan").unlink()
    else:
        (folder / damage).write_bytes(b"\0" + (folder / damage).read_bytes()[1:])
    with pytest.raises(IntegrityError) as caught:
        load_engine(folder, bridge_to(script), orin_nano())
    assert caught.value.exit_code == 5
    assert "edgemed build" in caught.value.hint
    assert not script.calls


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": "10.7.0"}, "TensorRT 10.7.0 (here: 10.3.0)"),
        ({"compute_capability": "7.2"}, "compute capability 7.2 (here: 8.7)"),
        ({"board": "agx-orin-64gb"}, "board agx-orin-64gb (here: orin-nano-8gb)"),
        ({"jetpack": "6.1"}, "JetPack 6.1 (here: 6.2)"),
        ({"jetpack": None}, "JetPack none (here: 6.2)"),
        ({"flavour": "tensorrt_rtx"}, "flavour tensorrt_rtx (here: tensorrt)"),
        (
            {"version": "8.6.2", "jetpack": "6.0"},
            "TensorRT 8.6.2 (here: 10.3.0), JetPack 6.0 (here: 6.2)",
        ),
    ],
)
def test_an_engine_of_another_machine_is_refused_with_every_difference(changes: dict[str, Any], said: str) -> None:
    script = EngineScript()
    with pytest.raises(DeviceStateError) as caught:
        load_engine(plan_of(script, **changes), bridge_to(script), orin_nano())
    assert caught.value.what == f"net/engine was built for {said}."
    assert caught.value.hint == "Build the engine for this machine: edgemed build NAME.edgemed"
    assert caught.value.exit_code == 4
    assert not script.calls


def test_no_gpu_is_said_before_anything_is_compared() -> None:
    script = EngineScript()
    with pytest.raises(DeviceStateError, match="no NVIDIA GPU"):
        require_key(plan_of(script), bridge_to(script), Here(None, None))


def test_off_a_jetson_the_board_is_the_gpu() -> None:
    script = EngineScript()
    here = Here(None, Gpu("RTX A2000", "8.6"))
    fields = {"compute_capability": "8.6", "board": "RTX A2000", "jetpack": None}
    load_engine(plan_of(script, **fields), bridge_to(script), here).close()


def test_no_usable_gpu_is_a_device_state() -> None:
    script = EngineScript(runtime_is_null=True)
    with pytest.raises(DeviceStateError, match=r"cannot start its runtime.*CUDA initialization failure"):
        load_engine(plan_of(script), bridge_to(script), orin_nano())


# what TensorRT logs or reports of a plan that it does not load, the error, its exit code
REFUSALS: list[tuple[str, type[EdgemedError], int, str]] = [
    (
        "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion stdVersionRead == "
        "kSERIALIZATION_VERSION failed.Version tag does not match. Note: Current Version: 239, Serialized Engine "
        "Version: 228)",
        DeviceStateError,
        4,
        "--force",
    ),
    (
        "The engine plan file is generated on an incompatible device, expecting compute 8.7 got compute 7.2, please "
        "rebuild.",
        DeviceStateError,
        4,
        "--force",
    ),
    (
        "Error Code 1: Serialization (magicTagRead == kMAGIC_TAG failed. Magic tag does not match)",
        IntegrityError,
        5,
        "",
    ),
    ("Error Code 2: OutOfMemory (Requested size was 4294967296 bytes.)", GpuMemoryError, 6, "smaller batches"),
    ("CUDA initialization failure with error: 35", DeviceStateError, 4, "driver"),
    ("Cuda Runtime (an illegal memory access was encountered)", GpuError, 6, "end the process"),
    ("", IntegrityError, 5, "--force"),
]


@pytest.mark.parametrize("reported", [True, False], ids=["recorder", "log"])
@pytest.mark.parametrize(("message", "kind", "code", "hint"), REFUSALS, ids=lambda part: str(part)[:40])
def test_a_plan_that_tensorrt_does_not_load(
    message: str, kind: type[EdgemedError], code: int, hint: str, reported: bool
) -> None:
    script = EngineScript()
    if reported:
        script.plan_errors = (("INTERNAL_ERROR", message),)
    else:
        script.plan_log = (message,) if message else ("",)
    with pytest.raises(EdgemedError) as caught:
        load_engine(plan_of(script), bridge_to(script), orin_nano())
    assert type(caught.value) is kind
    assert caught.value.exit_code == code
    assert hint in caught.value.hint
    assert message.rstrip(".")[:200] in caught.value.what
    assert not script.alive


def test_a_sticky_error_while_loading_is_told_apart() -> None:
    script = EngineScript(plan_errors=(("FAILED_EXECUTION", "Cuda Runtime (unspecified launch failure)"),))
    with pytest.raises(GpuError) as caught:
        load_engine(plan_of(script), bridge_to(script), orin_nano())
    assert caught.value.sticky


@pytest.mark.parametrize(
    ("script", "kind", "said"),
    [
        (EngineScript(hosted=("x",)), InputError, "Tensor x of the engine is read from host memory"),
        (EngineScript(packed={"y": "CHW4"}), InputError, "Tensor y of the engine is packed as CHW4"),
        (
            EngineScript(tensors=(("x", "INPUT", "BF16", (1,)), ("y", "OUTPUT", "FLOAT", (1,)))),
            InputError,
            "Tensor x of the engine is bfloat16, which numpy has not",
        ),
        (
            EngineScript(tensors=(("x", "INPUT", "FLOAT", (1,)), ("y", "OUTPUT", "FP8", (1,)))),
            InputError,
            "Tensor y of the engine is fp8, which numpy has not",
        ),
    ],
)
def test_tensors_that_a_runner_cannot_fill_are_refused(script: EngineScript, kind: Any, said: str) -> None:
    with pytest.raises(kind, match=said) as caught:
        load_engine(plan_of(script), bridge_to(script), orin_nano())
    assert caught.value.exit_code == 2
    assert not script.alive


X, Y = EngineScript().tensors


@pytest.mark.parametrize(
    "tensors",
    [
        (X,),
        (X, Y, ("z", "OUTPUT", "FLOAT", (1,))),
        (X, ("y", "OUTPUT", "FLOAT", (1, 3))),
        (X, ("y", "OUTPUT", "HALF", (1, 2))),
        (("x", "INPUT", "FLOAT", (-1, 3, 8, 8)), Y),
        (X, ("y", "INPUT", "FLOAT", (1, 2))),
        (("x", "OUTPUT", "FLOAT", (1, 3, 8, 8)), ("y", "INPUT", "FLOAT", (1, 2))),
    ],
)
def test_an_engine_that_is_not_the_recorded_one_is_refused(tensors: Any) -> None:
    promised, script = plan_of(EngineScript()), EngineScript(tensors=tensors)
    with pytest.raises(IntegrityError, match=r"net/engine holds an engine with .*, and its record says x float32"):
        load_engine(promised, bridge_to(script), orin_nano())
    assert not script.alive


def test_order_of_tensors_is_the_records() -> None:
    rows = (("a", "INPUT", "FLOAT", (1,)), ("b", "INPUT", "FLOAT", (2,)), Y)
    script = EngineScript(tensors=(Y, rows[1], rows[0]))
    with load_engine(plan_of(EngineScript(tensors=rows)), bridge_to(script), orin_nano()) as engine:
        assert [spec.name for spec in engine.specs.inputs] == ["a", "b"]


# ---- DLA


@pytest.mark.parametrize(("built", "asked_for", "set_to"), [(None, None, -1), (0, None, 0), (0, 1, 1)])
def test_the_dla_core_is_the_engines_or_the_one_asked_for(
    built: int | None, asked_for: int | None, set_to: int
) -> None:
    script = EngineScript(dla_cores=2)
    load_engine(plan_of(script, dla_core=built), bridge_to(script), orin_nano(), dla_core=asked_for).close()
    assert asked(script, "deserialize")[0][2] == set_to


@pytest.mark.parametrize(
    ("built", "asked_for", "said"),
    [
        (None, 0, "was built for the GPU, not for a DLA core"),
        (0, 2, "There is no DLA core 2; TensorRT 10.3.0 sees 2 here"),
        (0, -1, "There is no DLA core -1"),
        (3, None, "There is no DLA core 3"),
    ],
)
def test_a_dla_core_that_is_not_there_is_refused(built: int | None, asked_for: int | None, said: str) -> None:
    script = EngineScript(dla_cores=2)
    with pytest.raises(DeviceStateError, match=said) as caught:
        load_engine(plan_of(script, dla_core=built), bridge_to(script), orin_nano(), dla_core=asked_for)
    assert caught.value.exit_code == 4
    assert not script.alive


# ---- contexts and the end


def test_contexts_are_freed_before_the_engine_and_that_before_the_runtime() -> None:
    script = EngineScript()
    with loaded(script) as engine:
        first, second = (engine.execution(Memory().calls()) for _ in range(2))
        assert first is not second
        assert script.alive == ["runtime", "engine", "context 1", "context 2"]
    assert script.freed == ["context 1", "context 2", "engine", "runtime"]


def test_closing_twice_does_no_harm_and_a_closed_engine_gives_no_context() -> None:
    script = EngineScript()
    with loaded(script) as engine:
        execution = engine.execution(Memory().calls())
        execution.close()
        execution.close()
        assert script.freed == ["context 1"]
        again = engine.execution(Memory().calls())
        engine.close()
        with pytest.raises(RuntimeError, match="the execution was closed"):
            again.enqueue(1)
        with pytest.raises(RuntimeError, match="the engine was closed"):
            engine.execution(Memory().calls())


@pytest.mark.parametrize(
    ("errors", "kind", "said"),
    [
        ((), GpuError, "could not make an execution context: it gives no reason"),
        ((("FAILED_ALLOCATION", "Requested size was 9 bytes"),), GpuMemoryError, "Requested size was 9 bytes"),
        ((("INTERNAL_ERROR", "Cuda Runtime (out of memory)"),), GpuMemoryError, r"Cuda Runtime \(out of memory\)"),
        ((("INVALID_STATE", "no profile is free"),), GpuError, "no profile is free"),
    ],
)
def test_a_context_that_is_not_given(errors: Any, kind: type[GpuError], said: str) -> None:
    script = EngineScript(context_is_null=True, context_errors=errors)
    with loaded(script) as engine:
        with pytest.raises(GpuError, match=said) as caught:
            engine.execution(Memory().calls())
        assert type(caught.value) is kind
        assert caught.value.exit_code == 6
        script.context_is_null, script.context_errors = False, ()
        engine.execution(Memory().calls())  # the errors of before are not laid to this one


def test_a_context_that_comes_with_an_error_is_not_taken() -> None:
    script = EngineScript(context_errors=(("FAILED_INITIALIZATION", "cuDLA went wrong"),))
    with loaded(script) as engine, pytest.raises(GpuError, match="cuDLA went wrong"):
        engine.execution(Memory().calls())
