"""Recipes as files: round trips, and errors that name the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgemed.base.errors import InputError
from edgemed.base.resources import shipped
from edgemed.build.samples import recipe_toml
from edgemed.recipe.schema import Recipe, assumed_recipe, load_recipe

GOOD = """
description = "chest film"
[input]
color = "gray"
size = [512, 512]
scaling = { offset = 0, divisor = 4095 }
[output]
task = "binary"
classes = ["normal", "pneumonia"]
threshold = 0.4
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "film.toml"
    path.write_text(text)
    return path


def test_a_recipe_is_read_and_named_after_its_file(tmp_path: Path):
    recipe = load_recipe(write(tmp_path, GOOD))
    assert recipe.name == "film"
    assert recipe.input.size == (512, 512)
    assert recipe.input.scaling.divisor == 4095
    assert recipe.output.classes == ("normal", "pneumonia")
    assert not recipe.assumed


@pytest.mark.parametrize("recipe", [assumed_recipe(rescales_inside=True), Recipe(raw=True), Recipe()])
def test_what_the_build_writes_reads_back_equal(tmp_path: Path, recipe: Recipe):
    assert load_recipe(write(tmp_path, recipe_toml(recipe))) == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[input]\ncolour = 'gray'", r"input\.colour"),
        ("[input]\nsize = [0, 5]", r"input\.size"),
        ("[input]\nscaling = { divisor = 0 }", "divisor must not be 0"),
        ("[output]\nthreshold = 1.5", r"output\.threshold"),
        ("[input\n", "not valid TOML"),
        ("[output]\ntask = 'guess'", r"output\.task"),
        ("[input]\nscaling = { divisor = nan }", r"input\.scaling"),
        ("[input]\nscaling = { offset = 1" + "0" * 4000 + " }", r"input\.scaling"),
        ("[input]\nsize = [65536, 65536]", r"input\.size: .*more than 268435456 pixels"),
        ('[output]\nclasses = ["a", "\\u001b[2Jb"]', r"output\.classes\.1"),
        (f'[output]\nclasses = ["{"a" * 256}"]', r"output\.classes\.0"),
    ],
)
def test_a_wrong_recipe_names_the_key(tmp_path: Path, text: str, message: str):
    with pytest.raises(InputError, match=message):
        load_recipe(write(tmp_path, text))


def test_every_shipped_recipe_loads_and_is_not_assumed():
    recipes = shipped("calibration")
    assert recipes
    for path in recipes.values():
        assert not load_recipe(path).assumed
