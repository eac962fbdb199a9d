from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.graph.passes import NearestUpsampling
from edgemed.graph.passes.upsampling import Upsampling, recognise_upsampling
from tests.graph.onnx_models import assert_same_outputs, graph, node, ops, random_feeds, run


def _ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def _check(model, expected: list[str]) -> None:
    """Run before and after: the same elements move, so the bits are equal."""
    feeds = random_feeds(model)
    before = run(model, feeds)
    result = NearestUpsampling()(model)
    assert result.modified == (expected != _UNCHANGED)
    if result.modified:
        assert ops(result.model) == expected
    assert_same_outputs(before, run(result.model, feeds), 0)


_UNCHANGED: list[str] = []


def _keras_2d(n: int = 2, m: int = 3):
    """What tf2onnx 1.17 writes for Keras UpSampling2D((n, m)) between two convolutions."""
    nodes = [
        node("Relu", "x", "a"),
        node("Unsqueeze", "a three", "b"),
        node("Tile", "b rows", "c"),
        node("Transpose", "c", "d", perm=[0, 2, 3, 4, 1]),
        node("Reshape", "d tall", "e"),
        node("Unsqueeze", "e three", "f"),
        node("Tile", "f columns", "g"),
        node("Reshape", "g wide", "h"),
        node("Transpose", "h", "i", perm=[0, 3, 1, 2]),
        node("Relu", "i", "y"),
    ]
    weights = {
        "three": _ints(3),
        "rows": _ints(1, 1, 1, n, 1),
        "tall": _ints(1, 5 * n, 7, 4),
        "columns": _ints(1, 1, 1, m, 1),
        "wide": _ints(1, 5 * n, 7 * m, 4),
    }
    return graph(nodes, {"x": (1, 4, 5, 7)}, {"y": (1, 4, 5 * n, 7 * m)}, weights)


def test_keras_upsampling_2d_becomes_one_resize() -> None:
    _check(_keras_2d(), ["Relu", "Resize", "Relu"])


def test_resize_scales_are_the_factors() -> None:
    model = NearestUpsampling()(_keras_2d(2, 3)).model
    assert model.graph[1].inputs[2].const_value.numpy().tolist() == [1, 1, 2, 3]


def test_a_chain_that_ends_the_model_in_channels_last_keeps_one_transpose_and_the_output_name() -> None:
    nodes = [
        node("Relu", "x", "a"),
        node("Unsqueeze", "a three", "b"),
        node("Tile", "b rows", "c"),
        node("Transpose", "c", "d", perm=[0, 2, 3, 4, 1]),
        node("Reshape", "d tall", "y"),
    ]
    weights = {"three": _ints(3), "rows": _ints(1, 1, 1, 2, 1), "tall": _ints(1, 10, 7, 4)}
    _check(graph(nodes, {"x": (1, 4, 5, 7)}, {"y": (1, 10, 7, 4)}, weights), ["Relu", "Resize", "Transpose"])


def test_a_channels_last_source_is_transposed_first() -> None:
    nodes = [
        node("Transpose", "x", "a", perm=[0, 3, 1, 2]),
        node("Reshape", "a five", "b"),
        node("Expand", "b grown", "c"),
        node("Reshape", "c flat", "d"),
        node("Relu", "d", "y"),
    ]
    weights = {"five": _ints(1, 4, 5, 1, 7), "grown": _ints(1, 4, 5, 2, 7), "flat": _ints(1, 4, 10, 7)}
    model = graph(nodes, {"x": (1, 5, 7, 4)}, {"y": (1, 4, 10, 7)}, weights)
    _check(model, ["Transpose", "Resize", "Relu"])
    assert model.graph[1].inputs[2].const_value.numpy().tolist() == [1, 1, 2, 1]


def test_upsampling_1d() -> None:
    nodes = [
        node("Unsqueeze", "x one", "a"),
        node("Tile", "a three", "b"),
        node("Transpose", "b", "c", perm=[0, 3, 1, 2]),
        node("Reshape", "c flat", "y"),
    ]
    weights = {"one": _ints(1), "three": _ints(1, 3, 1, 1), "flat": _ints(1, 48, 8)}
    _check(graph(nodes, {"x": (1, 8, 16)}, {"y": (1, 48, 8)}, weights), ["Resize", "Transpose"])


@pytest.mark.parametrize(
    "nodes",
    [
        # the picture repeated beside itself, not its pixels
        [node("Tile", "x beside", "a"), node("Relu", "a", "y")],
        # a permutation without repetition
        [node("Transpose", "x", "a", perm=[0, 1, 3, 2]), node("Relu", "a", "y")],
    ],
)
def test_other_repetitions_and_permutations_stay(nodes) -> None:
    shape = (1, 4, 5, 14) if nodes[0].op_type == "Tile" else (1, 4, 7, 5)
    _check(graph(nodes, {"x": (1, 4, 5, 7)}, {"y": shape}, {"beside": _ints(1, 1, 1, 2)}), _UNCHANGED)


def test_a_value_that_somebody_else_reads_too_ends_the_chain() -> None:
    model = _keras_2d()
    tiled = next(n for n in model.graph if n.op_type == "Tile").outputs[0]
    model.graph.outputs.append(tiled)
    feeds = random_feeds(model)
    before = run(model, feeds)
    assert_same_outputs(before, run(NearestUpsampling()(model).model, feeds), 0)


def test_opsets_below_13_are_left_alone() -> None:
    model = graph([node("Tile", "x n", "y")], {"x": (1, 1, 2)}, {"y": (1, 3, 2)}, {"n": _ints(1, 3, 1)}, opset=11)
    assert not NearestUpsampling()(model).modified


@given(data=st.data())
def test_every_upsampling_with_any_permutation_is_recognised(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 5))
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank)))
    perm = data.draw(st.permutations(range(rank)))
    factors = data.draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank).filter(lambda f: max(f) > 1))
    indices = np.arange(np.prod(shape)).reshape(shape).transpose(perm)
    for axis, factor in enumerate(factors):
        indices = indices.repeat(factor, axis)
    found = recognise_upsampling(shape, indices)
    assert found is not None
    rebuilt = np.arange(np.prod(shape)).reshape(shape).transpose(found.perm)
    for axis, factor in enumerate(found.factors):
        rebuilt = rebuilt.repeat(factor, axis)
    assert np.array_equal(rebuilt, indices)


@given(data=st.data())
def test_one_moved_element_is_enough_to_refuse(data: st.DataObject) -> None:
    indices = np.arange(24).reshape(1, 2, 3, 4).repeat(2, 2).repeat(2, 3)
    assert recognise_upsampling((1, 2, 3, 4), indices) == Upsampling((0, 1, 2, 3), (1, 1, 2, 2))
    at = tuple(data.draw(st.integers(0, d - 1)) for d in indices.shape)
    indices[at] = data.draw(st.integers(0, 23).filter(lambda v: v != indices[at]))
    assert recognise_upsampling((1, 2, 3, 4), indices) is None
