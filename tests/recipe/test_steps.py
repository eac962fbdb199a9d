"""Steps as TOML: every kind reads back, and what makes no sense is refused by name."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest

from edgemed.base.errors import InputError
from edgemed.build.samples import recipe_toml
from edgemed.recipe.operations import _RUN
from edgemed.recipe.schema import Recipe, load_recipe
from edgemed.recipe.steps import Step

ALL = """
[input]
kind = "volume"
[input.tiles]
size = [32, 64, 64]
overlap = [8, 16, 16]
blend = "gaussian"
[input.contract]
sop_classes = ["CTImageStorage", "1.2.3"]
laterality = ["L"]
spacing = [0.1, 2]
burned_in = "refuse"
[[input.steps]]
op = "window"
file = true
otherwise = "range"
[[input.steps]]
op = "window"
center = 40
width = 400
function = "SIGMOID"
[[input.steps]]
op = "scale"
offset = [1, 2, 3]
[[input.steps]]
op = "resize"
size = [16, 32, 32]
filter = "area"
fit = "pad"
[[input.steps]]
op = "crop"
box = [0, 0, 16, 16]
[[input.steps]]
op = "gaussian"
sigma = [0, 1, 1]
[output]
task = "segmentation"
geometry = "source"
classes = ["background", { name = "liver", code = "SCT:10200004:Liver" }]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "r.toml"
    path.write_text(text)
    return path


def test_every_operation_can_be_run():
    (union, *_) = typing.get_args(Step)
    ops = {typing.get_args(model.model_fields["op"].annotation)[0] for model in typing.get_args(union)}
    assert ops == set(_RUN)


def test_what_was_written_reads_back_equal(tmp_path: Path):
    recipe = load_recipe(write(tmp_path, ALL))
    assert [step.op for step in recipe.input.steps] == ["window", "window", "scale", "resize", "crop", "gaussian"]
    assert recipe.output.class_names == ("background", "liver")
    assert recipe.output.concepts == (None, ("SCT", "10200004", "Liver"))
    assert load_recipe(write(tmp_path, recipe_toml(recipe))) == recipe


def refused(message: str, *steps: dict[str, object], **input_: object) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe.model_validate({"input": {"steps": steps, **input_}})


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"op": "window"}, "exactly one of"),
        ({"op": "window", "center": 1}, "go together"),
        ({"op": "window", "center": 1, "width": 2, "file": True}, "exactly one of"),
        ({"op": "window", "center": 1, "width": 0}, "greater than 0"),
        ({"op": "window", "center": 1, "width": 0.5}, "at least 1"),
        ({"op": "window", "low": 2, "high": 1}, "low must be below high"),
        ({"op": "window", "low": 1, "high": 2, "function": "SIGMOID"}, "function goes with"),
        ({"op": "window", "percentiles": [99, 1]}, "must rise"),
        ({"op": "window", "percentiles": [1, 101]}, "less than or equal to 100"),
        ({"op": "window", "center": 1, "width": 2, "index": 1}, "go with file"),
        ({"op": "window", "center": float("inf"), "width": 2}, "finite"),
        ({"op": "scale", "divisor": [1, 0]}, "divisor must not be 0"),
        ({"op": "zscore", "mean": 1}, "go together"),
        ({"op": "zscore", "mean": 1, "std": [1, 0]}, "std must be above 0"),
        ({"op": "clip"}, "give low, high or both"),
        ({"op": "clip", "low": 1, "high": 1}, "low must be below high"),
        ({"op": "resize", "size": [65_536, 65_536]}, "more than 268435456 pixels"),
        ({"op": "resize", "size": [1, 2, 3, 4]}, "size"),
        ({"op": "spacing", "mm": [0, 1]}, "greater than 0"),
        ({"op": "crop"}, "either size or box"),
        ({"op": "crop", "size": [1, 1], "box": [0, 0, 1, 1]}, "either size or box"),
        ({"op": "median", "size": 4}, "size must be odd"),
        ({"op": "gaussian", "sigma": [1]}, "two .* or three"),
        ({"op": "gaussian", "sigma": 1e9}, "less than or equal to 256"),
        ({"op": "clahe", "clip": 2}, "Extra inputs"),
        ({"op": "sharpen"}, "does not match any of the expected tags"),
        ({}, "Unable to extract tag"),
    ],
)
def test_steps_without_sense_are_refused(step: dict[str, object], message: str):
    refused(message, step)


def test_the_files_unit_is_needed_before_it_is_left():
    window = {"op": "window", "center": 1, "width": 2}
    refused(
        r"step 2 \(window\) needs the values of the file, which step 1 \(window\)",
        window,
        {"op": "window", "file": True},
    )
    refused(r"step 3 \(range\) needs", {"op": "flip", "axis": "rows"}, window, {"op": "range", "of": "type"})
    Recipe.model_validate({"input": {"steps": [{"op": "flip", "axis": "rows"}, {"op": "window", "file": True}]}})


def test_there_is_an_end_to_steps():
    refused("at most 64", *[{"op": "gray"}] * 65)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[input.time]\nframes = 0", r"input\.time\.frames"),
        ("[input]\nkind = 'volume'\n[input.time]\nframes = 4", "makes clips of a cine"),
        ("[input.tiles]\nsize = [8, 8]\noverlap = 8", "overlap must be below size"),
        ("[input.tiles]\nsize = [8, 8]\noverlap = [1, 2, 3]", "one for each axis"),
        ("[input.tiles]\nsize = [8, 8]\n[input.time]\nframes = 4", "exclude each other"),
        ("[input.contract]\nsop_classes = ['CTStorage']", "is no UID, and no keyword"),
        ("[input.contract]\nmin_rows = 9\nmax_rows = 8", "least rows is above"),
        ("[input.contract]\nspacing = [2, 1]", "least spacing is above"),
        ("[output]\nclasses = [{ name = 'a', code = 'SCT:1' }]", r"output\.classes"),
        ("[output]\nclasses = [{ code = 'SCT:1:a' }]", r"output\.classes"),
    ],
)
def test_a_wrong_recipe_names_the_key(tmp_path: Path, text: str, message: str):
    with pytest.raises(InputError, match=message):
        load_recipe(write(tmp_path, text))
