"""From a file to feeds: shapes, names, and refusals that name the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec
from edgemed.imaging.samples import SampleReader
from edgemed.recipe.schema import Recipe, assumed_recipe

IMAGE = TensorSpec("image", "float32", (1, 8, 8, 3))
TABLE = TensorSpec("table", "float32", (1, 4))


def reader(*inputs: TensorSpec, recipe: Recipe | None = None) -> SampleReader:
    recipe = recipe or assumed_recipe(rescales_inside=False)
    return SampleReader(inputs, recipe, {spec.name: "NHWC" for spec in inputs})


def test_an_image_goes_through_the_recipe(tmp_path: Path):
    Pil.fromarray(np.full((8, 8, 3), 51, np.uint8)).save(tmp_path / "a.png")
    feeds = reader(IMAGE).read(tmp_path / "a.png")
    assert feeds["image"].shape == IMAGE.shape
    np.testing.assert_allclose(feeds["image"], 0.2, rtol=1e-6)  # 51 / 255 in FP32


def test_arrays_get_the_batch_dimension_and_the_dtype(tmp_path: Path):
    array = np.random.default_rng(0).random((8, 8, 3))
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "b.npz", image=array, table=np.arange(4))
    np.testing.assert_array_equal(reader(IMAGE).read(tmp_path / "a.npy")["image"][0], array.astype(np.float32))
    feeds = reader(IMAGE, TABLE).read(tmp_path / "b.npz")
    assert {name: value.shape for name, value in feeds.items()} == {"image": (1, 8, 8, 3), "table": (1, 4)}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": np.zeros((8, 9, 3))}, "has the shape 1×8×9×3; the model takes image float32 1×8×8×3"),
        ({"image": np.zeros((2, 8, 8, 3))}, "has the shape 2×8×8×3"),
        ({"image": np.zeros(3)}, "has the shape 3"),
        ({"image": np.float32(1)}, "holds a single number; the model takes"),
        ({"image": np.full((8, 8, 3), 1e300)}, "holds numbers that float32 cannot"),
        ({"image": np.full((8, 8, 3), -1e39)}, "holds numbers that float32 cannot"),
        ({"image": np.zeros((8, 8, 3)), "other": np.zeros(1)}, "holds image, other; the model takes image"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=message):
        reader(IMAGE).read(tmp_path / "a.npz")


def test_images_are_refused_where_arrays_are_needed(tmp_path: Path):
    Pil.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="takes 2 inputs"):
        reader(IMAGE, TABLE).read(tmp_path / "a.png")
    with pytest.raises(InputError, match="arrays as they are"):
        reader(IMAGE, recipe=Recipe(raw=True)).read(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png|not an image"):
        reader(TABLE).read(tmp_path / "a.png")


def test_a_stream_says_when_each_sample_was_used(tmp_path: Path):
    for name in "abc":
        Pil.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"{name}.png")
    done: list[int] = []
    for count, _ in enumerate(reader(IMAGE).stream(sorted(tmp_path.iterdir()), lambda: done.append(1))):
        assert len(done) == count
    assert len(done) == 3


def test_arrays_for_integers_are_not_wrapped(tmp_path: Path):
    bytes_ = TensorSpec("bytes", "uint8", (1, 2))
    np.save(tmp_path / "a.npy", np.array([0.0, 255.0]))
    np.testing.assert_array_equal(reader(bytes_).read(tmp_path / "a.npy")["bytes"], [[0, 255]])
    np.save(tmp_path / "a.npy", np.array([0, 256]))
    with pytest.raises(InputError, match="holds numbers that uint8 cannot"):
        reader(bytes_).read(tmp_path / "a.npy")


def test_a_recipe_that_does_not_fit_is_refused_before_the_file_is_read(tmp_path: Path):
    recipe = Recipe.model_validate({"input": {"size": (16_384, 16_384)}})
    with pytest.raises(InputError, match="recipe resizes images to 16384x16384"):
        reader(IMAGE, recipe=recipe).read(tmp_path / "none.png")
