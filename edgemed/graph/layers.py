"""Which Keras layer a node of a graph came from.

tf2onnx keeps TensorFlow's scopes in the names of nodes, `model_1/conv2d_1_2/BiasAdd`. A layer has a scope of its name,
but TensorFlow makes scopes unique: where a model is traced again, as Keras 3 does, each gets a number behind it. So the
scope `conv2d_1` is the layer `conv2d_1`, or `conv2d` traced again. What the other scopes can only mean decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["KerasLayers"]

_NUMBER = re.compile(r"_\d+$")


class KerasLayers:
    """The layers of one model, looked up by the names of its nodes.

    Args:
        names: of all Keras layers.
        nodes: names of all nodes of the graph.
    """

    def __init__(self, names: Iterable[str], nodes: Iterable[str]) -> None:
        self._names = frozenset(names)
        scopes = {scope: self._meanings(scope) for node in nodes for scope in _scopes(node)}
        self._layers = {scope: found[0] for scope, found in scopes.items() if len(found) == 1}
        sure = frozenset(self._layers.values())
        numbered = any(layer != scope for scope, layer in self._layers.items())
        for scope, found in scopes.items():
            if len(found) > 1:
                free = [layer for layer in found if layer not in sure] or found
                self._layers[scope] = free[-1] if numbered else free[0]

    def of(self, node: str | None) -> str | None:
        """The layer of a node, the innermost where layers are nested; None where it is not known."""
        scopes = reversed(_scopes(node or ""))
        return next((self._layers[scope] for scope in scopes if scope in self._layers), None)

    def _meanings(self, scope: str) -> list[str]:
        """The layers that a scope may stand for: of its very name, and of its name without the number."""
        return [name for name in dict.fromkeys((scope, _NUMBER.sub("", scope))) if name in self._names]


def _scopes(node: str) -> list[str]:
    return node.replace(":", "/").split("/")
