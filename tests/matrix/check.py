"""What holds for every row of the matrix, in CI and at full size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from edgemed.base.errors import InputError
from edgemed.build.fidelity import PARITY_LIMIT
from edgemed.bundle.manifest import GraphName
from edgemed.bundle.read import Bundle
from edgemed.cli.console import ConsoleProgress
from edgemed.engine.rtx import compile_ahead
from edgemed.evaluate.bundled import check_bundle as run_golden
from edgemed.graph.lint import lint
from edgemed.graph.model import load
from tests.matrix.rows import Row

_PRECISIONS = {"float": "fp32", "fp16": "fp16", "int8": "int8", "int8_fp16": "int8"}
_ONE_TARGET = ("8.6",)  # the build compiles for all


@dataclass(frozen=True)
class Found:
    """What a bundle of the matrix turned out to be."""

    parity: float
    error: float
    """Of the quantized or FP16 graph against the float one."""
    share: float | None
    nodes: int
    opset: int
    plans: dict[str, int | str]
    """Bytes of the plan, or TensorRT-RTX's own words, by graph."""


def check(row: Row, bundle: Bundle) -> Found:
    """Parity, lint, golden vectors on ONNX Runtime, and the real TensorRT-RTX compiler on every graph."""
    manifest = bundle.manifest
    parity = max(f.relative_error for f in manifest.fidelity.float_vs_keras)
    assert parity <= PARITY_LIMIT
    wanted = {"float", "int8", "int8_fp16"} if row.precision == "int8" else {"float", "fp16"}
    assert wanted <= manifest.graphs.keys()
    for name in sorted(wanted):
        errors = [f for f in lint(load(bundle.path / manifest.graphs[name].path)) if f.severity == "error"]
        assert not errors, f"{name}: {errors[:3]}"
    if row.precision == "int8":
        _check_pairs(bundle)
    assert all(result.passed for result in run_golden(bundle, ConsoleProgress()).values())
    plans = {name: _compiled(bundle, name) for name in sorted(wanted)}
    for name, plan in plans.items():
        assert isinstance(plan, str) == (name in row.refused), f"{name}: {plan}"
        assert isinstance(plan, int) or row.refused[name] in plan
    fidelity = manifest.fidelity.int8_vs_float or manifest.fidelity.fp16_vs_float
    return Found(
        parity=parity,
        error=max(f.relative_error for f in fidelity),
        share=manifest.fidelity.int8_mac_share,
        nodes=len(_graph(bundle, "float").node),
        opset=manifest.graphs["float"].opset,
        plans=plans,
    )


def _graph(bundle: Bundle, name: GraphName) -> onnx.GraphProto:
    path = bundle.path / bundle.manifest.graphs[name].path
    return onnx.load_model(str(path), load_external_data=False).graph


def _check_pairs(bundle: Bundle) -> None:
    """No int32 DequantizeLinear, no non-zero zero point, no scale of zero, no quantized bias or output."""
    graph = _graph(bundle, "int8")
    constants = {i.name: i for i in graph.initializer}
    pairs = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        zero = numpy_helper.to_array(constants[node.input[2]])
        assert zero.dtype == np.int8
        assert not zero.any()
        assert (numpy_helper.to_array(constants[node.input[1]]) > 0).all()
    restored = {output for node in pairs for output in node.output}
    assert not restored & {output.name for output in graph.output}
    layers = [n for n in graph.node if n.op_type in ("Conv", "ConvTranspose", "Gemm") and len(n.input) > 2]
    assert not restored & {node.input[2] for node in layers}


def _compiled(bundle: Bundle, name: GraphName) -> int | str:
    with ConsoleProgress().stage(name) as stage:
        try:
            built = compile_ahead(
                bundle.graph_source(name),
                _PRECISIONS[name],  # type: ignore[arg-type]
                stage,
                capabilities=_ONE_TARGET,
                profiles=bundle.manifest.profiles(),
            )
        except InputError as error:
            return error.what
        return len(built.plan)
