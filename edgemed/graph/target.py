"""Lint of a graph for one TensorRT: what its parser will refuse, which Keras layer that is, and what to change.

A finding of severity `error` means that TensorRT's own list says so. A warning is what costs speed or accuracy there,
or what the list leaves open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgemed.graph.layers import KerasLayers
from edgemed.graph.lint import Finding
from edgemed.graph.opset import needed_opsets
from edgemed.graph.rules.base import Severity
from edgemed.graph.rules.limits import LIMITS, Surroundings
from edgemed.graph.tensorrt import TYPED_SINCE, UNTYPED_UNTIL, Operator, Parser, first_with, parser_of, version_of
from edgemed.graph.values import static_shape

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["has_pairs", "is_half", "lint_target"]

_NAMES: Final = {"FLOAT": "FP32", "FLOAT16": "FP16", "BFLOAT16": "BF16", "DOUBLE": "FP32"}
"""ONNX type → the list's name. The parsers cast DOUBLE down."""
_LOOSE: Final = frozenset({"INT32", "INT64"})
"""The lists are about data; shapes are computed with integers in operators where they name none."""
_DECIDES: Final = {"Where": 1, "OneHot": 2}
"""Operators whose listed types are those of another input than the first."""
_UNTYPED: Final = frozenset({"If", "Loop", "Scan", "Shape", "Size"})


@dataclass(frozen=True)
class _Breach:
    node: ir.Node | None
    rule: str
    message: str
    remedy: str
    severity: Severity = "error"


def lint_target(
    model: ir.Model, tensorrt: str, *, layers: Sequence[str] = (), opset: int | None = None
) -> list[Finding]:
    """Hold a graph against what one TensorRT's parser takes.

    Args:
        model: the graph, with types and shapes inferred.
        tensorrt: version of the target, e.g. `"10.3.0.30"`.
        layers: names of the Keras layers, to name the one that each node came from.
        opset: maximum opset that a device profile states, in place of the table's.

    Returns:
        The findings, errors first, otherwise in the order of the graph.

    Raises:
        InputError: no table is known for this TensorRT.
    """
    parser = parser_of(tensorrt, opset=opset)
    known = KerasLayers(layers, (node.name or "" for node in model.graph.all_nodes()))
    breaches = [*_opset(model, parser), *_operators(model, parser), *_typing(model, parser), *_dynamic(model)]
    findings = [
        Finding(
            breach.rule,
            None if breach.node is None else breach.node.name,
            breach.message,
            breach.severity,
            None if breach.node is None else known.of(breach.node.name),
            breach.remedy,
        )
        for breach in breaches
    ]
    return sorted(findings, key=lambda finding: finding.severity != "error")


def _opset(model: ir.Model, parser: Parser) -> Iterator[_Breach]:
    declared = model.opset_imports.get("", 0)
    if declared <= parser.opset:
        return
    reads = f"TensorRT {parser.tensorrt} reads up to {parser.opset}"
    severity: Severity = "error"
    if declared <= parser.opset_possible:
        reads += f" for sure, and perhaps up to {parser.opset_possible}"
        severity = "warning"
    needed = {node: opset for node, opset in needed_opsets(model).items() if opset > parser.opset}
    if not needed:
        what = f"The graph declares ONNX opset {declared} and needs no more than {parser.opset}; {reads}."
        yield _Breach(None, "target-opset", what, "Declare the lower opset; edgemed build does.", severity)
    for node, opset in needed.items():
        if _known(node, parser) is not None or severity == "warning":  # what it has not at all is told once
            what = f"{node.op_type} needs ONNX opset {opset}; {reads}."
            yield _Breach(node, "target-opset", what, _elsewhere(node.op_type, opset), severity)


def _operators(model: ir.Model, parser: Parser) -> Iterator[_Breach]:
    around = Surroundings(model)
    for node in model.graph.all_nodes():
        known = _known(node, parser)
        if node.domain not in ("", "ai.onnx"):
            what = f"{node.op_type} of the domain {node.domain} is no ONNX operator; TensorRT wants a plugin for it."
            yield _Breach(node, "target-operator", what, "Replace the layer, or write the plugin.")
        elif known is None:
            what = f"TensorRT {parser.tensorrt} has no {node.op_type}."
            yield _Breach(node, "target-operator", what, _elsewhere(node.op_type))
        elif not all(around.is_constant(value) for value in node.outputs):
            yield from _types(node, known, parser)
            yield from _limits(node, known, around)
        elif node.op_type == "Constant":  # what is computed from constants is folded, and asked nothing
            yield from _limits(node, known, around)


