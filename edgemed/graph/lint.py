"""Lint of graphs that are meant for TensorRT: what its parser refuses, what breaks fusion, what costs accuracy.

TensorRT finds some of these faults while it builds, others never: a wrong channel axis compiles and answers nonsense.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgemed.base.errors import GateError
from edgemed.graph.layers import KerasLayers
from edgemed.graph.rules import numbers, operators, placement  # noqa: F401  (they register their rules)
from edgemed.graph.rules.base import RULES, Rule, Severity, View

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["RULES", "Finding", "Rule", "lint", "require_clean"]

_SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """One breach of a rule; `node` is the node's name, or None where the whole graph is meant.

    `layer` is the Keras layer it came from, where that is known; `remedy` says what to change.
    """

    rule: str
    node: str | None
    message: str
    severity: Severity
    layer: str | None = None
    remedy: str = ""

    def __str__(self) -> str:
        where = f" at the layer '{self.layer}'" if self.layer else f" at '{self.node}'" if self.node else ""
        return f"{self.rule}{where}: {self.message}"


def lint(model: ir.Model, *, target_opset_max: int | None = None, layers: Sequence[str] = ()) -> list[Finding]:
    """Check a graph, with or without Q/DQ, against all rules.

    Args:
        model: the graph; shapes need not be known, but more is found when they are.
        target_opset_max: highest opset that the target's TensorRT reads.
        layers: names of the Keras layers, to name the one that each node came from.

    Returns:
        The findings, errors first, otherwise in the order of rules and nodes.
    """
    view = View(model, target_opset_max)
    known = KerasLayers(layers, (node.name or "" for node in view.nodes))
    findings = []
    for rule in RULES.values():
        for hit in rule.check(view):
            name = None if hit.node is None else hit.node.name
            findings.append(Finding(rule.name, name, hit.message, rule.severity, known.of(name)))
    return sorted(findings, key=lambda finding: finding.severity != "error")


def require_clean(model: ir.Model, *, target_opset_max: int | None = None, layers: Sequence[str] = ()) -> list[Finding]:
    """Raise unless a graph has no errors, and return its warnings.

    Raises:
        GateError: the graph breaks a rule; the message shows the first breaches.
    """
    findings = lint(model, target_opset_max=target_opset_max, layers=layers)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        shown = "; ".join(str(finding).rstrip(".") for finding in errors[:_SHOWN])
        more = f"; and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
        raise GateError(f"The graph breaks rules of TensorRT: {shown}{more}.", "Please report this with the model.")
    return findings
