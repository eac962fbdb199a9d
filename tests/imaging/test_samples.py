"""From a file to feeds: shapes, names, and refusals that name the file."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec
from edgemed.imaging.samples import SampleReader
from edgemed.imaging.sources import list_samples
from edgemed.recipe.schema import Recipe, assumed_recipe
from tests.imaging.make_dicom import write, write_series

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


FUSION = Recipe.model_validate(
    {
        "inputs": {
            "image": {"color": "gray", "scaling": {"divisor": 255}},
            "table": {"columns": ["age", "dose"], "offset": [50, 0], "divisor": [10, 2]},
        }
    }
)


def test_a_row_of_a_table_feeds_several_inputs_each_by_its_own_recipe(tmp_path: Path):
    Pil.fromarray(np.full((8, 8, 3), 51, np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "samples.csv").write_text("image,dose,age\na.png,3,61\n")
    (sample,) = list_samples(tmp_path, FUSION)
    specs = (TensorSpec("table", "float32", (1, 2)), TensorSpec("image", "float32", (1, 4, 4, 1)))
    feeds = reader(*specs, recipe=FUSION).read(sample)
    np.testing.assert_allclose(feeds["table"], [[1.1, 1.5]], rtol=1e-6)
    np.testing.assert_allclose(feeds["image"], np.full((1, 4, 4, 1), 0.2), rtol=1e-6)


def test_an_input_that_no_column_feeds_is_refused(tmp_path: Path):
    Pil.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "samples.csv").write_text("image,dose,age\na.png,3,61\n")
    (sample,) = list_samples(tmp_path, FUSION)
    specs = (TensorSpec("image", "float32", (1, 4, 4, 1)), TensorSpec("other", "float32", (1, 2)))
    with pytest.raises(InputError, match="the model also takes other"):
        reader(*specs, recipe=FUSION).read(sample)
    wide = TensorSpec("table", "float32", (1, 3))
    with pytest.raises(InputError, match="has the shape 1×2; the model takes table"):
        reader(TensorSpec("image", "float32", (1, 4, 4, 1)), wide, recipe=FUSION).read(sample)


def test_frames_of_a_file_are_samples_of_their_own(tmp_path: Path):
    frames = np.arange(20, dtype=np.uint8)[:, None, None] * np.ones((8, 8), np.uint8)
    path = write(tmp_path / "cine.dcm", frames)
    gray = reader(TensorSpec("x", "float32", (1, 8, 8, 1)), recipe=Recipe())
    assert gray.read(path)["x"].max() == 10  # the one in the middle
    assert [feeds["x"].max() for feeds in gray.spread(path, 4)] == [2, 7, 12, 17]
    assert [next(iter(item.feeds))["x"].max() for item in gray.items(path)] == list(range(20))


def test_clips_of_a_cine_feed_a_model_of_time(tmp_path: Path):
    frames = np.arange(10, dtype=np.uint8)[:, None, None] * np.ones((8, 8), np.uint8)
    path = write(tmp_path / "cine.dcm", frames)
    recipe = Recipe.model_validate({"input": {"time": {"frames": 4, "stride": 3}}})
    clips = reader(TensorSpec("x", "float32", (1, 4, 8, 8, 1)), recipe=recipe)
    found = [next(iter(item.feeds))["x"][0, :, 0, 0, 0].tolist() for item in clips.items(path)]
    assert found == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert clips.read(path)["x"][0, :, 0, 0, 0].tolist() == [3, 4, 5, 6]


def test_a_series_feeds_a_model_of_volumes(tmp_path: Path):
    volume = np.random.default_rng(0).integers(0, 3000, (6, 8, 8)).astype(np.int16)
    write_series(tmp_path / "ct", volume)
    recipe = Recipe.model_validate({"input": {"kind": "volume", "axes": "IPL"}})
    feeds = reader(TensorSpec("x", "float32", (1, 6, 8, 8, 1)), recipe=recipe).read(tmp_path / "ct")
    np.testing.assert_array_equal(feeds["x"][0, ..., 0], volume[::-1].astype(np.float32) - 1024)


def test_an_image_is_no_volume_and_a_message_names_the_file(tmp_path: Path):
    Pil.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png is one image, not a volume"):
        reader(TensorSpec("x", "float32", (1, 6, 8, 8, 1)), recipe=Recipe()).read(tmp_path / "a.png")


def test_tiles_of_a_large_image_are_blended_into_one_answer(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 21)).astype(np.uint8)
    Pil.fromarray(pixels).save(tmp_path / "a.png")
    recipe = Recipe.model_validate({"input": {"tiles": {"size": [8, 8], "overlap": 4}}})
    (item,) = reader(TensorSpec("x", "float32", (1, 8, 8, 1)), recipe=recipe).items(tmp_path / "a.png")
    assert len(item.feeds) > 20
    answer = item.answer(item.feeds)  # a model that gives back what it gets
    np.testing.assert_allclose(answer["x"][0, ..., 0], pixels, atol=1e-4)  # a weighted mean of equal values, in FP32


def test_the_contract_refuses_before_any_pixel_is_prepared(tmp_path: Path):
    path = write(tmp_path / "a.dcm", np.zeros((8, 8), np.int16))
    recipe = Recipe.model_validate({"input": {"contract": {"modalities": ["MR"]}}})
    with pytest.raises(InputError, match=r"a\.dcm.*Modality is 'CT'; the recipe's contract takes MR"):
        reader(TensorSpec("x", "float32", (1, 8, 8, 1)), recipe=recipe).read(path)


def peak(make: Callable[[], object]) -> int:
    """Most bytes that were allocated at once, of those allocated meanwhile."""
    tracemalloc.start()
    try:
        make()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_only_wanted_tiles_are_cut(tmp_path: Path):
    side, tile = 512, 64
    Pil.fromarray(np.random.default_rng(0).integers(0, 256, (side, side)).astype(np.uint8)).save(tmp_path / "a.png")
    recipe = Recipe.model_validate({"input": {"color": "gray", "tiles": {"size": [tile, tile], "overlap": 56}}})
    tiled = reader(TensorSpec("x", "float32", (1, tile, tile, 1)), recipe=recipe)
    (item,) = tiled.items(tmp_path / "a.png")
    everything = len(item.feeds) * tile * tile * 4
    floats = side * side * 4
    # the image as bytes, as float and as the sample, and what checks and arithmetic take beside them: 6 floats a pixel
    assert 6 * floats < everything / 4
    assert peak(lambda: tiled.spread(tmp_path / "a.png", 8)) < 6 * floats
    # beside them the running mean and its weights, and the map cut out of them
    assert peak(lambda: [item.answer(iter(item.feeds)) for item in tiled.items(tmp_path / "a.png")]) < 9 * floats
    every = [feeds["x"] for feeds in item.feeds]
    wanted = [feeds["x"] for feeds in tiled.spread(tmp_path / "a.png", 3)]
    np.testing.assert_array_equal(wanted, [every[(2 * i + 1) * len(every) // 6] for i in range(3)])


def test_only_wanted_clips_are_prepared(tmp_path: Path):
    frames = np.random.default_rng(0).integers(0, 256, (60, 64, 64)).astype(np.uint8)
    path = write(tmp_path / "cine.dcm", frames)
    recipe = Recipe.model_validate({"input": {"time": {"frames": 8, "stride": 1}}})
    clips = reader(TensorSpec("x", "float32", (1, 8, 64, 64, 1)), recipe=recipe)
    clip = 8 * 64 * 64 * 4
    clips.read(path)  # what is imported is no part of it
    # all frames as they are stored and as decoded, and one clip: as bytes, float and sample, as above
    bound = 2 * frames.nbytes + 6 * clip
    assert bound < 53 * clip / 4
    assert peak(lambda: clips.read(path)) < bound


def test_a_million_frames_cost_no_more_than_their_bytes(tmp_path: Path):
    path = write(tmp_path / "many.dcm", np.ones((1_000_000, 1, 1), np.uint8))
    one = reader(TensorSpec("x", "float32", (1, 8, 8, 1)), recipe=Recipe())
    one.read(path)  # what is imported is no part of it
    # the pixels may be read whole; a Python object for each frame would take 16 bytes and more of each
    assert peak(lambda: one.spread(path, 8)) < 4_000_000


def test_slices_without_a_kind_say_how_they_become_a_volume(tmp_path: Path):
    write_series(tmp_path / "ct", np.zeros((6, 8, 8), np.int16))
    volumes = reader(TensorSpec("x", "float32", (1, 6, 8, 8, 1)), recipe=Recipe())
    first = list_samples(tmp_path, volumes.recipe)[0]
    with pytest.raises(InputError, match="is one slice, not a volume") as caught:
        volumes.read(first)
    assert 'write kind = "volume" in the recipe' in caught.value.hint
