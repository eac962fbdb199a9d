"""One context: shapes and profiles, addresses, outputs that grow, and what becomes of every refusal."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.base.errors import GpuError, GpuMemoryError, InputError
from edgemed.engine.failure import STICKY
from edgemed.engine.load import load_engine
from edgemed.runtime.execution import Execution
from tests.engine.engines import Memory, asked, bridge_to, loaded, plan_of
from tests.engine.fake_runtime import EngineScript
from tests.engine.test_onboard import orin_nano

VERSIONS = pytest.mark.parametrize("version", ["8.6.1", "10.3.0", "10.13.0", "11.4.0"])
REST = (3, 8, 8)
SMALL = {"x": ((1, *REST), (2, *REST), (4, *REST))}
LARGE = {"x": ((4, *REST), (16, *REST), (32, *REST))}


def two_out(name: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The batch goes through."""
    return (shapes["x"][0], 2)


def batched(**changes: Any) -> EngineScript:
    tensors = (("x", "INPUT", "FLOAT", (-1, *REST)), ("y", "OUTPUT", "FLOAT", (-1, 2)))
    return EngineScript(**{"tensors": tensors, "profiles": (SMALL, LARGE), "output_shape": two_out, **changes})


def growing(**changes: Any) -> EngineScript:
    tensors = (("x", "INPUT", "FLOAT", (1, *REST)), ("boxes", "OUTPUT", "FLOAT", (-1, 6)))
    return EngineScript(**{"tensors": tensors, **changes})


@VERSIONS
def test_an_execution_is_bound_and_enqueued_on_the_very_stream(version: str) -> None:
    script = EngineScript()
    with loaded(script, version) as engine:
        execution: Execution = engine.execution(Memory().calls())
        assert execution.specs == engine.specs
        assert execution.output_shape("y") == (1, 2)
        assert not execution.profiles
        assert execution.capturable
        execution.bind("x", 0x100)
        execution.bind("y", 0x200)
        execution.signal_input_consumed(5)
        execution.enqueue(1234)
        execution.enqueue(1234)
    assert asked(script, "execute_async_v3") == [(1, 1234), (1, 1234)]
    assert asked(script, "set_tensor_address") == [("x", 0x100), ("y", 0x200)]
    assert asked(script, "set_input_consumed_event") == [(5,)]


def test_work_is_given_the_addresses_of_now() -> None:
    seen: list[Mapping[str, int]] = []
    script = EngineScript(work=lambda enqueued: seen.append(enqueued.addresses))
    with loaded(script) as engine:
        execution = engine.execution(Memory().calls())
        for address in (0x100, 0x100, 0x300):
            execution.bind("x", address)
            execution.bind("y", address + 0x1000)
            execution.enqueue(1)
    assert seen == [{"x": a, "y": a + 0x1000} for a in (0x100, 0x100, 0x300)]
    assert len(asked(script, "set_tensor_address")) == 4  # what is bound already is not bound again


def test_an_address_that_tensorrt_could_not_use_is_a_bug_of_the_caller() -> None:
    with loaded(EngineScript()) as engine, pytest.raises(ValueError, match="the address of x is not a multiple of 256"):
        engine.execution(Memory().calls()).bind("x", 0x110)


# ---- shapes and profiles


@VERSIONS
def test_shapes_are_asked_for_once_and_the_usual_ones_stand_first(version: str) -> None:
    script, memory = batched(), Memory()
    with loaded(script, version) as engine:
        execution = engine.execution(memory.calls())
        assert execution.profiles == {"x": ((1, *REST), (2, *REST), (32, *REST))}
        assert execution.output_shape("y") == (2, 2)
        execution.set_input_shapes({"x": (3, *REST)})
        assert execution.output_shape("y") == (3, 2)
        before = len(script.calls)
        execution.set_input_shapes({"x": (3, *REST)})
        execution.set_input_shapes({})
        assert len(script.calls) == before
    assert not asked(script, "set_optimization_profile_async")
    assert not memory.log


def test_a_profile_is_switched_on_the_given_stream_and_waited_for() -> None:
    script, memory = batched(), Memory()
    with loaded(script) as engine:
        execution = engine.execution(memory.calls(stream=4711))
        execution.set_input_shapes({"x": (4, *REST)})  # both take it: the active one stays
        assert not asked(script, "set_optimization_profile_async")
        execution.set_input_shapes({"x": (32, *REST)})
        assert asked(script, "set_optimization_profile_async") == [(1, 4711)]
        assert memory.log == ["synchronize", "synchronize"]
        execution.set_input_shapes({"x": (4, *REST)})
        assert len(asked(script, "set_optimization_profile_async")) == 1
        execution.set_input_shapes({"x": (1, *REST)})
        assert asked(script, "set_optimization_profile_async") == [(1, 4711), (0, 4711)]
        assert execution.output_shape("y") == (1, 2)


