"""Per-channel scales and shifts behind a Conv, ConvTranspose, Gemm or MatMul are folded into its weights and bias.

onnxslim folds most BatchNorms; this pass takes what it leaves: those behind the Squeeze of a Conv1D, behind a Dense,
and biases that were written as Add. It must run before weight scales are taken: a per-channel INT8 scale of weights
that a BatchNorm multiplies later is the scale of the wrong numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from edgemed.graph.passes.base import GraphPass, PassError, PassResult
from edgemed.graph.passes.rewrite import add_initializer, bypass, can_bypass
from edgemed.graph.values import attribute_int, constant_array, only_consumer

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_WITH_BIAS = {"Conv", "ConvTranspose", "Gemm"}
_LAYERS = _WITH_BIAS | {"MatMul"}


@dataclass(frozen=True)
class Affine:
    """y = x * scale + shift along the channels; both of shape (channels,)."""

    scale: Floats
    shift: Floats


class FoldChannelAffine(GraphPass):
    """Fold BatchNormalization, Mul, Div, Add and Sub by per-channel constants into the layer before them.

    Folding happens in double precision and is rounded to FP32 once.
    """

    name: ClassVar[str] = "fold-channel-affine"

    def call(self, model: ir.Model) -> PassResult:
        """Fold until nothing is left to fold, in place."""
        modified = False
        for node in list(model.graph):
            if _is_layer(node):
                while (found := _next_affine(node)) is not None and _fold(model.graph, node, *found):
                    modified = True
        return PassResult(model, modified)

    def ensures(self, model: ir.Model) -> None:
        """Check that no BatchNormalization follows a convolution directly.

        Raises:
            PassError: one does, though the convolution's weights are constant and nobody else reads its output.
        """
        for node in model.graph:
            user = only_consumer(node.outputs[0]) if node.op_type in ("Conv", "ConvTranspose") else None
            if user is not None and user.op_type == "BatchNormalization" and _is_layer(node) and _affine(user, 1, 0):
                raise PassError(f"BatchNormalization '{user.name}' behind '{node.name}' was not folded.")


def _is_layer(node: ir.Node) -> bool:
    """Return whether a node has constant FP32 weights (and bias) that can take an affine map in."""
    if node.op_type not in _LAYERS or node.domain or len(node.outputs) != 1:
        return False
    weights = constant_array(node.inputs[1])
    if weights is None or weights.dtype.name != "float32" or (node.op_type == "MatMul" and weights.ndim != 2):
        return False
    if node.op_type == "Gemm" and any(
        (a := node.attributes.get(name)) is not None and a.as_float() != 1.0 for name in ("alpha", "beta")
    ):
        return False
    bias = _bias(node)
    return bias is None or ((array := constant_array(bias)) is not None and array.size in (1, _channels(node)))


def _bias(node: ir.Node) -> ir.Value | None:
    return node.inputs[2] if node.op_type in _WITH_BIAS and len(node.inputs) > 2 else None


def _channels(node: ir.Node) -> int:
    weights = constant_array(node.inputs[1])
    assert weights is not None
    if node.op_type == "Conv":
        return int(weights.shape[0])
    if node.op_type == "ConvTranspose":
        return int(weights.shape[1]) * attribute_int(node, "group", 1)
    return int(weights.shape[0 if node.op_type == "Gemm" and attribute_int(node, "transB", 0) else 1])


def _next_affine(layer: ir.Node) -> tuple[ir.Node, Affine] | None:
    """Find the affine node that alone reads the layer's output, directly or behind Squeezes and Unsqueezes."""
    value = layer.outputs[0]
    rank = len(value.shape) if value.shape is not None else None
    axis = 1 if layer.op_type in ("Conv", "ConvTranspose") else (rank or 0) - 1
    while rank is not None and (user := only_consumer(value)) is not None and user.graph is layer.graph:
        if user.op_type not in ("Squeeze", "Unsqueeze"):
            affine = _affine(user, axis, rank, _channels(layer))
            return None if affine is None or not can_bypass(user) else (user, affine)
        moved = _moved_axis(user, axis, rank)
        if moved is None or user.outputs[0].is_graph_output():
            return None
        axis, rank = moved
        value = user.outputs[0]
    return None


def _moved_axis(node: ir.Node, axis: int, rank: int) -> tuple[int, int] | None:
    """Where the channel axis stands behind a Squeeze or Unsqueeze, and the rank there; None where that is unknown."""
    import numpy as np

    array = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
    if array is None:
        return None
    if node.op_type == "Squeeze":
        gone = {int(a) % rank for a in np.ravel(array)}
        return None if axis in gone else (axis - sum(a < axis for a in gone), rank - len(gone))
    new_rank = rank + array.size
    added = {int(a) % new_rank for a in np.ravel(array)}
    kept = [a for a in range(new_rank) if a not in added]
    return kept[axis], new_rank


