"""What boards say: the graph by era, refusals with their way out, lines for trtexec, what rests on weak sources."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgemed.base.errors import InputError, UsageError
from edgemed.base.runner import TensorSpec
from edgemed.engine.bridge import Bridge, ErrorLog
from edgemed.engine.eras import Release
from edgemed.engine.target import Subject, Verdict, judge
from edgemed.graph.model import infer_shapes
from tests.engine.fake_tensorrt import Script, make_fake
from tests.graph.onnx_models import graph, node, rand

INT8_BUNDLE = ("float", "int8", "int8_fp16")
CACHES = ("calib/8.2.1.cache", "calib/8.5.2.cache", "calib/10.3.0.cache")


def plain() -> ir.Model:
    return infer_shapes(
        graph([node("Conv", "x w", "m/c/y")], {"x": (1, 4, 8, 8)}, {"m/c/y": None}, {"w": rand(4, 4, 1, 1)}, opset=13)
    )


def odd() -> ir.Model:
    """A graph with an operator that came with TensorRT 8.5."""
    return infer_shapes(
        graph([node("Mod", "x x", "m/norm_1/y", fmod=1)], {"x": (1, 4)}, {"m/norm_1/y": None}, opset=13)
    )


def subject(model=plain, precision="int8", names=INT8_BUNDLE, **how) -> Subject:
    graphs = {name: (f"graphs/{name}.onnx", model) for name in names}
    inputs = how.pop("inputs", (TensorSpec("x", "float32", (1, 4, 8, 8)),))
    return Subject("net.edgemed", precision, graphs, inputs=inputs, **{"caches": CACHES, **how})


def lines(verdict: Verdict) -> list[list[str]]:
    return [shlex.split(command.line) for command in verdict.commands]


@pytest.mark.parametrize(
    ("device", "chosen"),
    [
        ("xavier-nx@4.6.1", "int8"),
        ("xavier-nx@5.1.3", "int8"),
        ("orin-nano-8gb@6.0", "int8"),
        ("orin-nano-8gb@6.2", "int8"),
        ("thor-t5000@7.0", "int8_fp16"),
        ("agx-orin-64gb@7.2", "int8_fp16"),
        ("thor-t5000@7.2.2", "int8_fp16"),
    ],
)
def test_the_graph_follows_the_era_of_the_boards_tensorrt(device, chosen):
    verdict = judge(device, subject())
    assert (verdict.takes, verdict.graph) == (True, chosen)
    assert verdict.tensorrt in verdict.why
    assert set(verdict.others) == set(INT8_BUNDLE) - {chosen}


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0", "10.11.0", "10.12.0", "10.16.2", "11.0.0", "11.4.1"])
def test_a_release_known_by_its_version_answers_as_the_bridge_over_it_does(version):
    bridge, release = Bridge(make_fake(version, Script()), "tensorrt", ErrorLog()), Release(version)
    assert release.strongly_typed == bridge.strongly_typed
    assert release.allows_weak_typing == bridge.allows_weak_typing


@pytest.mark.parametrize("device", ["nano", "nano@4.6", "tx2"])
def test_boards_without_int8_refuse_and_offer_fp16(device):
    verdict = judge(device, subject())
    assert not verdict.takes
    assert verdict.graph is None
    (refusal,) = verdict.refusals
    assert refusal.rule == "device-int8"
    assert "no INT8 kernels" in refusal.message
    assert refusal.remedy == "Build it with --fp16."
    ((_, *flags),) = lines(verdict)
    assert "--fp16" in flags
    assert "--int8" not in flags
    assert "--onnx=net.edgemed/graphs/float.onnx" in flags
    assert judge(device, subject(precision="fp16")).takes


def test_tx2_rests_on_an_unconfirmed_figure_and_says_so():
    assert set(judge("tx2", subject()).unverified) == {"tensorrt", "int8"}
    assert judge("nano", subject()).unverified == ("tensorrt",)
    assert judge("tx2", subject(precision="fp16")).unverified == ("tensorrt",)


def test_an_operator_that_the_board_lacks_is_refused_by_layer_and_no_command_is_given():
    verdict = judge("agx-xavier@4.6.1", subject(odd, layers=["norm"], inputs=(TensorSpec("x", "float32", (1, 4)),)))
    (refusal,) = verdict.refusals
    assert (refusal.rule, refusal.layer) == ("target-operator", "norm")
    assert "8.5" in refusal.remedy
    assert (verdict.takes, verdict.graph, verdict.commands) == (False, None, ())
    assert judge("agx-xavier@5.1", subject(odd)).takes


def test_nano_is_told_both_that_int8_is_impossible_and_what_fp16_would_meet():
    verdict = judge("nano", subject(odd))
    assert [finding.rule for finding in verdict.refusals] == ["device-int8", "target-operator"]
    assert verdict.commands == ()


def test_boards_that_edgemed_does_not_run_on_get_a_line_for_trtexec():
    verdict = judge("xavier-nx@5.1.3", subject())
    gpu, dla = lines(verdict)
    assert gpu == [
        "/usr/src/tensorrt/bin/trtexec",
        "--onnx=net.edgemed/graphs/int8.onnx",
        "--saveEngine=net-int8.plan",
        "--int8",
        "--fp16",
    ]
    assert dla == [
        "/usr/src/tensorrt/bin/trtexec",
        "--onnx=net.edgemed/graphs/float.onnx",
        "--saveEngine=net-int8-dla0.plan",
        "--int8",
        "--fp16",
        "--calib=net.edgemed/calib/8.5.2.cache",
        "--useDLACore=0",
        "--allowGPUFallback",
    ]


def test_the_others_build_there():
    verdict = judge("orin-nano-8gb@6.2", subject())
    assert lines(verdict) == [["edgemed", "build", "net.edgemed"]]


@pytest.mark.parametrize(
    ("device", "how", "why"),
    [
        ("agx-orin-64gb@7.2", {}, "does not drive its DLA"),
        ("agx-orin-64gb@7.2.2", {}, "reads no calibration cache"),
        ("agx-orin-64gb@6.0", {}, "has no calib/8.6.2.cache"),
        ("agx-orin-64gb@6.2", {"inputs": (TensorSpec("x", "float32", (None, 4, 8, 8)),)}, "no open sizes"),
        ("agx-orin-64gb@6.2", {}, ""),
        ("orin-nano-8gb@6.2", {}, ""),  # it has no DLA
        ("agx-orin-64gb@7.2", {"precision": "fp16", "names": ("float", "fp16")}, ""),  # not asked for
    ],
)
def test_why_the_dla_cannot_run_it_in_int8(device, how, why):
    verdict = judge(device, subject(**how))
    assert why in verdict.dla
    assert bool(verdict.dla) == bool(why)


def test_that_the_dla_is_not_driven_is_marked_where_it_is_inferred():
    assert judge("agx-orin-64gb@7.2", subject()).unverified == ("dla",)
    assert judge("agx-orin-64gb@6.2", subject()).unverified == ()


def test_an_open_batch_gets_its_range_in_the_line_and_other_open_sizes_do_not():
    opened = subject(inputs=(TensorSpec("x", "float32", (None, 4, 8, 8)),))
    assert lines(judge("xavier-nx@5.1.3", opened))[0][-3:] == [
        "--minShapes=x:1x4x8x8",
        "--optShapes=x:1x4x8x8",
        "--maxShapes=x:1x4x8x8",
    ]
    profiles = {"x": ((1, 4, 8, 8), (2, 4, 8, 8), (6, 4, 8, 8))}
    ranged = judge("xavier-nx@5.1.3", subject(inputs=(TensorSpec("x", "float32", (None, 4, 8, 8)),), profiles=profiles))
    assert [word.rpartition(":")[2] for word in lines(ranged)[0][-3:]] == ["1x4x8x8", "2x4x8x8", "6x4x8x8"]
    wide = subject(inputs=(TensorSpec("x", "float32", (None, 4, None, None)),))
    assert not [word for word in lines(judge("xavier-nx@5.1.3", wide))[0] if "Shapes" in word]


def test_a_bundle_without_the_graph_is_refused():
    verdict = judge("thor-t5000@7.2.2", subject(precision="fp16"))
    (refusal,) = verdict.refusals
    assert refusal.rule == "device-graph"
    assert "no graph for fp16" in refusal.message


def test_a_neighbours_list_is_told():
    assert judge("orin-nano-8gb@6.2", subject()).table_is_own is False
    assert "10.1 @96e7811" in judge("orin-nano-8gb@6.2", subject()).table
    assert judge("xavier-nx@5.1.3", subject()).table_is_own is True


def test_an_unverified_maximum_opset_is_named():
    assert judge("thor-t5000@7.0", subject()).unverified == ("opset",)


def test_a_lone_onnx_file_is_held_to_our_rules_too():
    zero = {"s": np.float32(0.1), "z": np.uint8(128)}
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "d"), node("Conv", "d w", "y")]
    built = infer_shapes(graph(nodes, {"x": (1, 4, 8, 8)}, {"y": None}, {**zero, "w": rand(4, 4, 1, 1)}, opset=13))
    alone = Subject("net.onnx", "int8", {"onnx": ("net.onnx", lambda: built)}, lone="onnx")
    rules = {finding.rule for finding in judge("orin-nano-8gb@6.2", alone).refusals}
    assert {"not-int8", "zero-point", "target-type"} <= rules


def test_a_gpu_without_software_rows_cannot_be_judged():
    with pytest.raises(UsageError, match="names no TensorRT"):
        judge("rtx-ada", subject())


def test_an_unknown_board_is_named():
    with pytest.raises(InputError, match="orin-mini"):
        judge("orin-mini", subject())


def test_a_profile_of_ones_own_with_its_own_opset(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'schema = "edgemed/device-profile/1"\nname = "Mine"\nkind = "jetson"\nsoc = "t"\ncompute_capability = "8.7"\n'
        'int8 = true\n[[software]]\njetpack = ["6.2"]\npython = "3.10"\ncuda = "12"\ntensorrt = "10.3"\nopset = 12\n'
        "dla = false\n"
    )
    assert [f.rule for f in judge(f"{path}@6.2", subject()).refusals] == ["target-opset"]


@pytest.mark.parametrize(
    ("own", "asked", "flag"), [("int8", "fp16", " --fp16"), ("int8", "fp32", " --fp32"), ("int8", "int8", "")]
)
def test_the_command_builds_what_was_judged(own: str, asked: str, flag: str):
    verdict = judge("agx-orin-64gb@6.1", subject(precision=asked, own=own))
    assert verdict.commands[0].line == f"edgemed build net.edgemed{flag}"