def test_two_contexts_hold_shapes_of_their_own() -> None:
    with loaded(batched()) as engine:
        first, second = (engine.execution(Memory().calls()) for _ in range(2))
        first.set_input_shapes({"x": (1, *REST)})
        second.set_input_shapes({"x": (32, *REST)})
        assert (first.output_shape("y"), second.output_shape("y")) == ((1, 2), (32, 2))


def test_all_shapes_are_set_anew_after_a_switch() -> None:
    """An input whose shape is the same in both profiles keeps it, though TensorRT has forgotten."""
    rows = (("x", "INPUT", "FLOAT", (-1,)), ("n", "INPUT", "INT32", (-1,)), ("y", "OUTPUT", "FLOAT", (1,)))
    profiles = (
        {"x": ((1,), (1,), (4,)), "n": ((1,), (7,), (9,))},
        {"x": ((5,), (6,), (8,)), "n": ((1,), (7,), (9,))},
    )
    script = EngineScript(tensors=rows, profiles=profiles)
    with loaded(script) as engine:
        execution = engine.execution(Memory().calls())
        script.calls.clear()
        execution.set_input_shapes({"x": (6,)})
        assert asked(script, "set_input_shape") == [("x", (6,)), ("n", (7,))]


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"x": (33, *REST)}, "Input x got 33×3×8×8; the engine takes 1×3×8×8 to 32×3×8×8."),
        ({"x": (0, *REST)}, "Input x got 0×3×8×8; the engine takes 1×3×8×8 to 32×3×8×8."),
        ({"x": (2, 3, 8)}, "Input x float32 ?×3×8×8 got 2×3×8."),
        ({"x": (2, 4, 8, 8)}, "Input x float32 ?×3×8×8 got 2×4×8×8."),
        ({"z": (1,)}, "The engine has no input z."),
    ],
)
def test_shapes_that_no_profile_takes_are_refused_and_nothing_changes(shapes: Any, said: str) -> None:
    script = batched()
    with loaded(script) as engine:
        execution = engine.execution(Memory().calls())
        before = len(script.calls)
        with pytest.raises(InputError) as caught:
            execution.set_input_shapes(shapes)
        assert caught.value.what == said
        assert len(script.calls) == before
        assert execution.output_shape("y") == (2, 2)


def test_a_gap_between_profiles_is_said() -> None:
    script = batched(profiles=(SMALL, {"x": ((16, *REST), (16, *REST), (32, *REST))}))
    with loaded(script) as engine, pytest.raises(InputError, match="to 32×3×8×8, not in this combination"):
        engine.execution(Memory().calls()).set_input_shapes({"x": (8, *REST)})


def test_a_fixed_input_may_be_named_with_its_own_shape_only() -> None:
    with loaded(EngineScript()) as engine:
        execution = engine.execution(Memory().calls())
        execution.set_input_shapes({"x": (1, *REST)})
        with pytest.raises(InputError, match="got 2×3×8×8"):
            execution.set_input_shapes({"x": (2, *REST)})


@given(st.lists(st.integers(1, 32), min_size=1, max_size=8))
def test_whatever_the_batches_are_the_output_follows(batches: list[int]) -> None:
    script = batched()
    with loaded(script) as engine:
        execution = engine.execution(Memory().calls())
        for batch in batches:
            execution.set_input_shapes({"x": (batch, *REST)})
            assert execution.output_shape("y") == (batch, 2)


def test_a_context_without_a_profile_says_how_to_share() -> None:
    """TensorRT 8.6, and an engine that was not built for sharing."""
    script = batched(shares_profiles=False)
    with loaded(script, "8.6.1") as engine:
        engine.execution(Memory().calls())
        with pytest.raises(
            GpuError, match=r"tensorrt 8\.6\.1 gives each context an optimization profile of its own"
        ) as caught:
            engine.execution(Memory().calls())
        assert "--force" in caught.value.hint
        assert script.alive == ["runtime", "engine", "context 1"]  # although its frames are kept


