from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemed.base.errors import InputError
from edgemed.graph import model as graphs
from tests.graph.onnx_models import FLOAT, assert_same_outputs, graph, node, rand, random_feeds, run


def _conv(scale: float = 1.0):
    return graph(
        [node("Conv", "x w b", "y"), node("Relu", "y", "z")],
        {"x": (1, 3, 8, 8)},
        {"z": (1, 4, 6, 6)},
        {"w": rand(4, 3, 3, 3) * np.float32(scale), "b": rand(4)},
    )


def test_a_saved_model_loads_with_the_same_digest_and_outputs(tmp_path: Path) -> None:
    model = _conv()
    before, digest = run(model, feeds := random_feeds(model)), graphs.digest(model)
    graphs.save(model, tmp_path / "a.onnx")
    loaded = graphs.load(tmp_path / "a.onnx")
    assert graphs.digest(loaded) == digest
    assert_same_outputs(before, run(loaded, feeds), 0)  # the same bytes through the same kernels


def test_saving_is_deterministic_and_sets_the_lowest_ir_version(tmp_path: Path) -> None:
    model = _conv()
    model.ir_version = 14  # what onnx 1.23 writes by default; ONNX Runtime for Python 3.10 reads up to 11
    graphs.save(model, tmp_path / "a.onnx")
    graphs.save(graphs.load(tmp_path / "a.onnx"), tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert onnx.load(tmp_path / "a.onnx").ir_version == 8


def test_external_data_lies_beside_the_model_and_is_found_again(tmp_path: Path) -> None:
    model = _conv()
    graphs.save(model, tmp_path / "a.onnx", external_data="a.weights")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.onnx", "a.weights"]
    loaded = graphs.load(tmp_path / "a.onnx")
    assert graphs.digest(loaded) == graphs.digest(model)
    graphs.infer_shapes(loaded)
    graphs.save(loaded, tmp_path / "whole.onnx")
    (tmp_path / "a.weights").unlink()
    assert graphs.digest(graphs.load(tmp_path / "whole.onnx")) == graphs.digest(model)


def test_models_above_two_gib_are_refused_before_anything_is_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(graphs, "MAX_FILE_BYTES", 300)  # the weights below take 448 bytes
    with pytest.raises(InputError, match="exceed 2 GiB"):
        graphs.save(_conv(), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "missing.bin", ""])
def test_external_data_outside_the_folder_or_missing_is_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(448))
    proto = onnx.ModelProto.FromString(graphs.to_bytes(_conv()))
    _make_external(proto, location, 432)
    (folder / "a.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(InputError):
        graphs.load(folder / "a.onnx")


def test_external_data_through_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(448))
    (folder / "w.bin").symlink_to(tmp_path / "w.bin")
    proto = onnx.ModelProto.FromString(graphs.to_bytes(_conv()))
    _make_external(proto, "w.bin", 432)
    (folder / "a.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match="outside the model's folder"):
        graphs.load(folder / "a.onnx")


def test_external_data_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(100))
    proto = onnx.ModelProto.FromString(graphs.to_bytes(_conv()))
    _make_external(proto, "w.bin", 432)
    (tmp_path / "a.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match="cut short"):
        graphs.load(tmp_path / "a.onnx")


def _make_external(proto: onnx.ModelProto, location: str, length: int) -> None:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=200))
def test_other_bytes_are_refused_in_one_sentence(tmp_path_factory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("x") / "a.onnx"
    path.write_bytes(data)
    with pytest.raises(InputError):
        graphs.load(path)


def test_a_truncated_model_is_refused(tmp_path: Path) -> None:
    data = graphs.to_bytes(_conv())
    for size in range(0, len(data) - 1, 37):
        (tmp_path / "a.onnx").write_bytes(data[:size])
        with pytest.raises(InputError):
            graphs.load(tmp_path / "a.onnx")


def test_a_model_that_breaks_the_onnx_rules_is_refused(tmp_path: Path) -> None:
    model = graph([node("StatefulPartitionedCall", "x", "y")], {"x": (1, 2)}, {"y": (1, 2)})
    (tmp_path / "a.onnx").write_bytes(graphs.to_bytes(model))
    with pytest.raises(InputError, match="breaks the ONNX rules"):
        graphs.load(tmp_path / "a.onnx")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InputError, match=r"no file nowhere\.onnx"):
        graphs.load(Path("nowhere.onnx"))


def test_the_digest_ignores_documentation_and_node_names_but_no_number() -> None:
    model, other = _conv(), _conv()
    other.doc_string, other.producer_name = "trained in room 3", "somebody"
    for n in other.graph:
        n.name = f"renamed_{n.name}"
    assert graphs.digest(model) == graphs.digest(other)
    assert graphs.digest(model) != graphs.digest(_conv(scale=1.0 + 1e-6))
    other.graph.node(0).attributes.add(ir.AttrInt64s("strides", [1, 1]))
    assert graphs.digest(model) != graphs.digest(other)


def test_the_digest_sees_the_bodies_of_control_flow() -> None:
    assert graphs.digest(_branches("Relu")) == graphs.digest(_branches("Relu"))
    assert graphs.digest(_branches("Relu")) != graphs.digest(_branches("Neg"))


def _branches(op: str):
    def body(name: str, kind: str) -> onnx.GraphProto:
        out = onnx.helper.make_tensor_value_info(name, FLOAT, (1, 2))
        return onnx.helper.make_graph([node(kind, "x", name)], name, [], [out])

    branch = node("If", "c", "y", then_branch=body("a", op), else_branch=body("b", "Abs"))
    return graph([branch], {"x": (1, 2)}, {"y": (1, 2)}, {"c": np.array(True)})


def test_float_values_are_inputs_activations_and_outputs_only() -> None:
    weights = {"w": rand(4, 3, 3, 3), "b": rand(4), "shape": np.array([1, 4, 36], dtype=np.int64)}
    constant = onnx.helper.make_node(
        "Constant", [], ["k"], name="k", value=onnx.numpy_helper.from_array(np.float32(2.0).reshape(1))
    )
    nodes = [
        constant,
        node("Mul", "w k", "w2"),
        node("Conv", "x w2 b", "y"),
        node("Reshape", "y shape", "r"),
        node("Shape", "r", "s"),
        node("Relu", "r", "z"),
    ]
    model = graphs.infer_shapes(graph(nodes, {"x": (1, 3, 8, 8)}, {"z": (1, 4, 36)}, weights))
    assert graphs.float_values(model) == ["x", "y", "r", "z"]
    values = graphs.values_by_name(model)
    assert graphs.static_shape(values["y"]) == (1, 4, 6, 6)
    assert graphs.constant_array(values["k"]).tolist() == [2.0]
    assert graphs.constant_array(values["b"]).shape == (4,)
    assert graphs.constant_array(values["y"]) is None


def test_shape_inference_corrects_stale_shapes_and_reports_contradictions() -> None:
    model = _conv()
    graphs.values_by_name(model)["y"].shape = ir.Shape([9, 9, 9, 9])
    graphs.infer_shapes(model)
    assert graphs.static_shape(graphs.values_by_name(model)["y"]) == (1, 4, 6, 6)
    wrong = graph([node("Conv", "x w", "y")], {"x": (1, 3, 8, 8)}, {"y": (1, 4, 7, 7)}, {"w": rand(4, 3, 3, 3)})
    with pytest.raises(InputError, match="contradict"):
        graphs.infer_shapes(wrong)
