"""Pins on what edgemed uses of tf2onnx beyond its public interface: a new release must not change it unseen."""

from __future__ import annotations

from typing import Any

from edgemed.convert.freeze import layer_of
from edgemed.convert.known import KERAS_APPLICATION_CLASSES
from edgemed.convert.types import IR_VERSIONS, LayerInfo

PARAMETERS = {
    "update_proto": ["self", "external_tensor_storage"],
    "get_value_attr": ["self", "external_tensor_storage"],
    "is_const": ["self"],
    "make_const": ["self", "name", "np_val", "skip_conversion", "raw"],
    "remove_node": ["self", "node_name"],
    "tf_op": ["self", "name", "domain", "kwargs"],
}


def test_signatures(facts: dict[str, Any]) -> None:
    assert facts["tf2onnx"].startswith("1.17.")
    for name, parameters in PARAMETERS.items():
        assert facts["parameters"][name] == parameters, name
    wanted = {"graph_def", "name", "input_names", "output_names", "opset", "tensors_to_rename"}
    assert wanted <= set(facts["parameters"]["from_graph_def"])
    assert {"op_type", "inputs", "outputs", "name", "shapes", "dtypes"} <= set(facts["parameters"]["make_node"])
    assert facts["parameters"]["inline"] == ["func", "lower_control_flow", "aggressive_inlining"]
    assert facts["parameters"]["replace"] == ["converter_data"]
    wanted = {"func", "lower_control_flow", "aggressive_inlining", "variable_names_denylist"}
    assert wanted <= set(facts["parameters"]["converter"])


def test_erfc_is_still_missing_in_tf2onnx(facts: dict[str, Any]) -> None:
    """Once tf2onnx has it, ours can go."""
    assert facts["erfc"] is False


def test_error_messages_that_are_parsed(facts: dict[str, Any]) -> None:
    assert '"Tensorflow op [%s: %s] is not supported", node.name, op' in facts["messages"]
    assert '"Failed to convert node %r' in facts["messages"]


def test_initializers_come_from_attributes_not_from_the_protobuf(facts: dict[str, Any]) -> None:
    """What makes it right to leave constants out of `update_proto`."""
    assert "op.get_value_attr(external_tensor_storage)" in facts["make_graph"]
    assert facts["catch_errors"] == "TF2ONNX_CATCH_ERRORS"


def test_operations_of_h5_pass_the_function_that_is_replaced(facts: dict[str, Any]) -> None:
    assert facts["model_from_config"] == ["config", "custom_objects"]
    assert "saving_utils.model_from_config(" in facts["functional"]


def test_layers_of_the_applications_are_where_they_are_looked_for(facts: dict[str, Any]) -> None:
    assert sorted(facts["applications"]) == sorted([*KERAS_APPLICATION_CLASSES] * 2)


def test_ir_versions_agree(facts: dict[str, Any]) -> None:
    for opset, ir in IR_VERSIONS.items():
        assert facts["ir"][str(opset)] == ir


def test_layer_of() -> None:
    layers = (LayerInfo("conv", "Conv2D"), LayerInfo("conv1/conv", "Conv2D"), LayerInfo("shrink_2", "Resizing"))
    assert layer_of("model_1/conv1/conv/Conv2D", layers) == "The layer 'conv1/conv' (Conv2D)"
    assert layer_of("model/shrink_2/resize/Op", layers) == "The layer 'shrink_2' (Resizing)"
    assert layer_of("model/shrink_2_1/resize/Op", layers) == "The layer 'shrink_2' (Resizing)"
    assert layer_of("StatefulPartitionedCall/model/other/Op", layers) == "The part 'model/other' of the model"
    assert layer_of("Op", layers) == "The node 'Op'"
