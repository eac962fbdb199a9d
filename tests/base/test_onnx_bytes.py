"""Tensors that lie in other files are found wherever a model can hold a tensor."""

from __future__ import annotations

import contextlib

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgemed.base.errors import IntegrityError
from edgemed.base.onnx_bytes import require_whole


def external(location: str = "weights.bin") -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def inner() -> TensorProto:
    return numpy_helper.from_array(np.zeros(2, np.float32), "w")


def model(**parts: list[object]) -> onnx.ModelProto:
    proto = helper.make_model(helper.make_graph([], "g", [], []))
    for name, values in parts.items():
        getattr(proto.graph, name).extend(values)
    return proto


def node(**attributes: object) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["y"], name="n", **attributes)


def sparse(values: TensorProto, indices: TensorProto) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[4])


def with_function(tensor: TensorProto) -> onnx.ModelProto:
    proto = model()
    proto.functions.add(name="f", domain="d").node.append(node(value=tensor))
    return proto


def with_default(tensor: TensorProto) -> onnx.ModelProto:
    proto = model()
    proto.functions.add(name="f", domain="d").attribute_proto.append(helper.make_attribute("value", tensor))
    return proto


def with_training(tensor: TensorProto) -> onnx.ModelProto:
    proto = model()
    proto.training_info.add().algorithm.initializer.append(tensor)
    return proto


def many_tensors(tensor: TensorProto) -> onnx.NodeProto:
    made = node()
    made.attribute.add(name="a", type=onnx.AttributeProto.TENSORS).tensors.append(tensor)
    return made


PLACES = {
    "initializer": lambda t: model(initializer=[inner(), t]),
    "sparse values": lambda t: model(sparse_initializer=[sparse(t, inner())]),
    "sparse indices": lambda t: model(sparse_initializer=[sparse(inner(), t)]),
    "attribute": lambda t: model(node=[node(value=t)]),
    "tensors of an attribute": lambda t: model(node=[many_tensors(t)]),
    "sparse attribute": lambda t: model(node=[node(sparse_value=sparse(t, inner()))]),
    "subgraph": lambda t: model(node=[helper.make_node("If", ["c"], ["y"], then_branch=model(initializer=[t]).graph)]),
    "subgraphs": lambda t: model(node=[helper.make_node("X", [], [], g=[model(initializer=[t]).graph])]),
    "function": with_function,
    "default of a function": with_default,
    "training": with_training,
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_an_external_tensor_is_found(place) -> None:
    require_whole(place(inner()).SerializeToString())
    with pytest.raises(IntegrityError, match="from a file"):
        require_whole(place(external()).SerializeToString())


@pytest.mark.parametrize("field", ["data_location", "external_data"])
def test_half_of_it_suffices(field: str) -> None:
    tensor = external()
    tensor.ClearField(field)
    with pytest.raises(IntegrityError, match="from a file"):
        require_whole(model(initializer=[tensor]).SerializeToString())


def test_every_place_that_can_hold_a_tensor_is_known() -> None:
    """A newer ONNX with another way from the model to a tensor would need another row."""
    from edgemed.base import onnx_bytes as ours

    kinds = {
        "ModelProto": ours._MODEL,
        "GraphProto": ours._GRAPH,
        "NodeProto": ours._NODE,
        "AttributeProto": ours._ATTRIBUTE,
        "TensorProto": ours._TENSOR,
        "SparseTensorProto": ours._SPARSE,
        "FunctionProto": ours._FUNCTION,
        "TrainingInfoProto": ours._TRAINING,
    }
    for name, kind in kinds.items():
        fields = getattr(onnx, name).DESCRIPTOR.fields
        below = {
            field.number: kinds[field.message_type.name]
            for field in fields
            if field.message_type is not None and field.message_type.name in kinds
        }
        assert ours._NESTED[kind] == below, name


@given(st.binary(max_size=60), st.integers(0, 400))
def test_no_bytes_raise_anything_else(data: bytes, cut: int) -> None:
    whole = model(initializer=[inner()], node=[node(value=inner())]).SerializeToString()
    for damaged in (data, whole[:cut] + data, whole[cut:]):
        with contextlib.suppress(IntegrityError):
            require_whole(damaged)


def test_files_beside_the_graph_may_be_read() -> None:
    data = model(initializer=[inner(), external("weights.bin")]).SerializeToString()
    require_whole(data, beside=["weights.bin"])
    for beside in ([], ["other.bin"], ["weights"]):
        with pytest.raises(IntegrityError):
            require_whole(data, beside=beside)


@pytest.mark.parametrize("location", ["../weights.bin", "/weights.bin", "./weights.bin", "weights.bin/", ""])
def test_other_words_for_the_same_file_are_refused(location: str) -> None:
    data = model(initializer=[external(location)]).SerializeToString()
    with pytest.raises(IntegrityError):
        require_whole(data, beside=["weights.bin"])


def test_a_tensor_names_one_file_only() -> None:
    """Readers differ in which of two entries they take."""
    tensor = external("weights.bin")
    tensor.external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(IntegrityError):
        require_whole(model(initializer=[tensor]).SerializeToString(), beside=["weights.bin"])
    nameless = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    with pytest.raises(IntegrityError):
        require_whole(model(initializer=[nameless]).SerializeToString(), beside=["weights.bin"])
