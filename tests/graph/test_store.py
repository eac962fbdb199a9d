"""Graphs as files: small ones whole, the weights of large ones in one file that their descendants share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgemed.graph import store
from edgemed.graph.model import digest, load
from edgemed.graph.store import LARGE_TENSOR, runnable, write_graph
from edgemed.runners.ort import OnnxRuntimeRunner
from tests.graph.onnx_models import assert_same_outputs, graph, node, rand, random_feeds, run


def _model() -> ir.Model:
    """A weight of 1.2 MB, and small ones."""
    weights = {"w": rand(300, 1000), "b": rand(1000), "v": rand(1000, 2)}
    nodes = [node("Gemm", "x w b", "h"), node("Relu", "h", "r"), node("MatMul", "r v", "y")]
    return graph(nodes, {"x": (1, 300)}, {"y": (1, 2)}, weights)


def _external(path: Path) -> set[str]:
    proto = onnx.load_model(str(path), load_external_data=False)
    return {t.name for t in proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL}


def test_a_small_graph_is_whole(tmp_path: Path) -> None:
    written = write_graph(_model(), tmp_path / "float.onnx")
    assert written.files == (tmp_path / "float.onnx",)
    assert list(tmp_path.iterdir()) == [tmp_path / "float.onnx"]
    assert digest(load(written.path)) == digest(_model())


def test_large_weights_are_written_once_for_all_graphs(tmp_path: Path) -> None:
    model = _model()
    feeds = random_feeds(model)
    wanted = run(model, feeds)
    first = write_graph(model, tmp_path / "float.onnx", external_above=0)
    assert first.data == ("float.onnx.data",)
    assert _external(first.path) == {"w"}
    child = model.clone()
    child.graph.initializers["b"].const_value = ir.tensor(np.zeros(1000, np.float32), name="b")
    second = write_graph(child, tmp_path / "int8.onnx", external_above=0)
    assert second.data == ("float.onnx.data",)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["float.onnx", "float.onnx.data", "int8.onnx"]
    assert digest(load(first.path)) == digest(_model())
    with OnnxRuntimeRunner(first.path, optimize=False) as runner:
        assert_same_outputs(wanted, runner.infer(feeds), 0)


def test_new_large_weights_get_a_file_of_their_own(tmp_path: Path) -> None:
    model = _model()
    write_graph(model, tmp_path / "float.onnx", external_above=0)
    child = model.clone()
    child.graph.initializers["w"].const_value = ir.tensor(np.ones((300, 1000), np.float32), name="w")
    written = write_graph(child, tmp_path / "fp16.onnx", external_above=0)
    assert written.data == ("fp16.onnx.data",)
    assert (tmp_path / "fp16.onnx.data").stat().st_size >= LARGE_TENSOR
    np.testing.assert_array_equal(load(written.path).graph.initializers["w"].const_value.numpy(), 1)


def test_data_that_a_model_maps_is_not_written_over(tmp_path: Path) -> None:
    write_graph(_model(), tmp_path / "float.onnx", external_above=0)
    model = load(tmp_path / "float.onnx")
    new = ir.Value(name="n", const_value=ir.tensor(np.full((300, 1000), 2, np.float32), name="n"))
    model.graph.register_initializer(new)
    written = write_graph(model, tmp_path / "float.onnx", external_above=0)
    assert written.data == ("float.onnx.1.data", "float.onnx.data")
    again = load(written.path).graph.initializers
    np.testing.assert_array_equal(again["w"].const_value.numpy(), _model().graph.initializers["w"].const_value.numpy())
    np.testing.assert_array_equal(again["n"].const_value.numpy(), 2)


def test_tensors_from_another_folder_are_taken_along(tmp_path: Path) -> None:
    """The conversion leaves even small weights outside; its folder goes."""
    (tmp_path / "a").mkdir()
    proto = ir.to_proto(_model())
    onnx.save_model(
        proto, str(tmp_path / "a" / "m.onnx"), save_as_external_data=True, location="m.data", size_threshold=0
    )
    model = load(tmp_path / "a" / "m.onnx")
    written = write_graph(model, tmp_path / "b" / "float.onnx", external_above=0)
    for path in (tmp_path / "a").iterdir():
        path.unlink()
    assert _external(written.path) == {"w"}
    assert digest(load(written.path)) == digest(_model())


def test_a_runner_gets_a_file_beside_the_weights_which_goes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "EXTERNAL_ABOVE", 0)
    model = _model()
    feeds = random_feeds(model)
    wanted = run(model, feeds)
    with runnable(model) as source:
        assert isinstance(source, bytes)  # its weights lie in memory
    write_graph(model, tmp_path / "float.onnx", external_above=0)
    with runnable(model.clone()) as source:
        assert isinstance(source, Path)
        assert source.parent == tmp_path
        with OnnxRuntimeRunner(source, optimize=False) as runner:
            assert_same_outputs(wanted, runner.infer(feeds), 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["float.onnx", "float.onnx.data"]