def _affine(node: ir.Node, axis: int, rank: int, channels: int = 0) -> Affine | None:
    import numpy as np

    if node.op_type == "BatchNormalization":
        return _batch_norm(node) if axis == 1 else None
    if node.op_type not in ("Mul", "Div", "Add", "Sub") or len(node.inputs) != 2:
        return None
    left = constant_array(node.inputs[0])
    if left is not None and node.op_type in ("Div", "Sub"):
        return None  # a constant divided by, or minus, the layer's output
    array = left if left is not None else constant_array(node.inputs[1])
    line = None if array is None else _per_channel(array, axis, rank, channels)
    if line is None:
        return None
    one, zero = np.ones(channels), np.zeros(channels)
    with np.errstate(divide="ignore"):
        affine = {
            "Mul": lambda: Affine(line, zero),
            "Div": lambda: Affine(1.0 / line, zero),
            "Add": lambda: Affine(one, line),
            "Sub": lambda: Affine(one, -line),
        }[node.op_type]()
    return affine if np.isfinite(affine.scale).all() else None


def _per_channel(array: NDArray[np.generic], axis: int, rank: int, channels: int) -> Floats | None:
    """Return the constant as one number per channel, or None where it varies along any other axis."""
    import numpy as np

    if array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if any(d != 1 and (i != axis or d != channels) for i, d in enumerate(shape)):
        return None
    return np.broadcast_to(array.reshape(-1).astype(np.float64), (channels,)).copy()


def _batch_norm(node: ir.Node) -> Affine | None:
    """BatchNormalization at inference: y = (x - mean) / sqrt(variance + epsilon) * gamma + beta."""
    import numpy as np

    arrays = [constant_array(value) for value in node.inputs[1:]]
    if len(arrays) != 4 or attribute_int(node, "training_mode", 0):
        return None
    gamma, beta, mean, variance = (None if a is None else a.astype(np.float64) for a in arrays)
    if gamma is None or beta is None or mean is None or variance is None:
        return None
    epsilon = node.attributes.get("epsilon")
    scale = gamma / np.sqrt(variance + (1e-5 if epsilon is None else epsilon.as_float()))
    return Affine(scale, beta - mean * scale)


def _fold(graph: ir.Graph, layer: ir.Node, user: ir.Node, affine: Affine) -> bool:
    import numpy as np

    if layer.op_type == "MatMul" and np.any(affine.shift):
        return False  # MatMul has no bias; its Add stays
    weights = constant_array(layer.inputs[1])
    assert weights is not None
    if np.any(affine.scale != 1.0):
        scaled = (weights.astype(np.float64) * _along_weights(layer, weights, affine.scale)).astype(np.float32)
        layer.replace_input_with(1, add_initializer(graph, f"{_value_name(layer, 1)}_folded", scaled))
    if layer.op_type in _WITH_BIAS:
        old = constant_array(_bias(layer))
        bias = (0.0 if old is None else old.astype(np.float64).ravel()) * affine.scale + affine.shift
        name = f"{layer.outputs[0].name}_bias" if old is None else f"{_value_name(layer, 2)}_folded"
        if len(layer.inputs) < 3:
            layer.resize_inputs(3)
        layer.replace_input_with(2, add_initializer(graph, name, bias.astype(np.float32)))
    operand = 1 if constant_array(user.inputs[0]) is not None else 0
    if operand:
        first, second = user.inputs
        user.replace_input_with(0, second)
        user.replace_input_with(1, first)
    bypass(user)
    return True


def _value_name(node: ir.Node, index: int) -> str:
    value = node.inputs[index]
    return (value.name if value is not None else None) or f"{node.outputs[0].name}_{index}"


def _along_weights(layer: ir.Node, weights: NDArray[np.generic], scale: Floats) -> Floats:
    """Shape `scale` so that it multiplies the output channels of the weights.

    ConvTranspose keeps its weights as (in, out / groups, ...), the inputs of group g in the g-th block of rows.
    """
    import numpy as np

    if layer.op_type == "Conv":
        return scale.reshape(-1, *(1,) * (weights.ndim - 1))
    if layer.op_type == "ConvTranspose":
        groups = attribute_int(layer, "group", 1)
        rows = np.repeat(scale.reshape(groups, -1), weights.shape[0] // groups, axis=0)
        return rows.reshape(*weights.shape[:2], *(1,) * (weights.ndim - 2))
    transposed = layer.op_type == "Gemm" and attribute_int(layer, "transB", 0)
    return scale.reshape(-1, 1) if transposed else scale.reshape(1, -1)
