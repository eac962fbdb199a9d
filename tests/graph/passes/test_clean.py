from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgemed.graph import model as graphs
from edgemed.graph.lint import lint
from edgemed.graph.model import weight_bytes
from edgemed.graph.passes import clean_graph, slim, standard_passes
from edgemed.graph.passes.base import PassError
from tests.graph.onnx_models import assert_same_outputs, graph, node, ops, rand, random_feeds, run

TOLERANCE = 5e-6  # three folded layers, each rounded once more to FP32 and summed in another order


def _residual():
    """ResNet's block as tf2onnx leaves it: Conv with bias, BatchNorm as Mul and Add, shared weights, a skip Add."""
    weights = {"w": rand(4, 4, 3, 3), "b": rand(4), "s": rand(1, 4, 1, 1), "t": rand(1, 4, 1, 1, seed=2)}
    weights |= {"axes": np.array([2, 3]), "d": rand(4, 2), "e": rand(2)}
    nodes = [
        node("Conv", "x w b", "c1", pads=[1, 1, 1, 1]),
        node("Mul", "c1 s", "m1"),
        node("Add", "m1 t", "a1"),
        node("Relu", "a1", "r1"),
        node("Conv", "r1 w b", "c2", pads=[1, 1, 1, 1]),
        node("Add", "c2 x", "a2"),
        node("Relu", "a2", "r2"),
        node("GlobalAveragePool", "r2", "g"),
        node("Squeeze", "g axes", "q"),
        node("Gemm", "q d e", "y"),
        node("Softmax", "y", "z"),
    ]
    return graph(nodes, {"x": (1, 4, 8, 8)}, {"z": (1, 2)}, weights)


def test_a_residual_block_is_folded_unshared_and_named() -> None:
    model = _residual()
    feeds = random_feeds(model)
    before = run(model, feeds)
    result = clean_graph(model)
    expected = ["Conv", "Relu", "Conv", "Add", "Relu", "GlobalAveragePool", "Squeeze", "Gemm", "Softmax"]
    assert ops(result.model) == expected
    assert_same_outputs(before, run(result.model, feeds), TOLERANCE)
    convolutions = [n for n in result.model.graph if n.op_type == "Conv"]
    assert convolutions[0].inputs[1] is not convolutions[1].inputs[1]
    assert len(graphs.float_values(result.model)) == len(expected) + 1
    assert lint(result.model) == []
    assert [c.name for c in result.changes] == [p.name for p in standard_passes()]
    assert result.changes[0].nodes_before - result.changes[-1].nodes_after == 2


@pytest.mark.parametrize("operator", ["Conv", "MatMul", "Gemm"])
def test_weights_behind_moves_become_initializers(operator: str) -> None:
    if operator == "Conv":  # a depthwise kernel as Keras keeps it: rows, columns, channels, multiplier
        nodes = [node("Transpose", "k", "t", perm=[2, 3, 0, 1]), node("Conv", "x t", "z", group=4)]
        model = graph(nodes, {"x": (1, 4, 8, 8)}, {"z": (1, 4, 6, 6)}, {"k": rand(3, 3, 4, 1)})
    else:
        nodes = [node("Reshape", "k s", "r"), node("Transpose", "r", "t", perm=[1, 0]), node(operator, "x t", "z")]
        weights = {"k": rand(20), "s": np.array([5, 4], dtype=np.int64)}
        model = graph(nodes, {"x": (2, 4)}, {"z": (2, 5)}, weights)
    feeds = random_feeds(model)
    before = run(model, feeds)
    cleaned = clean_graph(model).model
    assert len(cleaned.graph) == 1
    assert cleaned.graph[0].inputs[1].is_initializer()
    assert_same_outputs(before, run(cleaned, feeds), TOLERANCE)


def test_cleaning_twice_changes_nothing_more(tmp_path: Path) -> None:
    once = clean_graph(_residual()).model
    digest = graphs.digest(once)
    graphs.save(once, tmp_path / "a.onnx")
    assert graphs.digest(clean_graph(graphs.load(tmp_path / "a.onnx")).model) == digest


def test_cleaning_is_deterministic_across_processes(tmp_path: Path, repo: Path) -> None:
    graphs.save(_residual(), tmp_path / "a.onnx")
    code = (
        "import sys; from pathlib import Path; from edgemed.graph import model; from edgemed.graph.passes import "
        "clean_graph; print(model.digest(clean_graph(model.load(Path(sys.argv[1]))).model))"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "a.onnx")],
            cwd=repo,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert digests == {graphs.digest(clean_graph(_residual()).model) + "\n"}


def test_onnxslim_may_not_rename_the_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxslim

    def renaming(proto):
        proto.graph.output[0].name = proto.graph.node[-1].output[0] = "renamed"
        return proto

    monkeypatch.setattr(onnxslim, "slim", renaming)
    with pytest.raises(PassError, match="onnxslim' failed after finite-weights"):
        clean_graph(_residual())


def test_weights_of_large_models_stay_out_of_onnxslim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own pass folds BatchNorm then: the same graph, and the same answers."""
    seen: list[int] = []
    monkeypatch.setattr(slim, "EXTERNAL_ABOVE", 0)
    monkeypatch.setattr(slim, "LARGE_TENSOR", 64)
    original = slim.to_proto
    monkeypatch.setattr(slim, "to_proto", lambda model: seen.append(weight_bytes(model)) or original(model))
    model = _residual()
    whole = weight_bytes(model)
    feeds = random_feeds(model)
    before = run(model, feeds)
    after = clean_graph(model).model
    assert len(seen) == 1
    assert seen[0] < whole / 4
    assert ops(after) == ops(clean_graph(_residual()).model)
    assert_same_outputs(before, run(after, feeds), TOLERANCE)


def test_a_shared_layer_with_two_norms_is_folded_on_either_road(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the heads of detectors: one Conv on two levels, each with its own BatchNorm."""
    weights = {"w": rand(4, 4, 3, 3), "b": rand(4)}
    weights |= {f"{k}{i}": rand(1, 4, 1, 1, seed=i) for i in (1, 2) for k in "st"}
    nodes = [node("Conv", "x w b", "c1", pads=[1, 1, 1, 1]), node("Mul", "c1 s1", "m1"), node("Add", "m1 t1", "y")]
    nodes += [node("Conv", "y w b", "c2", pads=[1, 1, 1, 1]), node("Mul", "c2 s2", "m2"), node("Add", "m2 t2", "z")]
    model = graph(nodes, {"x": (1, 4, 8, 8)}, {"z": (1, 4, 8, 8)}, weights)
    feeds = random_feeds(model)
    before = run(model, feeds)
    monkeypatch.setattr(slim, "EXTERNAL_ABOVE", 0)
    monkeypatch.setattr(slim, "LARGE_TENSOR", 64)
    after = clean_graph(model).model
    assert ops(after) == ["Conv", "Conv"]
    assert_same_outputs(before, run(after, feeds), TOLERANCE)


def test_onnxslim_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    clean_graph(_residual())
    assert capfd.readouterr() == ("", "")
