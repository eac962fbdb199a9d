"""`edgemed recipe check`: the table, the JSON, the picture, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli.test_main import run
from PIL import Image

from tests.imaging.make_dicom import write, write_series

TEXT = """
[input]
size = [24, 32]
[[input.steps]]
op = "window"
center = 2048
width = 4096
[[input.steps]]
op = "resize"
filter = "area"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 4096, (48, 64), dtype=np.uint16)
    Image.fromarray(pixels).save(tmp_path / "film.png")
    (tmp_path / "r.toml").write_text(TEXT)
    return tmp_path


def test_the_table_names_every_step_and_the_picture_is_beside_it(folder: Path):
    done = run("recipe", "check", "r.toml", "film.png", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["image", "window", "resize", "sample"]
    assert "center 2048, width 4096" in lines[2]
    assert "1×24×32" in lines[3]
    assert lines[-1] == "film.recipe.png shows every step."
    with Image.open(folder / "film.recipe.png") as picture:
        assert picture.format == "PNG"


def test_json_is_one_document_with_the_numbers_of_each_step(folder: Path):
    done = run(
        "recipe", "check", "r.toml", "film.png", "--json", "--output", "p.png", "--input", "1x24x32x3", cwd=folder
    )
    document = json.loads(done.stdout)
    assert (document["recipe"], document["input"], document["picture"]) == ("r", [1, 24, 32, 3], "p.png")
    first, window, last = (document["steps"][index] for index in (0, 1, -1))
    pixels = np.asarray(Image.open(folder / "film.png"))
    assert (first["min"], first["max"]) == (pixels.min(), pixels.max())
    assert first["mean"] == pytest.approx(pixels.mean())
    assert 0 <= window["min"] < window["max"] <= 1
    assert (last["shape"], last["dtype"]) == ([1, 24, 32, 3], "float32")
    assert all(step["elapsed_ns"] >= 0 for step in document["steps"])


def test_a_picture_is_not_replaced_unless_forced(folder: Path):
    (folder / "film.recipe.png").write_bytes(b"mine")
    done = run("recipe", "check", "r.toml", "film.png", cwd=folder)
    assert done.returncode == 2
    assert "film.recipe.png exists" in done.stderr
    assert (folder / "film.recipe.png").read_bytes() == b"mine"
    assert run("recipe", "check", "r.toml", "film.png", "--force", cwd=folder).returncode == 0
    assert (folder / "film.recipe.png").read_bytes() != b"mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.toml", "film.png"], "There is no recipe 'none.toml'"),
        (["r.toml", "none.png"], "none.png cannot be read"),
        (["r.toml", "film.png", "--input", "1x24"], "is not an image"),
        (["r.toml", "film.png", "--input", "1x8x8x1"], "resizes images to 24x32"),
        (["r.toml", "film.png", "--input", "1x-4x8x1"], "is no shape"),
        (["r.toml", "film.png", "--input", "1x" + "9" * 5000], "is no shape"),
        (["ct-lung", "film.png"], "film.png: The file does not say its SOP Class UID"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, arguments: list[str], message: str):
    done = run("recipe", "check", *arguments, cwd=folder)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (folder / "film.recipe.png").exists()


def test_a_shipped_recipe_is_found_by_name(folder: Path):
    Image.fromarray(np.full((8, 8, 3), 51, np.uint8)).save(folder / "color.png")
    done = run("recipe", "check", "pixels-0-1", "color.png", "--json", cwd=folder)
    steps = json.loads(done.stdout)["steps"]
    assert [step["step"] for step in steps] == ["image", "scaling", "sample"]
    assert steps[-1]["max"] == pytest.approx(0.2)
    assert steps[-1]["shape"] == [1, 8, 8, 3]


def test_the_group_has_a_help_page():
    done = run("recipe", "--help")
    assert done.returncode == 0
    assert "check" in done.stdout
    alone = run("recipe")
    assert alone.returncode == 2
    assert "Missing command" in alone.stderr


@pytest.mark.parametrize("output", ["film.png", "./link.png", "r.toml"])
def test_the_picture_never_replaces_what_it_is_made_of(folder: Path, output: str):
    (folder / "link.png").symlink_to("film.png")
    before = {name: (folder / name).read_bytes() for name in ("film.png", "r.toml")}
    done = run("recipe", "check", "r.toml", "film.png", "--output", output, "--force", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "would replace inputs" in done.stderr
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_the_picture_never_goes_into_a_bundle(folder: Path):
    (folder / "b.edgemed").mkdir()
    done = run("recipe", "check", "r.toml", "film.png", "--output", "b.edgemed/x.png", cwd=folder)
    assert done.returncode == 2
    assert "lies in the bundle b.edgemed" in done.stderr
    assert list((folder / "b.edgemed").iterdir()) == []


def test_a_clip_with_steps_is_cut_once(folder: Path):
    frames = np.arange(12, dtype=np.uint8)[:, None, None] * np.ones((8, 8), np.uint8)
    write(folder / "cine.dcm", frames)
    (folder / "t.toml").write_text("[input.time]\nframes = 3\nstep = 2\nstride = 4\n")
    done = run("recipe", "check", "t.toml", "cine.dcm", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)["steps"][0]
    # clips are (0 2 4), (4 6 8) and, shifted to the end, (7 9 11)
    assert (first["shape"], first["min"], first["max"]) == ([3, 8, 8], 4, 8)


def test_five_dimensions_without_a_kind_take_the_whole_series(folder: Path):
    volume = np.random.default_rng(0).integers(0, 3000, (6, 8, 8)).astype(np.int16)
    write_series(folder / "ct", volume)
    (folder / "v.toml").write_text("[input]\n")
    done = run("recipe", "check", "v.toml", "ct", "--input", "1x6x8x8x1", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"][0]["shape"] == [6, 8, 8]
