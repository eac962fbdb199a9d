"""What the outputs of a model say, for every task, and several outputs at a time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemed.base.errors import InputError
from edgemed.bundle.read import Bundle, open_bundle
from edgemed.evaluate.bundled import reader_of
from edgemed.evaluate.readings import Place, Readings
from edgemed.imaging.samples import Item
from evaluate.bundles import write_bundle
from evaluate.hostile import reseal
from evaluate.masks.bundles import write_mask_bundle

NOTHING = Item(())


def bundle(tmp_path: Path, *outputs: dict[str, Any], recipe: str = "") -> Bundle:
    """With outputs as given; nobody runs its graph."""
    path = write_bundle(tmp_path / "b.edgemed", boundaries={"float": 0.5})
    base = {"dtype": "float32", "layout": "NC"}

    def edit(manifest: dict[str, Any]) -> None:
        manifest["outputs"] = [{"name": f"y{i}", **base, **output} for i, output in enumerate(outputs)]

    return open_bundle(reseal(path, files={"recipe.toml": recipe.encode()}, edit=edit))


def read(made: Bundle, *values: Any, place: Place | None = None) -> Any:
    arrays = {f"y{i}": np.asarray(value, np.float32)[None] for i, value in enumerate(values)}
    return Readings.of(made).read(NOTHING, arrays, place or Place())


def test_binary_has_a_score_for_both_classes_and_the_codes_of_the_recipe(tmp_path: Path) -> None:
    recipe = '[output]\nclasses = ["normal", { name = "bad", code = "SCT:1:Bad" }]\n'
    made = bundle(
        tmp_path,
        {"shape": [1, 1], "task": "binary", "activation": "none", "classes": ["normal", "bad"], "threshold": 0.9},
        recipe=recipe,
    )
    (reading,) = read(made, [2.0], place=Place(3, 7))
    p = 1 / (1 + math.exp(-2))
    assert (reading.task, reading.source, reading.frame, reading.threshold) == ("binary", 3, 7, 0.9)
    assert [score.value for score in reading.scores] == pytest.approx([1 - p, p])
    assert [score.found for score in reading.scores] == [True, False]  # 0.88 is below the threshold
    assert reading.scores[0].concept is None
    assert (reading.scores[1].concept.scheme, reading.scores[1].concept.value) == ("SCT", "1")


def test_several_outputs_each_by_its_task(tmp_path: Path) -> None:
    made = bundle(
        tmp_path,
        {"shape": [1, 3], "task": "multiclass", "activation": "none"},
        {"shape": [1, 2], "task": "multilabel", "activation": "sigmoid", "classes": ["a", "b"], "threshold": 0.3},
        {"shape": [1, 1], "task": "regression"},
        {"shape": [1, 2], "task": "regression", "classes": ["length", "width"]},
        {"shape": [1, 5]},
    )
    readings = Readings.of(made)
    assert readings.unread == ("y4",)
    classes, labels, one, length, width = read(made, [0, 2, 1], [0.31, 0.2], [4.5], [10, 20], [0] * 5)
    assert sum(score.value for score in classes.scores) == pytest.approx(1)
    assert [score.found for score in classes.scores] == [False, True, False]
    assert [(s.name, s.found) for s in labels.scores] == [("a", True), ("b", False)]
    assert (one.output, one.value) == ("y2", 4.5)
    assert [(r.output, r.value) for r in (length, width)] == [("length", 10), ("width", 20)]


def test_what_says_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not say what it means"):
        Readings.of(bundle(tmp_path, {"shape": [1, 5]}))


@pytest.mark.parametrize("value", [[np.nan], [np.inf]])
@pytest.mark.parametrize("task", ["binary", "multilabel", "regression"])
def test_nan_is_no_answer(tmp_path: Path, task: str, value: list[float]) -> None:
    made = bundle(tmp_path, {"shape": [1, 1], "task": task, "activation": "sigmoid"})
    with pytest.raises(InputError, match="NaN or infinite"):
        read(made, value)


def test_what_is_no_probability_is_no_answer(tmp_path: Path) -> None:
    made = bundle(tmp_path, {"shape": [1, 1], "task": "binary", "activation": "sigmoid"})
    with pytest.raises(InputError, match="no probability"):
        read(made, [3.2])
    assert read(made, [1.0004])[0].scores[1].value == 1  # FP16's rounding


def test_masks_are_classes_first_on_the_source(tmp_path: Path) -> None:
    path = write_mask_bundle(tmp_path / "m.edgemed", float_=(0.3, 0.7), int8=None, classes=("dim", "bright"))
    opened = open_bundle(path)
    image = tmp_path / "x.png"
    from PIL import Image

    pixels = np.zeros((16, 24), np.uint8)
    pixels[:8], pixels[8:, :12] = 128, 255
    Image.fromarray(pixels).save(image)
    (item,) = reader_of(opened).items(image)
    feeds = next(iter(item.feeds))["image"]
    bounds = np.array([0.3, 0.7], np.float32)
    mask = 1 / (1 + np.exp(-100 * (feeds - bounds)))
    (reading,) = Readings.of(opened).read(item, {"mask": mask.astype(np.float32)}, Place(0))
    assert reading.labels is not None
    assert reading.labels.shape == (2, 16, 24)
    assert reading.labels[0, 2, 20]
    assert not reading.labels[1, 2, 20]
    assert reading.labels[:, 14, 2].all()
    assert not reading.labels[:, 14, 22].any()
    assert [(s.name, s.found) for s in reading.scores] == [("dim", True), ("bright", True)]


def test_run_says_the_same_of_several_outputs(tmp_path: Path) -> None:
    from edgemed.base.runner import RunnerInfo
    from edgemed.evaluate.execute import Answer, OutputReader

    made = bundle(
        tmp_path,
        {"shape": [1, 2], "task": "multilabel", "activation": "sigmoid", "classes": ["a", "b"]},
        {"shape": [1, 1], "task": "regression"},
        {"shape": [1, 2]},
    )
    outputs = {"y0": np.array([[0.9, 0.1]]), "y1": np.array([[4.5]]), "y2": np.array([[1.0, 2.0]])}
    reading = OutputReader.of(made).reading(outputs)
    assert [each["output"] for each in reading["readings"]] == ["y0", "y1"]
    assert reading["readings"][0]["scores"][0] == {"class": "a", "score": 0.9, "found": True}
    line = Answer(image := Path("x.png"), outputs, RunnerInfo("o", "fp32", "cpu"), 10**6, reading).line()
    assert line.startswith(f"{image}  y2: 1 2; y0: a (0.9000); y1: 4.5  [")
