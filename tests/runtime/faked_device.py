"""A machine with a GPU and TensorRT: the host-only libcuda, a faked TensorRT, and a bundle whose engine runs there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import pytest
from evaluate.bundles import write_bundle
from evaluate.hostile import reseal, with_golden
from onnx import TensorProto, helper

from edgemed.base.progress import SilentProgress
from edgemed.bundle.read import Bundle, open_bundle
from edgemed.cli import main as cli_main
from edgemed.device.board import detect_board
from edgemed.device.gpu import Gpu
from edgemed.device.here import Here
from edgemed.engine.onboard import DeviceEngine, build_on_device
from edgemed.runtime import open as opening
from edgemed.runtime.cuda import open_cuda
from tests.engine.fake_runtime import EngineScript
from tests.engine.fake_tensorrt import Script, make_fake
from tests.runtime.standin import GAIN, OFFSET
from tests.runtime.tensorrt_engines import kernels_for

SHAPE = (1, 4, 4, 1)
TENSORS = (("image", "INPUT", "FLOAT", SHAPE), ("score", "OUTPUT", "FLOAT", SHAPE))

Build = Callable[[Bundle], DeviceEngine]


def affine(gain: float = GAIN) -> bytes:
    """`score = gain * image + OFFSET`: what the stand-in's kernel computes."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["image", "gain"], ["scaled"]), helper.make_node("Add", ["scaled", "b"], ["score"])],
        "affine",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, SHAPE)],
        [
            helper.make_tensor("gain", TensorProto.FLOAT, [1], [gain]),
            helper.make_tensor("b", TensorProto.FLOAT, [1], [OFFSET]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def as_affine(manifest: dict[str, Any]) -> None:
    manifest["outputs"][0].update(shape=list(SHAPE), layout="NHWC", task=None, activation=None)


def write(path: Path, **files: bytes) -> Bundle:
    """A bundle of that graph; `recipe` is its recipe."""
    write_bundle(path, boundaries={"float": 0.5})
    recipe = {"recipe.toml": files["recipe"]} if "recipe" in files else {}
    reseal(path, files={"graphs/float.onnx": affine(), **recipe}, edit=as_affine)
    with_golden(path)
    return open_bundle(path)


def script_of() -> EngineScript:
    return EngineScript(tensors=TENSORS)


@contextmanager
def device_of(script: EngineScript, patch: pytest.MonkeyPatch) -> Iterator[Build]:
    """This machine has a GPU and TensorRT, whose engines do as scripted; gives what builds a bundle's engine here."""
    network = Script(inputs=(("image", "FLOAT", SHAPE),), outputs=(("score", "FLOAT", SHAPE),))
    patch.setitem(sys.modules, "tensorrt", make_fake("10.3.0", network, script))
    facts = open_cuda().facts
    here = Here(detect_board(), Gpu(facts.name, facts.compute_capability))
    patch.setattr(opening, "detect_here", lambda: here)

    def build(bundle: Bundle) -> DeviceEngine:
        with SilentProgress().stage("engine") as stage:
            return build_on_device(bundle, stage, here=here)

    with kernels_for(open_cuda(), script, ("image", "score")):
        yield build


def command(*arguments: str | Path) -> int:
    """Exit code of a command run in this process, where TensorRT is faked."""
    return cli_main._run([str(argument) for argument in arguments])
