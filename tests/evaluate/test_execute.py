"""Running a bundle on files: where outputs may go, and what is printed of names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgemed.base.errors import InputError, ResourceError
from edgemed.bundle.model import specs_of
from edgemed.bundle.read import Bundle, open_bundle
from edgemed.evaluate.execute import _targets, iter_answers, run_bundle
from edgemed.runners.null import NullRunner
from evaluate.bundles import write_bundle, write_images


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return open_bundle(write_bundle(tmp_path / "little.edgemed", boundaries={"float": 0.5}))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return next(write_images(tmp_path / "data", {"a": [100]}).rglob("*.png"))


def test_outputs_are_saved_under_the_name_of_their_input(bundle: Bundle, image: Path, tmp_path: Path) -> None:
    (answer,) = run_bundle(bundle, [image], save=tmp_path / "new" / "out")
    with np.load(tmp_path / "new" / "out" / f"{image.stem}.npz") as saved:
        np.testing.assert_array_equal(saved["score"], answer.outputs["score"])


@pytest.mark.parametrize("where", ["little.edgemed", "little.edgemed/graphs", "little.edgemed/new/folder", "link/x"])
def test_nothing_is_ever_saved_into_a_bundle(bundle: Bundle, image: Path, tmp_path: Path, where: str) -> None:
    (tmp_path / "link").symlink_to(bundle.path)
    with pytest.raises(InputError, match=r"lies in the bundle little\.edgemed"):
        run_bundle(bundle, [image], save=tmp_path / where)
    open_bundle(bundle.path)


def test_outputs_never_replace_inputs(bundle: Bundle, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", image=np.zeros((4, 4, 1), np.float32))
    before = (tmp_path / "x.npz").read_bytes()
    with pytest.raises(InputError, match="would replace inputs"):
        run_bundle(bundle, [tmp_path / "x.npz"], save=tmp_path)
    assert (tmp_path / "x.npz").read_bytes() == before


def test_a_place_that_cannot_be_written_is_not_called_output(bundle: Bundle, image: Path) -> None:
    with pytest.raises(ResourceError) as caught:
        run_bundle(bundle, [image], save=image / "below")
    assert "--output" not in caught.value.hint


def test_names_cannot_steer_the_terminal(bundle: Bundle, image: Path, tmp_path: Path) -> None:
    evil = image.rename(tmp_path / "x\x1b[2J\ny\udcff.png")
    (answer,) = run_bundle(bundle, [evil])
    assert r"x\x1b[2J\x0ay\xff.png" in answer.line()
    assert answer.line().isprintable()
    assert json.loads(json.dumps(answer.to_json()))["file"] == str(evil)


def test_folders_of_series_keep_their_whole_name(tmp_path: Path) -> None:
    series = [tmp_path / "1.2.840.1", tmp_path / "1.2.840.2"]
    for folder in series:
        folder.mkdir()
    named = _targets(series, tmp_path / "out")
    assert [target.name for target in named.values()] == ["1.2.840.1.npz", "1.2.840.2.npz"]


def test_each_file_is_answered_and_saved_before_the_next_is_read(bundle: Bundle, image: Path, tmp_path: Path) -> None:
    """So that the outputs of one file are in memory at a time."""
    answers = iter_answers(bundle, [image, tmp_path / "none.png"], save=tmp_path / "out")
    assert next(answers).file == image
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{image.stem}.npz"]
    with pytest.raises(InputError, match=r"none\.png cannot be read"):
        next(answers)


def null_runner(bundle: Bundle) -> NullRunner:
    specs = specs_of(bundle)
    shapes = {spec.name: tuple(n or 1 for n in spec.shape) for spec in specs.outputs}
    return NullRunner(specs, lambda feeds: {name: np.full(shape, 0.25, np.float32) for name, shape in shapes.items()})


def test_another_runner_may_answer_and_says_who_it_is(bundle: Bundle, image: Path) -> None:
    (answer,) = iter_answers(bundle, [image], runner=null_runner(bundle))
    assert answer.info.backend == "null"
    np.testing.assert_array_equal(answer.outputs["score"], np.full_like(answer.outputs["score"], 0.25))
