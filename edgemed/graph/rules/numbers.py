"""Rules about types, zero points, scales and axes of Q/DQ nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgemed.graph.rules.base import (
    CONVOLUTIONS,
    Hit,
    View,
    is_weight,
    quantized_value,
    readers,
    rule,
    scale_of_node,
)
from edgemed.graph.values import attribute_int, constant_array, producer, static_shape

if TYPE_CHECKING:
    import onnx_ir as ir

_FIRST_AXIS_OPSET = 13
_FIRST_FP16_OPSET = 19


@rule("zero-point", "TensorRT quantizes symmetrically: zero points are constants of zeros (NvInfer.h, IQuantizeLayer).")
def zero_point(view: View) -> Iterator[Hit]:
    for node in view.both:
        value = node.inputs[2] if len(node.inputs) > 2 else None
        array = constant_array(value)
        if value is not None and array is None:
            yield Hit(node, "The zero point is not a constant.")
        elif array is not None and array.astype("float32").any():
            yield Hit(node, "The zero point is not zero.")


@rule("int32-dequantize", "TensorRT's ONNX parser rejects DequantizeLinear on INT32, the form of quantized biases.")
def int32_dequantize(view: View) -> Iterator[Hit]:
    for node in view.dequantizers:
        if _stored_type(node) == "INT32":
            yield Hit(node, "The input is INT32.")


@rule("not-int8", "Only INT8 runs on every TensorRT since 8.0; UINT8 is refused since 8.5 (onnx-tensorrt 1106b93).")
def not_int8(view: View) -> Iterator[Hit]:
    for node in view.quantizers:
        if (written := _quantizer_type(node)) != "INT8":
            yield Hit(node, f"It quantizes to {written}.")
    for node in view.dequantizers:
        kind = _stored_type(node)
        if kind not in ("INT8", "INT32") and not _has_quantizer(node):
            yield Hit(node, f"It dequantizes {kind or 'an unknown type'}.")


@rule("scale-constant", "Scales are build-time constants in TensorRT (NvInfer.h, IQuantizeLayer).")
def scale_constant(view: View) -> Iterator[Hit]:
    return (Hit(node, "The scale is computed.") for node in view.both if scale_of_node(node) is None)


@rule("scale-value", "Scales are strictly positive and finite (NvInfer.h, IQuantizeLayer).")
def scale_value(view: View) -> Iterator[Hit]:
    import numpy as np

    for node in view.both:
        scale = scale_of_node(node)
        if scale is None:
            continue
        numbers = scale.astype(np.float64)
        if not (np.isfinite(numbers).all() and (numbers > 0).all()):
            yield Hit(node, f"The scale reaches from {numbers.min()} to {numbers.max()}.")


@rule("activation-per-channel", "TensorRT takes per-channel scales for weights only (NvInfer.h, IQuantizeLayer).")
def activation_per_channel(view: View) -> Iterator[Hit]:
    for node in view.both:
        scale = scale_of_node(node)
        if scale is not None and scale.size > 1 and not is_weight(node):
            yield Hit(node, f"The activation has {scale.size} scales.")


@rule("scalar-input", "The input of a quantizer must not be a scalar (NvInfer.h, IQuantizeLayer).")
def scalar_input(view: View) -> Iterator[Hit]:
    return (Hit(node, "Its input is a scalar.") for node in view.quantizers if static_shape(node.inputs[0]) == ())


@rule("weight-axis", "Per-channel scales run along the output channels; compilers accept a wrong axis in silence.")
def weight_axis(view: View) -> Iterator[Hit]:
    for node in view.weights:
        scale = scale_of_node(node)
        if scale is None or scale.size < 2:
            continue
        for layer, index in readers(node):
            expected = output_channel_axis(layer, index, _rank(node))
            if expected is not None and _axis(node) != expected:
                yield Hit(node, f"The axis is {_axis(node)}; {layer.op_type} '{layer.name}' needs {expected}.")


def output_channel_axis(layer: ir.Node, index: int, rank: int) -> int | None:
    """Axis of the output channels in operand `index` of a layer, or None where there is none."""
    if layer.op_type in CONVOLUTIONS and index == 1:
        return 0 if layer.op_type == "Conv" else 1
    if layer.op_type == "Gemm" and index == 1:
        return 0 if attribute_int(layer, "transB", 0) else 1
    if layer.op_type == "MatMul" and rank >= 2:
        return rank - 1 if index == 1 else rank - 2
    return None


@rule(
    "scale-length", "A scale is one number, or one per channel; block quantization is not INT8 (ONNX QuantizeLinear)."
)
def scale_length(view: View) -> Iterator[Hit]:
    for node in view.both:
        scale, shape = scale_of_node(node), static_shape(quantized_value(node))
        if scale is None:
            continue
        if scale.ndim > 1 or attribute_int(node, "block_size", 0):
            yield Hit(node, "The scale is given by blocks.")
        elif scale.ndim == 1 and shape is not None and is_weight(node):
            axis = attribute_int(node, "axis", 1)
            channels = shape[axis] if -len(shape) <= axis < len(shape) else None
            if scale.size not in (1, channels):
                yield Hit(node, f"There are {scale.size} scales for {channels} channels.")


@rule("pair-mismatch", "Quantizer and dequantizer of a pair share scale and axis, or values change on the way.")
def pair_mismatch(view: View) -> Iterator[Hit]:
    import numpy as np

    for node in view.dequantizers:
        maker = producer(node.inputs[0])
        if maker is None or maker.op_type != "QuantizeLinear":
            continue
        one, other = scale_of_node(maker), scale_of_node(node)
        if one is not None and other is not None and not np.array_equal(one, other, equal_nan=True):
            yield Hit(node, f"The scale differs from that of '{maker.name}'.")
        elif one is not None and one.size > 1 and _axis(node) != _axis(maker):
            yield Hit(node, f"The axis differs from that of '{maker.name}'.")


@rule("dangling", "TensorRT fuses pairs; a lone quantizer or dequantizer leaves INT8 tensors that no layer takes.")
def dangling(view: View) -> Iterator[Hit]:
    for node in view.quantizers:
        if not readers(node) or any(user.op_type != "DequantizeLinear" for user, _ in readers(node)):
            yield Hit(node, "Something other than a DequantizeLinear reads it, or nothing does.")
    for node in view.dequantizers:
        if not is_weight(node) and not _has_quantizer(node):
            yield Hit(node, "Its input comes neither from a QuantizeLinear nor from a constant.")


@rule("opset-axis", "Per-channel scales came with opset 13 (ONNX changelog).")
def opset_axis(view: View) -> Iterator[Hit]:
    if view.opset < _FIRST_AXIS_OPSET:
        for node in view.both:
            scale = scale_of_node(node)
            if "axis" in node.attributes or (scale is not None and scale.ndim):
                yield Hit(node, f"Per-channel scales at opset {view.opset}.")


@rule("opset-fp16-scale", "FP16 scales came with opset 19 (ONNX changelog).")
def opset_fp16_scale(view: View) -> Iterator[Hit]:
    for node in view.both:
        scale = scale_of_node(node)
        if scale is not None and scale.dtype == "float16" and view.opset < _FIRST_FP16_OPSET:
            yield Hit(node, f"The scale is FP16 at opset {view.opset}.")


def _rank(node: ir.Node) -> int:
    shape = static_shape(quantized_value(node))
    return 0 if shape is None else len(shape)


def _axis(node: ir.Node) -> int:
    axis, rank = attribute_int(node, "axis", 1), _rank(node)
    return axis + rank if axis < 0 else axis


def _has_quantizer(node: ir.Node) -> bool:
    maker = producer(node.inputs[0])
    return maker is not None and maker.op_type == "QuantizeLinear"


def _quantizer_type(node: ir.Node) -> str:
    """Type that a quantizer writes: that of its zero point, else its attribute, else UINT8."""
    import onnx_ir as ir

    zero = node.inputs[2] if len(node.inputs) > 2 else None
    if zero is not None:
        kind = zero.const_value.dtype if zero.const_value is not None else zero.dtype
        return "unknown" if kind is None else kind.name
    return ir.DataType(attribute_int(node, "output_dtype", 0) or ir.DataType.UINT8).name


def _stored_type(node: ir.Node) -> str | None:
    value = node.inputs[0]
    if value is None:
        return None
    kind = value.const_value.dtype if value.const_value is not None else value.dtype
    if kind is None and (array := constant_array(value)) is not None:
        return str(array.dtype).upper()
    return None if kind is None else kind.name
