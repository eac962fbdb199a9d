"""A batch that varies: pinned to work on, released to be written."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgemed.graph.batch import BATCH, pinned, released
from edgemed.graph.values import values_by_name
from tests.graph.onnx_models import graph, node, rand, run


def _model() -> ir.Model:
    weights = {"w": rand(4, 3, 3, 3), "b": rand(4)}
    nodes = [node("Conv", "x w b", "c"), node("Relu", "c", "r"), node("GlobalAveragePool", "r", "y")]
    return graph(nodes, {"x": (BATCH, 3, 8, 8)}, {"y": (BATCH, 4, 1, 1)}, weights)


def _shape(model: ir.Model, name: str) -> list[int | str | None]:
    shape = values_by_name(model)[name].shape
    assert shape is not None
    return [d if isinstance(d, int) else d.value for d in shape]


def test_pinned_shapes_follow_and_the_original_stays() -> None:
    model = _model()
    fixed = pinned(model, 4)
    assert _shape(fixed, "x") == [4, 3, 8, 8]
    assert _shape(fixed, "r") == [4, 4, 6, 6]
    assert _shape(fixed, "y") == [4, 4, 1, 1]
    assert _shape(model, "x") == [BATCH, 3, 8, 8]


def test_released_takes_any_batch_again() -> None:
    model = _model()
    free = released(pinned(model, 4), model)
    assert _shape(free, "r") == [BATCH, 4, 6, 6]
    assert _shape(free, "y") == [BATCH, 4, 1, 1]
    rng = np.random.default_rng(0)
    for batch in (1, 4, 7):
        (found,) = run(free, {"x": rng.random((batch, 3, 8, 8), np.float32)}).values()
        assert found.shape == (batch, 4, 1, 1)


def test_only_what_varied_is_released() -> None:
    """An output of four rows by chance is not a batch of four."""
    model = _model()
    model.graph.outputs.append(values_by_name(model)["w"])
    free = released(pinned(model, 4), model)
    assert _shape(free, "w") == [4, 3, 3, 3]
