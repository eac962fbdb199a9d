"""Write the FP16 part of a strongly typed graph: TensorRT 10.12 and later, 11 and RTX take every type from it.

Inputs and outputs of the graph stay FP32, weights become FP16 initializers, and Casts stand only where a node that
stays in FP32 meets one that does not. No Cast touches a Q/DQ pair whose scale FP16 can hold: its quantizer takes the
type that its input has, its dequantizer gives the type that its readers take, and both scales are the same number.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from edgemed.graph.model import infer_shapes, set_ir_version
from edgemed.graph.opset import raise_opset
from edgemed.graph.pairs import finer_codes, half_scale, quantized_weight
from edgemed.graph.precision import KeptFloat, Precision, fp32_inputs, to_half
from edgemed.graph.values import attribute_int, constant_array

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

__all__ = ["TYPED_OPSET", "KeptFloat", "to_fp16"]

TYPED_OPSET: Final = 19
"""The first opset in which QuantizeLinear and DequantizeLinear take FP16 scales."""


def to_fp16(
    model: ir.Model, *, keep_float: Collection[str] = (), seen: Mapping[str, float]
) -> tuple[ir.Model, tuple[KeptFloat, ...]]:
    """A strongly typed copy of a graph, with or without Q/DQ, that computes in FP16 what FP16 can hold.

    Args:
        model: a clean FP32 graph; it is not changed.
        keep_float: names of nodes that stay in FP32 whatever is known of them.
        seen: largest magnitude of each tensor on real samples, by name.

    Returns:
        The typed graph, opset 19 or later, and the nodes that stay in FP32 with the reason, in graph order.

    Raises:
        InputError: `keep_float` names no node, or the graph's types contradict each other.
    """
    typed = infer_shapes(raise_opset(model.clone(), TYPED_OPSET))
    precision = Precision(typed, keep_float, seen)
    _Writer(typed, precision).run()
    set_ir_version(infer_shapes(typed))
    return typed, tuple(precision.kept.values())


class _Writer:
    """Retypes one graph in place."""

    def __init__(self, model: ir.Model, precision: Precision) -> None:
        import onnx_ir as ir

        self._graph = model.graph
        self._half = precision.half
        self._halves: dict[tuple[str, bytes], ir.Value] = {}
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._float, self._float16 = ir.DataType.FLOAT, ir.DataType.FLOAT16

    def run(self) -> None:
        for node in self._graph:
            if node in self._half:
                self._retype_outputs(node)
        for node in [n for n in self._graph if n.op_type == "QuantizeLinear"]:
            self._pair(node)
        for node in list(self._graph.all_nodes()):
            self._match_inputs(node)
        self._restore_graph_outputs()
        self._remove_unused_constants()
        self._graph.sort()

    def _retype_outputs(self, node: ir.Node) -> None:
        import onnx_ir as ir

        for value in node.outputs:
            if value.dtype == self._float:
                value.type = ir.TensorType(self._float16)  # a new one: a clone shares its types with the original
        if node.op_type == "Cast":
            node.attributes.add(_attribute("to", self._float16))

    # --- Q/DQ pairs

    def _pair(self, quantizer: ir.Node) -> None:
        """Give a pair the types of what surrounds it; without FP16 readers, or with a scale beyond it, FP32."""
        source, scale = quantizer.inputs[0], constant_array(quantizer.inputs[1])
        readers = [user for user, _ in quantizer.outputs[0].uses() if user.op_type == "DequantizeLinear"]
        if source is None or scale is None or not any(self._feeds_half(node) for node in readers):
            return
        weight = constant_array(source)
        half = half_scale(scale.astype(np.float32), weight=weight is not None)
        if half is None:
            return
        if weight is not None:
            axis = attribute_int(quantizer, "axis", 1)
            codes = quantized_weight(weight.astype(np.float32), scale.astype(np.float32), half, axis)
            quantizer.replace_input_with(0, self._constant(f"{source.name}/fp16", finer_codes(codes, half, axis)))
        is_half = weight is not None or source.dtype == self._float16
        name = f"{quantizer.inputs[1].name}" if quantizer.inputs[1] is not None else quantizer.name
        as_half = self._constant(f"{name}/fp16", half)
        quantizer.replace_input_with(1, as_half if is_half else self._widened(f"{name}/fp32", half))
        for node in readers:
            self._dequantize(node, as_half, self._widened(f"{name}/fp32", half))

    def _feeds_half(self, node: ir.Node) -> bool:
        return any(self._wants(user, index) == self._float16 for user, index in node.outputs[0].uses())

    def _dequantize(self, node: ir.Node, half: ir.Value, wide: ir.Value) -> None:
        """One dequantizer per type that is read, on the same INT8 tensor: a Cast behind it would hinder fusion."""
        import onnx_ir as ir

        if not self._feeds_half(node):
            node.replace_input_with(1, wide)
            return
        result = node.outputs[0]
        users = [(user, index) for user, index in result.uses() if self._wants(user, index) == self._float]
        if users:
            value = ir.Value(name=f"{result.name}/fp32", type=ir.TensorType(self._float), shape=result.shape)
            inputs, attributes = [node.inputs[0], wide, *node.inputs[2:]], list(node.attributes.values())
            name = f"{node.name}/fp32"
            self._graph.append(ir.Node("", "DequantizeLinear", inputs, attributes, outputs=[value], name=name))
            for user, index in users:
                user.replace_input_with(index, value)
        node.replace_input_with(1, half)
        result.type = ir.TensorType(self._float16)

    # --- types of inputs

    def _wants(self, node: ir.Node, index: int) -> ir.DataType | None:
        """Type in which a node reads a float input; None where any will do."""
        if node in self._half:
            return None if node.op_type == "Cast" else (self._float if index in fp32_inputs(node) else self._float16)
        if node.op_type == "QuantizeLinear":
            scale = node.inputs[1]
            return None if scale is None else _dtype(scale)
        return None if node.op_type in ("Cast", "Shape", "Size", "DequantizeLinear") else self._float

    def _match_inputs(self, node: ir.Node) -> None:
        for index, value in enumerate(node.inputs):
            if value is None or (index > 0 and node.op_type in ("QuantizeLinear", "DequantizeLinear")):
                continue
            have, want = _dtype(value), self._wants(node, index)
            if want is None or have == want or have not in (self._float, self._float16):
                continue
            array = constant_array(value)
            if array is not None and want == self._float16:
                node.replace_input_with(index, self._constant(f"{value.name}/fp16", to_half(node, index, array)))
            else:
                node.replace_input_with(index, self._cast(value, want))

    def _cast(self, value: ir.Value, to: ir.DataType) -> ir.Value:
        """`value` in another type, by one Cast for all its readers, and from its source where it is a Cast itself."""
        import onnx_ir as ir

        if (value, to) not in self._casts:
            maker = value.producer()
            source = maker.inputs[0] if maker is not None and maker.op_type == "Cast" else value
            name = f"{value.name}/{'fp16' if to == self._float16 else 'fp32'}"
            result = ir.Value(name=name, type=ir.TensorType(to), shape=value.shape)
            self._graph.append(ir.Node("", "Cast", [source], [_attribute("to", to)], outputs=[result], name=name))
            self._casts[value, to] = result
        return self._casts[value, to]

    def _restore_graph_outputs(self) -> None:
        """Outputs keep their name and type: the FP16 value gets another name, and a Cast makes the output of it."""
        for index, value in enumerate(self._graph.outputs):
            if value.dtype != self._float16:
                continue
            name, value.name = value.name, f"{value.name}/fp16"
            result = self._cast(value, self._float)
            result.name = name
            self._graph.outputs[index] = result

    def _constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        import onnx_ir as ir

        key = (name, array.tobytes())
        if key not in self._halves:
            taken = sum(other == name for other, _ in self._halves)
            unique = name if not taken else f"{name}/{taken}"
            value = ir.Value(name=unique, const_value=ir.tensor(array, name=unique))
            value.type, value.shape = ir.TensorType(ir.DataType.from_numpy(array.dtype)), ir.Shape(array.shape)
            self._graph.register_initializer(value)
            self._halves[key] = value
        return self._halves[key]

    def _widened(self, name: str, half: NDArray[np.float16]) -> ir.Value:
        return self._constant(name, half.astype(np.float32))

    def _remove_unused_constants(self) -> None:
        for name, value in list(self._graph.initializers.items()):
            if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
                del self._graph.initializers[name]
        for node in [n for n in self._graph if n.op_type in ("Constant", "Cast")]:
            if not any(v.uses() or v.is_graph_output() for v in node.outputs):
                self._graph.remove(node, safe=True)


def _dtype(value: ir.Value) -> ir.DataType | None:
    return value.const_value.dtype if value.const_value is not None else value.dtype


def _attribute(name: str, number: int) -> ir.Attr:
    import onnx_ir as ir

    return ir.AttrInt64(name, int(number))
