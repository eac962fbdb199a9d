"""What a rule is, and the view of a graph that rules look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from edgemed.graph.heads import LAYERS, computed_from_heads, heads
from edgemed.graph.values import constant_array, consumers, producer

__all__ = [
    "CONVOLUTIONS",
    "ELEMENTWISE",
    "LAYERS",
    "RECURRENT",
    "RULES",
    "Hit",
    "Rule",
    "Severity",
    "View",
    "is_weight",
    "made_by",
    "quantized_value",
    "readers",
    "rule",
    "scale_of_node",
]

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

Severity = Literal["error", "warning"]
Check = Callable[["View"], Iterable["Hit"]]

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Pow"})


@dataclass(frozen=True)
class Hit:
    """One node that breaks a rule, and how; `node` is None where the whole graph does."""

    node: ir.Node | None
    message: str


@dataclass(frozen=True)
class Rule:
    """A named check, with the reason that it exists and its source."""

    name: str
    reason: str
    severity: Severity
    check: Check


RULES: dict[str, Rule] = {}


def rule(name: str, reason: str, severity: Severity = "error") -> Callable[[Check], Check]:
    """Register a check under `name`."""

    def register(check: Check) -> Check:
        if name in RULES:
            raise KeyError(f"The rule '{name}' exists twice.")
        RULES[name] = Rule(name, reason, severity, check)
        return check

    return register


class View:
    """A graph with its quantizers and dequantizers sorted out."""

    def __init__(self, model: ir.Model, opset_max: int | None = None) -> None:
        self.model = model
        self.opset_max = opset_max
        self.opset = model.opset_imports.get("", 0)
        self.nodes = list(model.graph.all_nodes())
        self.quantizers = [n for n in self.nodes if n.op_type == "QuantizeLinear"]
        self.dequantizers = [n for n in self.nodes if n.op_type == "DequantizeLinear"]

    @property
    def both(self) -> Iterator[ir.Node]:
        yield from self.quantizers
        yield from self.dequantizers

    @property
    def activations(self) -> Iterator[ir.Node]:
        """Dequantizers of tensors that are computed or fed."""
        return (node for node in self.dequantizers if not is_weight(node))

    @property
    def weights(self) -> Iterator[ir.Node]:
        """Dequantizers of constants."""
        return (node for node in self.dequantizers if is_weight(node))

    @cached_property
    def heads(self) -> set[ir.Node]:
        """Softmax and Sigmoid nodes that no layer follows: their values are the model's answer."""
        return heads(self.model.graph)

    @cached_property
    def from_heads(self) -> set[ir.Value]:
        """Values computed from the output of a head."""
        return computed_from_heads(self.model.graph)


def is_weight(node: ir.Node) -> bool:
    """Return whether a quantizer or dequantizer works on a constant, stored as INT8 or behind a quantizer."""
    return constant_array(quantized_value(node)) is not None


def quantized_value(node: ir.Node) -> ir.Value | None:
    """Return the tensor that a quantizer or a pair stands for: the quantizer's input, or the INT8 constant."""
    value = node.inputs[0]
    maker = producer(value)
    if node.op_type == "DequantizeLinear" and maker is not None and maker.op_type == "QuantizeLinear":
        return maker.inputs[0]
    return value


def readers(node: ir.Node) -> list[tuple[ir.Node, int]]:
    """Nodes that read a node's first output, with the input index."""
    return consumers(node.outputs[0])


def scale_of_node(node: ir.Node) -> NDArray[np.generic] | None:
    """Return the scale array of a quantizer or dequantizer, or None where it is computed."""
    return constant_array(node.inputs[1])


def made_by(value: ir.Value | None, op_types: Iterable[str]) -> bool:
    """Return whether one of `op_types` computes `value`."""
    maker = producer(value)
    return maker is not None and maker.op_type in op_types and not maker.domain
