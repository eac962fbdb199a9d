"""Large weights beside the graph: the same results, the same graph, little memory."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgemed.convert import ConvertOptions, KerasModel
from edgemed.graph.model import load
from tests.convert.test_parity import PARITY, parity

APART = ConvertOptions(external_above=0)


def external(path: Path) -> set[str]:
    graph = onnx.load_model(str(path), load_external_data=False).graph
    return {tensor.name for tensor in graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL}


@pytest.mark.usefixtures("shared_child")
@pytest.mark.parametrize(
    ("name", "count"),
    [("seed_cnn.h5", 3), ("wide.keras", 6), ("seed_cnn.saved", 3), ("multi_io.saved", 0)],
)
def test_weights_beside_the_graph(models: Path, tmp_path: Path, name: str, count: int) -> None:
    """Transposed convolutions, functions of a SavedModel that are inlined, weights too small to move."""
    converted, errors = parity(models / name, tmp_path, APART)
    assert max(errors.values()) <= PARITY
    assert len(external(converted.path)) == count
    onnx.checker.check_model(str(converted.path), full_check=True)
    moved = [n for n in onnx.load_model(str(converted.path)).graph.node if set(n.input) & external(converted.path)]
    assert {node.op_type for node in moved} <= {"Conv", "ConvTranspose", "Gemm", "MatMul"}
    values = {n: v.const_value.numpy() for n, v in load(converted.path).graph.initializers.items() if v.const_value}
    assert {n for n, array in values.items() if array.nbytes >= 65536} == external(converted.path)


@pytest.mark.usefixtures("shared_child")
def test_same_graph_as_with_weights_inside(models: Path, tmp_path: Path) -> None:
    graphs = []
    for above in (0, 2**30):
        with KerasModel(models / "seed_cnn.h5", tmp_path, ConvertOptions(external_above=above)) as model:
            graphs.append(onnx.load_model(str(model.convert().path)).graph)
        assert (tmp_path / "model.onnx.data").exists() == (above == 0)
    apart, inside = graphs
    assert [node.op_type for node in apart.node] == [node.op_type for node in inside.node]
    for one, other in zip(apart.node, inside.node, strict=True):
        for a, b in zip(one.input, other.input, strict=True):
            pair = [
                next((t for t in graph.initializer if t.name == name), None)
                for graph, name in ((apart, a), (inside, b))
            ]
            assert (pair[0] is None) == (pair[1] is None)
            if pair[0] is not None and pair[1] is not None:
                assert np.array_equal(numpy_helper.to_array(pair[0]), numpy_helper.to_array(pair[1]))


@pytest.mark.slow
def test_peak_memory_of_vgg16(tmp_path: Path) -> None:
    """At most four times the weights, TensorFlow's own 570 MB included (measured: 3.3 to 3.8 times)."""
    script = Path(__file__).resolve().parents[1] / "keras_models.py"
    for name in ("vgg16.h5", "vgg16.keras"):
        path, workdir = tmp_path / name, tmp_path / f"{name}.work"
        workdir.mkdir()
        subprocess.run([sys.executable, str(script), "vgg16", str(path)], check=True, capture_output=True)
        with KerasModel(path, workdir) as model:
            converted = model.convert()
            sample = np.random.default_rng(0).uniform(0, 1, converted.inputs[0].shape).astype("float32")
            model.reference([{converted.inputs[0].name: sample}])
            assert model._child is not None
            status = Path(f"/proc/{model._child.process.pid}/status").read_text()
        peak = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert peak is not None
        assert int(peak[1]) * 1024 <= 4 * 4 * converted.parameters
        path.unlink()