def _known(node: ir.Node, parser: Parser) -> Operator | None:
    return parser.operators.get(node.op_type)


def _elsewhere(operator: str, opset: int = 0) -> str:
    first = first_with(operator, opset)
    if first is None:
        return "Replace the layer: no TensorRT known here has this operator."
    return f"Replace the layer, or choose a JetPack whose TensorRT has it: {first} does, and later ones do."


def _types(node: ir.Node, known: Operator, parser: Parser) -> Iterator[_Breach]:
    kind = _type(node)
    if kind is None or not known.types or kind in known.types:
        return
    if kind == "INT64" and parser.casts_int64 and "INT32" in known.types:
        return
    what = f"TensorRT {parser.tensorrt} lists {node.op_type} for {', '.join(sorted(known.types))}, not for {kind}."
    remedy = "Cast in front of it to a type that is listed, or replace the layer."
    if kind in ("UINT8", "INT8"):
        remedy = "Declare the Keras input as float32, save the model again, and cast outside of it."
    yield _Breach(node, "target-type", what, remedy, "warning" if kind in _LOOSE else "error")


def _type(node: ir.Node) -> str | None:
    """The type that the list is about, in the list's words; None where it is unknown or the list is not about one."""
    if node.op_type in _UNTYPED:
        return None
    index = _DECIDES.get(node.op_type, 0)
    value = node.inputs[index] if index < len(node.inputs) else (node.outputs[0] if not node.inputs else None)
    dtype = None if value is None else value.dtype
    return None if dtype is None else _NAMES.get(dtype.name, dtype.name)


def _limits(node: ir.Node, known: Operator, around: Surroundings) -> Iterator[_Breach]:
    for text in known.limits:
        keyword, _, argument = text.partition(":")
        limit = LIMITS[keyword]
        if (breach := limit.check(around, node, argument)) is not None:
            yield _Breach(node, "target-limit", f"{node.op_type}: {breach}", limit.remedy)


def _typing(model: ir.Model, parser: Parser) -> Iterator[_Breach]:
    version = version_of(parser.tensorrt)
    half, pairs = is_half(model), has_pairs(model)
    if half and version < TYPED_SINCE:
        what = f"The graph is written in FP16; TensorRT {parser.tensorrt} chooses types by flags."
        yield _Breach(None, "target-typing", what, "Give it the FP32 graph and the flags --int8 --fp16.", "warning")
    if pairs and not half and version >= UNTYPED_UNTIL:
        what = f"TensorRT {parser.tensorrt} takes types from the graph: what is not INT8 here runs in FP32."
        yield _Breach(None, "target-typing", what, "Build from the typed graph, int8_fp16.onnx.", "warning")
    elif pairs and not half and version >= TYPED_SINCE:
        what = f"TensorRT {parser.tensorrt} still takes precision flags, but they are deprecated."
        yield _Breach(None, "target-typing", what, "Build from the typed graph, int8_fp16.onnx.", "warning")


def _dynamic(model: ir.Model) -> Iterator[_Breach]:
    for value in model.graph.inputs:
        if value.name not in model.graph.initializers and static_shape(value) is None:
            what = f"The input '{value.name}' has open sizes: an engine needs their range, and the DLA takes none."
            remedy = f"Fix them with --input {value.name}=1x…, or give the range: --dynamic-batch MIN:OPT:MAX."
            yield _Breach(None, "target-dynamic", what, remedy, "warning")


def is_half(model: ir.Model) -> bool:
    """Whether a graph is typed: it holds FP16 weights or values."""
    import onnx_ir as ir

    values = [v for graph in model.graphs() for node in graph for v in node.outputs]
    values += [v for graph in model.graphs() for v in graph.initializers.values()]
    return any(value.dtype == ir.DataType.FLOAT16 for value in values)


def has_pairs(model: ir.Model) -> bool:
    """Whether a graph is quantized."""
    return any(node.op_type == "DequantizeLinear" for node in model.graph.all_nodes())
