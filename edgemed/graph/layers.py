"""Which Keras layer a node of a graph came from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["keras_layer", "longest_first"]


def keras_layer(node: str, names: Sequence[str]) -> str | None:
    """The Keras layer a node came from: tf2onnx keeps the layer's name as a part of the node's.

    Args:
        node: name of the node.
        names: names of the layers, as `longest_first` orders them.
    """
    parts = node.replace(":", "/").split("/")
    return next((name for name in names if name in parts), None)


def longest_first(names: Iterable[str]) -> list[str]:
    """Names in the order in which `keras_layer` looks for them."""
    return sorted(names, key=len, reverse=True)