CALLS: dict[str, Callable[[Execution], None]] = {
    "set_input_shape": lambda execution: execution.set_input_shapes({"x": (3, *REST)}),
    "set_optimization_profile_async": lambda execution: execution.set_input_shapes({"x": (32, *REST)}),
    "set_tensor_address": lambda execution: execution.bind("x", 0x100),
    "set_input_consumed_event": lambda execution: execution.signal_input_consumed(1),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_refused_call_is_an_error_with_what_was_reported(call: str) -> None:
    script = batched()
    with loaded(script) as engine:
        execution = engine.execution(Memory().calls())
        script.refused[call] = (("INVALID_ARGUMENT", f"{call} went wrong."),)
        with pytest.raises(GpuError, match=f"tensorrt 10.3.0 could not .*: {call} went wrong") as caught:
            CALLS[call](execution)
        assert caught.value.exit_code == 6
        assert not caught.value.sticky
        script.refused.clear()
        execution.bind("x", 0x100)
        execution.set_input_shapes({"x": (16, *REST)})  # and goes on as if nothing had been set
        assert execution.output_shape("y") == (16, 2)


@pytest.mark.parametrize(
    "changes", [{"contradiction": "x and n do not broadcast"}, {"missing": ("n",)}], ids=["contradiction", "missing"]
)
def test_shapes_that_do_not_go_together(changes: dict[str, Any]) -> None:
    script = batched()
    with loaded(script) as engine:
        execution = engine.execution(Memory().calls())
        for name, value in changes.items():
            setattr(script, name, value)
        said = changes.get("contradiction", r"\(n\)")
        with pytest.raises(GpuError, match=f"could not infer the shapes of its outputs.*{said}"):
            execution.set_input_shapes({"x": (1, *REST)})


# ---- outputs that only the data sizes


@VERSIONS
def test_an_output_grows_as_far_as_it_must_and_no_further(version: str) -> None:
    script, memory = growing(), Memory()
    with loaded(script, version) as engine:
        execution = engine.execution(memory.calls())
        assert execution.output_shape("boxes") is None
        assert not execution.capturable
        execution.bind("x", 0x100)
        for shape in ((5, 6), (3, 6), (9, 6)):
            script.grown_shape = shape
            execution.enqueue(1)
            address, found = execution.grown("boxes")
            assert found == shape
            assert memory.held[address] >= 4 * shape[0] * shape[1]
        assert memory.log == ["+120", "-120", "+216"]
    assert not memory.held


def test_an_output_without_memory_is_out_of_memory() -> None:
    script, memory = growing(), Memory(limit=100)
    with loaded(script) as engine:
        execution = engine.execution(memory.calls())
        execution.bind("x", 0x100)
        with pytest.raises(GpuMemoryError, match="The GPU has no memory left"):
            execution.enqueue(1)
        with pytest.raises(GpuError, match="told no shape for output boxes"):
            execution.grown("boxes")
        memory.limit = 1000
        execution.enqueue(1)
        assert execution.grown("boxes")[1] == (5, 6)


@pytest.mark.parametrize("wrong", [lambda size: 0x101, lambda size: 1 / 0], ids=["alignment", "exception"])
def test_an_allocator_that_fails_otherwise_never_raises_into_the_library(wrong: Any) -> None:
    script, memory = growing(), Memory()
    with loaded(script) as engine:
        execution = engine.execution(memory.calls(allocate=wrong, free=lambda address: None))
        execution.bind("x", 0x100)
        for _ in range(2):  # memory that was refused is not kept for the next time
            with pytest.raises(GpuError, match=r"aligned to 256 bytes|division by zero"):
                execution.enqueue(1)


def test_an_allocator_goes_when_the_shape_is_known() -> None:
    """An output that depends on the data for some input shapes only."""
    script = batched(output_shape=lambda name, shapes: (-1, 2) if shapes["x"][0] > 2 else two_out(name, shapes))
    memory = Memory()
    with loaded(script) as engine:
        execution = engine.execution(memory.calls())
        execution.set_input_shapes({"x": (3, *REST)})
        assert not execution.capturable
        execution.bind("x", 0x100)
        execution.enqueue(1)
        assert memory.held
        execution.set_input_shapes({"x": (1, *REST)})
        assert execution.capturable
        assert not memory.held
    assert asked(script, "set_output_allocator") == [("y", True), ("y", False)]


# ---- errors of an execution


@VERSIONS
@pytest.mark.parametrize(
    ("reports", "kind", "sticky"),
    [
        ((), GpuError, False),
        ((("INVALID_STATE", "not all shapes are set"),), GpuError, False),
        ((("FAILED_ALLOCATION", "no scratch memory"),), GpuMemoryError, False),
        ((("FAILED_EXECUTION", "Cuda Runtime (out of memory)"),), GpuMemoryError, False),
        ((("FAILED_EXECUTION", "Cuda Runtime (an illegal memory access was encountered)"),), GpuError, True),
        ((("FAILED_EXECUTION", "Cuda Runtime (invalid argument)"), ("INTERNAL_ERROR", "more")), GpuError, False),
    ],
)
def test_an_enqueue_that_fails(version: str, reports: Any, kind: type[GpuError], sticky: bool) -> None:
    script = EngineScript(refused={"execute_async_v3": reports})
    with loaded(script, version) as engine:
        execution = engine.execution(Memory().calls())
        with pytest.raises(GpuError) as caught:
            execution.enqueue(1)
        said = reports[0][1] if reports else "it gives no reason"
        assert caught.value.what == f"tensorrt {version} could not run the engine: {said}."
        assert type(caught.value) is kind
        assert caught.value.sticky == sticky
        assert caught.value.exit_code == 6


@pytest.mark.parametrize("text", [sign for pair in STICKY.items() for sign in pair])
def test_errors_after_which_cuda_is_lost_are_sticky(text: str) -> None:
    script = EngineScript(refused={"execute_async_v3": (("INTERNAL_ERROR", f"Error Code 1: Cuda Runtime ({text})"),)})
    told: list[GpuError] = []
    with loaded(script) as engine, pytest.raises(GpuError) as caught:
        engine.execution(Memory().calls(lost=told.append)).enqueue(1)
    assert caught.value.sticky
    assert told == [caught.value]


def test_an_error_that_comes_late_is_raised_though_the_call_succeeds() -> None:
    script = EngineScript(late=(("FAILED_EXECUTION", "an earlier kernel failed"),))
    with loaded(script) as engine:
        execution = engine.execution(Memory().calls())
        execution.bind("x", 0x100)
        execution.bind("y", 0x200)
        with pytest.raises(GpuError, match="an earlier kernel failed"):
            execution.enqueue(1)
        script.late = ()
        execution.enqueue(1)


def test_an_error_that_comes_after_the_call_is_found_when_the_execution_has_ended() -> None:
    script = EngineScript()
    with loaded(script) as engine:
        execution = engine.execution(Memory().calls())
        execution.bind("x", 0x100)
        execution.bind("y", 0x200)
        execution.enqueue(1)
        execution.check()
        recorder = execution._context.error_recorder
        recorder.report_error(execution._bridge.trt.ErrorCodeTRT.FAILED_EXECUTION, "a layer failed")
        with pytest.raises(GpuError, match="a layer failed"):
            execution.check()
        execution.check()


def test_an_error_of_one_context_is_not_laid_to_another() -> None:
    script = EngineScript(late=(("FAILED_EXECUTION", "mine"),))
    with loaded(script) as engine:
        first, second = (engine.execution(Memory().calls()) for _ in range(2))
        for execution in (first, second):
            execution.bind("x", 0x100)
            execution.bind("y", 0x200)
        with pytest.raises(GpuError):
            first.enqueue(1)
        script.late = ()
        second.enqueue(1)


def test_where_nothing_was_reported_the_log_is_asked_for_what_is_new() -> None:
    script = EngineScript(refused={"execute_async_v3": ()})
    bridge = bridge_to(script)
    bridge.log.record("ERROR", "an error of long ago")
    with load_engine(plan_of(script), bridge, orin_nano()) as engine:
        execution = engine.execution(Memory().calls())
        with pytest.raises(GpuError, match="it gives no reason"):
            execution.enqueue(1)
        bridge.log.record("ERROR", "this time")
        with pytest.raises(GpuError, match="this time"):
            execution.enqueue(1)
        with pytest.raises(GpuError, match="it gives no reason"):
            execution.enqueue(1)


def test_contexts_are_driven_from_threads_of_their_own() -> None:
    script = EngineScript()
    with loaded(script) as engine:
        executions = [engine.execution(Memory().calls()) for _ in range(4)]

        def drive(execution: Execution, place: int) -> None:
            for turn in range(50):
                execution.bind("x", 0x100 * (place + 1))
                execution.bind("y", 0x1000 * (turn + 1))
                execution.enqueue(place)

        threads = [threading.Thread(target=drive, args=(e, i)) for i, e in enumerate(executions)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(asked(script, "execute_async_v3")) == 200


# ---- what else may be chosen


def test_auxiliary_streams_are_handed_on() -> None:
    script = EngineScript(aux_streams=2)
    with loaded(script) as engine:
        engine.execution(Memory().calls(aux_streams=(8, 9)))
    assert asked(script, "set_aux_streams") == [((8, 9),)]


def test_dla_work_is_not_recorded_into_graphs() -> None:
    with loaded(EngineScript(dla_cores=1), dla_core=0) as engine:
        assert not engine.execution(Memory().calls()).capturable


@pytest.mark.parametrize("capturable", [True, False])
def test_tensorrt_rtx_is_asked_whether_it_can_be_recorded(capturable: bool) -> None:
    script = EngineScript(capturable=capturable)
    bridge = bridge_to(script, "1.7.1", "tensorrt_rtx")
    plan = plan_of(script, flavour="tensorrt_rtx", version="1.7.1")
    with load_engine(plan, bridge, orin_nano()) as engine:
        assert engine.execution(Memory().calls()).capturable == capturable
