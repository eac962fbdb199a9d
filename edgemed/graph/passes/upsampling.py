"""Chains of Unsqueeze, Tile, Reshape and Transpose that only repeat pixels become one Resize.

Keras writes nearest UpSampling as `repeat`, which tf2onnx turns into such chains with Transposes between them. A chain
is not matched by its shape of nodes but by what it does: it is run once on the indices of its input's elements, and
replaced only when every output element comes from the element that a nearest Resize would read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from edgemed.graph.model import infer_shapes, opset
from edgemed.graph.passes.base import GraphPass, PassResult
from edgemed.graph.passes.rewrite import add_initializer, replace_value
from edgemed.graph.values import attribute_ints, constant_array, only_consumer, static_shape

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

    Indices = NDArray[np.signedinteger[Any]]

_REPEATING = {"Tile", "Expand"}
_MOVING = {"Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze", "Flatten"}
_RESIZE_WITHOUT_ROI_OPSET = 13


@dataclass(frozen=True)
class Upsampling:
    """Nearest upsampling, then a permutation: result axis i is source axis `perm[i]`, `factors[i]` times as long."""

    perm: tuple[int, ...]
    factors: tuple[int, ...]


class NearestUpsampling(GraphPass):
    """Replace chains that repeat elements along axes by Resize (nearest, asymmetric, floor)."""

    name: ClassVar[str] = "nearest-upsampling"

    def call(self, model: ir.Model) -> PassResult:
        """Replace every chain found; at opsets below 13, where Resize needs a region of interest, do nothing."""
        if (opset(model) or 0) < _RESIZE_WITHOUT_ROI_OPSET:
            return PassResult(model, False)
        infer_shapes(model)
        modified = False
        for node in list(model.graph):
            if node.op_type in _REPEATING and node.graph is not None:
                modified = _replace(model.graph, node) or modified
        if modified:
            infer_shapes(model)
        return PassResult(model, modified)


def _replace(graph: ir.Graph, repeating: ir.Node) -> bool:
    for chain in _chains(repeating):
        upsampling = _recognise(chain)
        if upsampling is not None:
            _emit(graph, chain, upsampling)
            return True
    return False


def _chains(repeating: ir.Node) -> Iterator[list[ir.Node]]:
    """Yield the parts of the longest chain around a node that contain the node, longest first."""
    before: list[ir.Node] = []
    node = repeating
    while (up := node.inputs[0].producer() if node.inputs[0] is not None else None) is not None:
        if not _is_step(up) or only_consumer(up.outputs[0]) is not node:
            break
        before.insert(0, up)
        node = up
    chain, node = [*before, repeating], repeating
    while (down := only_consumer(node.outputs[0])) is not None and _is_step(down) and down.inputs[0] is node.outputs[0]:
        chain.append(down)
        node = down
    at = len(before)
    spans = [(i, j) for i in range(at + 1) for j in range(at + 1, len(chain) + 1)]
    for i, j in sorted(spans, key=lambda span: (span[0] - span[1], span)):
        yield chain[i:j]


def _is_step(node: ir.Node) -> bool:
    if node.op_type not in _REPEATING | _MOVING or node.domain:
        return False
    return all(constant_array(value) is not None for value in node.inputs[1:])


def _recognise(chain: list[ir.Node]) -> Upsampling | None:
    shape, target = static_shape(chain[0].inputs[0]), static_shape(chain[-1].outputs[0])
    if shape is None or target is None or len(shape) != len(target) or 0 in shape or not _is_step(chain[0]):
        return None
    indices = _trace(chain, shape)
    return None if indices is None or indices.shape != target else recognise_upsampling(shape, indices)


def recognise_upsampling(shape: tuple[int, ...], indices: Indices) -> Upsampling | None:
    """Recognise nearest upsampling by integer factors, followed by any permutation of the axes.

    Args:
        shape: shape of the source.
        indices: for every element of the result, the flat index of the source element it equals; same rank.

    Returns:
        The upsampling, or None where the result is anything else, or a mere permutation.
    """
    import numpy as np

    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    guess = _guess(shape, strides, indices)
    if guess is None or max(guess.factors) == 1:
        return None
    expected = np.zeros((1,) * indices.ndim, dtype=indices.dtype)
    for axis, (source, factor) in enumerate(zip(guess.perm, guess.factors, strict=True)):
        line = (np.arange(indices.shape[axis], dtype=indices.dtype) // factor) * strides[source]
        expected = expected + line.reshape([-1 if i == axis else 1 for i in range(indices.ndim)])
    return guess if np.array_equal(expected, indices) else None


def _guess(shape: tuple[int, ...], strides: list[int], indices: Indices) -> Upsampling | None:
    """Read the only possible answer off the lines that leave the first element along each axis."""
    import numpy as np

    found: dict[int, tuple[int, int]] = {}  # result axis -> (source axis, factor)
    for axis, length in enumerate(indices.shape):
        line = indices[tuple(slice(None) if i == axis else 0 for i in range(indices.ndim))]
        factor = int(np.count_nonzero(line == 0))
        if factor == length:
            continue  # it comes from a source axis of length 1
        step = int(line[factor])
        source = next((i for i, d in enumerate(shape) if d > 1 and strides[i] == step and d * factor == length), None)
        if source is None or source in {s for s, _ in found.values()}:
            return None
        found[axis] = (source, factor)
    unused = iter(i for i in range(len(shape)) if i not in {s for s, _ in found.values()})
    pairs = [found.get(axis) or (next(unused), length) for axis, length in enumerate(indices.shape)]
    return Upsampling(tuple(source for source, _ in pairs), tuple(factor for _, factor in pairs))


def _trace(chain: list[ir.Node], shape: tuple[int, ...]) -> Indices | None:
    """Run the chain on the flat indices of its input."""
    import numpy as np

    size = math.prod(shape)
    small = size < 1 << 31
    indices: Indices = np.arange(size, dtype=np.int32) if small else np.arange(size, dtype=np.int64)
    indices = indices.reshape(shape)
    for node in chain:
        target = static_shape(node.outputs[0])
        if target is None:
            return None
        if node.op_type == "Transpose":
            indices = indices.transpose(attribute_ints(node, "perm", range(indices.ndim)[::-1]))
        elif node.op_type == "Tile":
            repeats = [t // d for t, d in zip(target, indices.shape, strict=True)]
            indices = np.tile(indices, repeats).astype(indices.dtype, copy=False)
        elif node.op_type == "Expand":
            indices = np.broadcast_to(indices, target)  # the target has the input's rank or more
        else:
            indices = indices.reshape(target)
    return indices


def _emit(graph: ir.Graph, chain: list[ir.Node], upsampling: Upsampling) -> None:
    """Put Resize, and a Transpose where axes move, in the place of the chain."""
    source, result = chain[0].inputs[0], chain[-1].outputs[0]
    assert source is not None
    perm, rank = upsampling.perm, len(upsampling.perm)
    by_source = tuple(upsampling.factors[perm.index(axis)] for axis in range(rank))
    base = chain[-1].name or f"{result.name}_upsampling"
    # Resize where batch and channel are the first two axes: image libraries and TensorRT scale the trailing ones.
    transpose_first = max(by_source[:2]) > 1 and max(upsampling.factors[:2]) == 1
    nodes: list[ir.Node] = []
    if perm == tuple(range(rank)):
        nodes.append(_resize(graph, source, by_source, base))
    elif transpose_first:
        nodes.append(_transpose(source, perm, base))
        nodes.append(_resize(graph, nodes[0].outputs[0], upsampling.factors, base))
    else:
        nodes.append(_resize(graph, source, by_source, base))
        nodes.append(_transpose(nodes[0].outputs[0], perm, base))
    for i, node in enumerate(nodes):
        node.outputs[0].name, node.outputs[0].type = f"{result.name}_resized_{i}", result.type
    nodes[-1].outputs[0].shape = result.shape
    graph.insert_after(chain[-1], nodes)
    replace_value(result, nodes[-1].outputs[0])
    graph.remove(chain[::-1], safe=True)


def _transpose(value: ir.Value, perm: tuple[int, ...], base: str) -> ir.Node:
    import onnx_ir as ir

    return ir.node("Transpose", [value], {"perm": list(perm)}, name=f"{base}_transpose")


def _resize(graph: ir.Graph, value: ir.Value, factors: tuple[int, ...], base: str) -> ir.Node:
    import numpy as np
    import onnx_ir as ir

    scales = add_initializer(graph, f"{base}_scales", np.array(factors, dtype=np.float32))
    attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return ir.node("Resize", [value, None, scales], attributes, name=f"{base}_resize")
