"""Real TensorRT-RTX compilations, without a GPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import onnx
import pytest

from edgemed.base.errors import InputError, IntegrityError
from edgemed.base.progress import SilentProgress
from edgemed.base.runner import TensorSpec
from edgemed.engine.bridge import load_bridge
from edgemed.engine.build import BuildRequest, BuiltPlan, build_plan
from edgemed.engine.rtx import CAPABILITIES, check_header, compile_ahead
from tests.engine.graphs import big_net, conv_net, qdq_net

pytestmark = pytest.mark.rtx


class CountingStage:
    """A `Stage` that adds up what it is told."""

    def __init__(self) -> None:
        self.steps, self.of = 0, 0

    def total(self, steps: int | None) -> None:
        self.of = steps or 0

    def advance(self, steps: int = 1) -> None:
        assert steps > 0
        self.steps += steps

    def note(self, text: str) -> None: ...


def compile_model(model: onnx.ModelProto, precision: str = "fp32", **keywords: object) -> BuiltPlan:
    return compile_ahead(model.SerializeToString(), precision, CountingStage(), **keywords)  # type: ignore[arg-type]


def test_float_net_compiles_for_all_three_generations(tmp_path: Path) -> None:
    onnx.save(conv_net(), tmp_path / "net.onnx")
    stage = CountingStage()
    built = compile_ahead(tmp_path / "net.onnx", "fp32", stage)
    assert built.compute_capabilities == CAPABILITIES == ("8.6", "8.9", "12.0")
    assert built.inputs == (TensorSpec("x", "float32", (1, 3, 32, 32)),)
    assert built.outputs == (TensorSpec("y", "float32", (1, 4, 32, 32)),)
    assert (built.flavour, built.strongly_typed, built.layer_count) == ("tensorrt_rtx", True, 3)
    assert b"sm86 sm89 sm120" in built.plan  # readable in the plan; no API says so without a GPU
    assert stage.steps == stage.of > 0


def test_int8_net_compiles_with_int8_tensors() -> None:
    small = compile_model(qdq_net(), "int8")
    assert small.precision == "int8"
    assert small.inputs[0].dtype == "float32"
    as_float = compile_model(conv_net())
    assert small.plan.count(b"type=int8") > as_float.plan.count(b"type=int8")
    assert small.layer_count > as_float.layer_count  # the Q/DQ pairs were seen, not folded away by the parser


def test_one_capability_can_be_asked_for() -> None:
    plan = compile_model(conv_net(), capabilities=("8.9",)).plan
    assert b"sm89" in plan
    assert b"sm86" not in plan


def test_unknown_capability_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"knows no compute capability 8\.7") as caught:
        compile_model(conv_net(), capabilities=("8.7",))
    assert "8.6" in caught.value.hint


def test_nonzero_zero_point_is_refused_with_its_node() -> None:
    with pytest.raises(InputError, match=r"cannot read the graph: node \d+ '(x_q|x_dq|w1_dq|r_q|r_dq)'"):
        compile_model(qdq_net(zero_point=3), "int8")


def test_unknown_operator_is_refused_with_its_node() -> None:
    model = conv_net()
    model.graph.node[1].op_type = "Frobnicate"
    with pytest.raises(InputError, match=r"node 1 'middle' \(Frobnicate\)"):
        compile_model(model)


def test_names_that_are_not_text_do_no_harm() -> None:
    good = conv_net().SerializeToString().replace(b"middle", b"m\xff\xfedle")
    assert compile_ahead(good, "fp32", CountingStage()).plan
    with pytest.raises(InputError, match=r"node 1 '\(not text\)' \(Nope\)"):
        compile_ahead(good.replace(b"Relu", b"Nope"), "fp32", CountingStage())


@pytest.mark.parametrize("data", [b"", b"this is no model", b"\x08\x08\x12"])
def test_bytes_that_are_no_model_are_refused(data: bytes) -> None:
    with pytest.raises((InputError, IntegrityError), match=r"cannot|is damaged"):
        compile_ahead(data, "fp32", CountingStage())


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        compile_ahead(tmp_path / "none.onnx", "fp32", CountingStage())


def test_varying_input_needs_a_profile() -> None:
    with pytest.raises(InputError, match=r"Input x float32 \?×3×32×32 has a dimension that varies"):
        compile_model(conv_net(batch="N"))


def test_varying_input_with_a_profile_compiles() -> None:
    shapes = ((1, 3, 32, 32), (4, 3, 32, 32), (8, 3, 32, 32))
    built = compile_model(conv_net(batch="N"), profiles={"x": shapes})
    assert built.inputs[0].shape == (None, 3, 32, 32)
    assert built.outputs[0].shape == (None, 4, 32, 32)


def test_a_refused_graph_does_not_stain_the_next_build() -> None:
    with pytest.raises(InputError, match="cannot read the graph"):
        compile_model(qdq_net(zero_point=3), "int8")
    assert compile_model(conv_net()).plan


def test_tuning_is_accepted() -> None:
    request = BuildRequest(
        conv_net().SerializeToString(),
        "fp32",
        compute_capabilities=("8.6",),
        workspace_bytes=64 << 20,
        optimization_level=1,
        timing_cache=b"",
    )
    built = build_plan(load_bridge("tensorrt_rtx"), request, CountingStage())
    assert built.timing_cache is None  # RTX measures on the device; asking for a cache would ask for a GPU


def test_header_check_refuses_what_is_no_plan() -> None:
    bridge = load_bridge("tensorrt_rtx")
    plan = compile_model(conv_net()).plan
    check_header(bridge, plan)
    for bad in (b"x" * 4096, plan[:40], b"\0" * 8 + plan[8:]):
        with pytest.raises(IntegrityError):
            check_header(bridge, bad)


class Interrupting(CountingStage):
    """Sends SIGINT to this process when the build first reports progress, as a terminal would."""

    def advance(self, steps: int = 1) -> None:
        if not self.steps:
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(0.5)  # the main thread polls ten times a second
        super().advance(steps)


def test_ctrl_c_cancels_the_build() -> None:
    stage = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        compile_ahead(conv_net().SerializeToString(), "fp32", stage)
    assert stage.steps < stage.of  # it ended before its time
    assert compile_model(conv_net()).plan  # and the next build is not harmed


CHILD = """
import sys
from pathlib import Path
from edgemed.base.progress import SilentProgress
from edgemed.engine.rtx import compile_ahead
class Loud:
    said = False
    def total(self, steps): ...
    def note(self, text): ...
    def advance(self, steps=1):
        if not self.said:
            self.said = True
            print("building", flush=True)
try:
    compile_ahead(Path(sys.argv[1]), "fp32", Loud())
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_ends_a_process_in_order(tmp_path: Path) -> None:
    onnx.save(big_net(), tmp_path / "big.onnx")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "big.onnx")], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"building\n"
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (130, b"")


def test_silent_progress_fits() -> None:
    with SilentProgress().stage("engines") as stage:
        assert compile_ahead(conv_net().SerializeToString(), "fp32", stage, capabilities=("8.6",)).seconds > 0
