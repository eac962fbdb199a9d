from __future__ import annotations

import numpy as np
import pytest

from edgemed.graph.model import infer_shapes
from edgemed.graph.passes import FoldChannelAffine, InferShapes, run_passes
from tests.graph.onnx_models import assert_same_outputs, graph, node, ops, rand, random_feeds, run

# Folding rounds each weight once more to FP32 and the runtime sums in another order: a few units of 2^-24 relative to
# the largest output, times the square root of some hundred terms.
TOLERANCE = 2e-6


def _check(model, expected: list[str], *, tolerance: float = TOLERANCE):
    feeds = random_feeds(model)
    before = run(model, feeds)
    after = run_passes(model, [InferShapes(), FoldChannelAffine(), InferShapes()])
    assert ops(after.model) == expected
    assert_same_outputs(before, run(after.model, feeds), tolerance)
    return after.model


def _statistics(channels: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        "gamma": rng.uniform(-1.5, 1.5, channels).astype(np.float32),
        "beta": rand(channels, seed=4),
        "mean": rand(channels, seed=5),
        "variance": rng.uniform(0.2, 2, channels).astype(np.float32),
    }


def _batch_norm(source: str, target: str):
    return node("BatchNormalization", f"{source} gamma beta mean variance", target, epsilon=1e-3)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_batch_norm_behind_conv(bias: bool, groups: int) -> None:
    weights = {"w": rand(8, 4 // groups, 3, 3), "b": rand(8), **_statistics(8)}
    nodes = [node("Conv", "x w b" if bias else "x w", "y", group=groups), _batch_norm("y", "n"), node("Relu", "n", "z")]
    _check(graph(nodes, {"x": (1, 4, 8, 8)}, {"z": (1, 8, 6, 6)}, weights), ["Conv", "Relu"])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_batch_norm_behind_conv_transpose(bias: bool, groups: int) -> None:
    weights = {"w": rand(4, 6 // groups, 2, 2), "b": rand(6), **_statistics(6)}
    conv = node("ConvTranspose", "x w b" if bias else "x w", "y", group=groups, strides=[2, 2])
    nodes = [conv, _batch_norm("y", "n"), node("Relu", "n", "z")]
    _check(graph(nodes, {"x": (1, 4, 5, 5)}, {"z": (1, 6, 10, 10)}, weights), ["ConvTranspose", "Relu"])


def test_scale_and_shift_behind_a_conv1d_and_its_squeeze() -> None:
    weights = {"w": rand(8, 4, 1, 3), "two": np.array([2]), "b": rand(1, 8, 1), "s": rand(1, 8, 1, seed=7)}
    nodes = [
        node("Conv", "x w", "y"),
        node("Squeeze", "y two", "q"),
        node("Add", "b q", "a"),
        node("Mul", "a s", "m"),
        node("Relu", "m", "z"),
    ]
    _check(graph(nodes, {"x": (1, 4, 1, 16)}, {"z": (1, 8, 14)}, weights), ["Conv", "Squeeze", "Relu"])


@pytest.mark.parametrize("transposed", [0, 1])
def test_scale_and_shift_behind_gemm(transposed: int) -> None:
    weights = {"w": rand(5, 7) if transposed else rand(7, 5), "c": rand(5), "s": rand(5, seed=8), "t": rand(1, 5)}
    nodes = [node("Gemm", "x w c", "y", transB=transposed), node("Div", "y s", "d"), node("Sub", "d t", "z")]
    model = _check(graph(nodes, {"x": (2, 7)}, {"z": (2, 5)}, weights), ["Gemm"])
    assert [v.name for v in model.graph.outputs] == ["z"]


def test_matmul_takes_a_scale_but_no_shift() -> None:
    weights = {"w": rand(7, 5), "s": rand(5), "t": rand(5, seed=9)}
    nodes = [node("MatMul", "x w", "y"), node("Mul", "s y", "m"), node("Add", "m t", "z")]
    _check(graph(nodes, {"x": (1, 3, 7)}, {"z": (1, 3, 5)}, weights), ["MatMul", "Add"])


_CONV = {"x": (1, 4, 8, 8)}


@pytest.mark.parametrize(
    ("nodes", "extra"),
    [
        ([node("Mul", "y k", "z")], {"k": rand(1, 1, 6, 6)}),  # varies over the picture
        ([node("Div", "k y", "z")], {"k": rand(1, 6, 1, 1)}),  # the reciprocal of the layer's output
        ([node("Sub", "k y", "z")], {"k": rand(1, 6, 1, 1)}),
        ([node("Div", "y k", "z")], {"k": np.zeros((1, 6, 1, 1), dtype=np.float32)}),  # no finite weights
        ([node("Relu", "y", "r"), node("Mul", "r k", "z")], {"k": rand(1, 6, 1, 1)}),
        ([node("Mul", "y k", "m"), node("Add", "m y", "z")], {"k": rand(1, 6, 1, 1)}),  # the output is used elsewhere
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the reference divides by zero on purpose
def test_what_cannot_be_folded_stays(nodes, extra) -> None:
    weights = {"w": rand(6, 4, 3, 3), "b": rand(6), **extra}
    model = graph([node("Conv", "x w b", "y"), *nodes], _CONV, {"z": (1, 6, 6, 6)}, weights)
    expected = ops(model)
    assert not FoldChannelAffine()(infer_shapes(model)).modified
    assert ops(model) == expected


def test_a_rank_that_broadcasting_raises_stays() -> None:
    weights = {"w": rand(6, 4, 3, 3), "k": rand(2, 1, 6, 1, 1)}
    nodes = [node("Conv", "x w", "y"), node("Mul", "y k", "z")]
    model = infer_shapes(graph(nodes, _CONV, {"z": (2, 1, 6, 6, 6)}, weights))
    assert not FoldChannelAffine()(model).modified


def test_shared_weights_are_not_scaled_for_the_other_layer() -> None:
    weights = {"w": rand(4, 4, 1, 1), "b": rand(4), **_statistics(4)}
    nodes = [
        node("Conv", "x w b", "y"),
        _batch_norm("y", "n"),
        node("Relu", "n", "r"),
        node("Conv", "r w b", "z"),
    ]
    _check(graph(nodes, _CONV, {"z": (1, 4, 8, 8)}, weights), ["Conv", "Relu", "Conv"])


def test_gemm_with_a_factor_stays() -> None:
    nodes = [node("Gemm", "x w", "y", alpha=0.5), node("Mul", "y s", "z")]
    model = infer_shapes(graph(nodes, {"x": (2, 7)}, {"z": (2, 5)}, {"w": rand(7, 5), "s": rand(5)}))
    assert not FoldChannelAffine()(model).modified
