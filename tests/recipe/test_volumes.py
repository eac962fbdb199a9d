"""Whole recipes on whole images: volumes, cines, tiles, and the way back through all of it."""

from __future__ import annotations

import numpy as np
import pytest
from recipe.steps_of import stack

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec
from edgemed.recipe.apply import Preprocessor
from edgemed.recipe.image import Image
from edgemed.recipe.schema import Layout, Recipe

RNG = np.random.default_rng(6)
CT = stack(RNG.integers(-1000, 2000, (6, 20, 24), dtype=np.int16), modality="CT", spacing=(0.5, 0.5), slice_spacing=5.0)
CINE = stack(RNG.integers(0, 256, (10, 12, 16, 3), dtype=np.uint8))


def preprocessor(
    shape: tuple[int | None, ...], layout: Layout = "NHWC", dtype: str = "float32", **input_: object
) -> Preprocessor:
    return Preprocessor(Recipe.model_validate({"input": input_}), TensorSpec("x", dtype, shape), layout)


WINDOW = {"op": "window", "center": 40, "width": 400}


def test_a_volume_becomes_one_sample():
    make = preprocessor((1, 6, 10, 12, 1), steps=[WINDOW, {"op": "resize", "filter": "area"}])
    sample = make(CT)
    assert make.kind == "volume"
    assert (sample.shape, sample.dtype) == ((1, 6, 10, 12, 1), np.float32)
    by_slice = preprocessor((1, 10, 12, 1), steps=[WINDOW, {"op": "resize", "filter": "area"}])
    for index in range(6):
        np.testing.assert_array_equal(sample[0, index], by_slice(CT.frame(index))[0])
    first = preprocessor((1, 1, 6, 10, 12), "NCDHW", steps=[WINDOW, {"op": "resize", "filter": "area"}])(CT)
    np.testing.assert_array_equal(np.moveaxis(first, 1, -1), sample)


def test_slices_are_the_models_or_the_recipes():
    with pytest.raises(InputError, match="The volume has 6 slices; the model takes"):
        preprocessor((1, 8, 20, 24, 1))(CT)
    sample = preprocessor((1, 8, 20, 24, 1), steps=[{"op": "pad", "size": [8, 20, 24], "fill": -1000}])(CT)
    assert (sample[0, 0] == -1000).all()
    assert preprocessor((1, None, 20, 24, 1))(CT).shape == (1, 6, 20, 24, 1)
    spaced = preprocessor((1, None, None, None, 1), steps=[{"op": "spacing", "mm": [1, 1, 1]}])(CT)
    assert spaced.shape == (1, 30, 10, 12, 1)


def test_one_image_is_a_volume_of_one_slice_and_many_frames_are_no_image():
    assert preprocessor((1, 1, 20, 24, 1))(CT.frame(0)).shape == (1, 1, 20, 24, 1)
    with pytest.raises(InputError, match="holds 6 frames, and the model takes one image"):
        preprocessor((1, 20, 24, 1))(CT)
    single = stack(CT.pixels[:1])
    np.testing.assert_array_equal(preprocessor((1, 20, 24, 1))(single)[0], preprocessor((1, 20, 24, 1))(CT.frame(0))[0])


@pytest.mark.parametrize(
    ("shape", "input_"),
    [
        ((1, 8, 8, 1), {"kind": "volume"}),
        ((1, 8, 8, 1), {"time": {"frames": 4}}),
        ((1, 8, 8, 8, 1), {"kind": "image"}),
    ],
)
def test_kinds_that_the_model_cannot_take_are_refused(shape: tuple[int, ...], input_: dict[str, object]):
    with pytest.raises(InputError, match="correct the kind"):
        preprocessor(shape, **input_)


def test_a_cine_becomes_clips():
    make = preprocessor((1, 4, 6, 8, 3), "NTHWC", time={"frames": 4, "stride": 4}, scaling={"divisor": 255})
    clips = [prepared.sample for prepared in make.clips(CINE)]
    assert make.kind == "cine"
    assert [clip.shape for clip in clips] == [(1, 4, 6, 8, 3)] * 3
    by_frame = preprocessor((1, 6, 8, 3), scaling={"divisor": 255})
    np.testing.assert_array_equal(clips[2][0, 0], by_frame(CINE.frame(6))[0])  # the last clip ends with the cine
    with pytest.raises(InputError, match="The cine has 10 frames"):
        make(CINE)
    with pytest.raises(InputError, match="has 1 frames"):
        list(make.clips(CINE.frame(0)))


def test_a_mask_goes_back_through_the_whole_recipe():
    """Blocks of 4x4 pixels of one value survive a reduction by 2, so that the way back is exact."""
    labels = np.kron(RNG.integers(1, 200, (10, 12)), np.ones((4, 4), int)).astype(np.uint8)
    make = preprocessor(
        (1, 16, 24, 1),
        steps=[
            {"op": "rotate90"},
            {"op": "flip", "axis": "rows"},
            {"op": "crop", "box": [8, 0, 32, 40]},
            {"op": "resize", "size": [16, 20], "filter": "nearest"},
            {"op": "pad", "size": [16, 24]},
        ],
    )
    prepared = make.prepare(labels)
    mask = prepared.sample[..., 0]
    back = prepared.transform.map_to_source(mask, fill=-1)[0]
    np.testing.assert_array_equal(back[:, 8:40], labels[:, 8:40])
    assert (np.delete(back, np.s_[8:40], axis=1) == -1).all()


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_answers_go_back_in_the_layout_of_the_sample(layout: Layout):
    first = layout == "NCHW"
    make = preprocessor(
        (1, 1, 10, 12) if first else (1, 10, 12, 1), layout, steps=[{"op": "crop", "size": [20, 20]}, {"op": "resize"}]
    )
    prepared = make.prepare(CT.frame(0))
    answer = RNG.random((1, 5, 6, 2), dtype=np.float32)  # coarser than the sample, two classes
    back = prepared.to_source(np.moveaxis(answer, -1, 1) if first else answer, fill=-1)
    assert back.shape == (20, 24, 2)
    assert (back[:, :2] == -1).all()
    assert (back[:, 2:22] >= 0).all()
    labels = prepared.to_source(answer[..., 0], how="nearest", fill=-1)
    assert labels.shape == (20, 24)
    assert set(np.unique(labels)) == {-1, *answer[..., 0].ravel()}
    for wrong in (answer[0, 0], np.concatenate([answer, answer])):
        with pytest.raises(InputError, match="no map"):
            prepared.to_source(wrong)


def test_volumes_go_back_too():
    prepared = preprocessor((1, 6, 10, 12, 1), steps=[{"op": "resize"}]).prepare(CT)
    labels = RNG.integers(0, 3, (1, 6, 10, 12))
    np.testing.assert_array_equal(prepared.to_source(labels, how="nearest"), labels[0].repeat(2, 1).repeat(2, 2))


def test_tiles_of_a_recipe_are_what_the_model_is_fed():
    make = preprocessor((1, 8, 8, 1), tiles={"size": [8, 8], "overlap": 2}, steps=[WINDOW])
    prepared = make.prepare(CT.frame(0))
    assert prepared.tiling is not None
    tiles = list(prepared.tiles())
    assert {tile.shape for tile in tiles} == {(1, 8, 8, 1)}
    assert len(tiles) == 3 * 4
    np.testing.assert_array_equal(prepared.tiling.stitch(tiles, prepared.first_axis), prepared.sample)
    volume = preprocessor((1, 1, 4, 8, 8), "NCDHW", tiles={"size": [4, 8, 8]}).prepare(CT)
    assert volume.tiling is not None
    np.testing.assert_array_equal(volume.tiling.stitch(volume.tiles(), 2), volume.sample)
    with pytest.raises(InputError, match="cuts tiles of 8x8"):
        preprocessor((1, 16, 16, 1), tiles={"size": [8, 8]})
    with pytest.raises(InputError, match="cuts tiles of 2 axes"):
        preprocessor((1, None, 8, 8, 1), tiles={"size": [8, 8]})


def test_the_trace_shows_every_step_and_ends_with_the_sample():
    make = preprocessor((1, 3, 10, 12), "NCHW", steps=[WINDOW, {"op": "invert"}], scaling={"divisor": 2})
    trace = make.trace(CT.frame(0))
    assert [step.name for step in trace] == ["image", "window", "invert", "resize", "channels", "scaling", "sample"]
    assert trace[1].note == "center 40, width 400"
    np.testing.assert_array_equal(np.moveaxis(trace[-1].pixels[0], -1, 0), make(CT.frame(0))[0])
    assert all(step.elapsed_ns >= 0 and step.pixels.ndim in (3, 4) for step in trace)


def test_resize_without_a_size_takes_the_models_or_leaves_it():
    step = {"op": "resize", "fit": "pad", "filter": "area"}
    assert preprocessor((1, 12, 12, 1), steps=[step])(CT.frame(0)).shape == (1, 12, 12, 1)
    assert preprocessor((1, None, None, 1), steps=[step])(CT.frame(0)).shape == (1, 20, 24, 1)


def test_the_contract_comes_first():
    with pytest.raises(InputError, match="Modality is 'CT'"):
        preprocessor((1, 8, 8, 1), contract={"modalities": ["MR"]})(CT)


def test_the_caller_may_change_the_sample():
    pixels = np.zeros((8, 8), np.float32)
    preprocessor((1, 8, 8, 1))(pixels)[...] = 1
    assert (pixels == 0).all()


def test_padding_is_carried_along_to_the_statistics():
    pixels = CT.pixels[0].copy()
    valid = np.ones(pixels.shape, np.bool_)
    pixels[:, :12], valid[:, :12] = pixels.min(), False
    image = Image(pixels, CT.facts, valid=valid)
    make = preprocessor(
        (1, 10, 12, 1), steps=[{"op": "resize", "size": [10, 12], "filter": "nearest"}, {"op": "zscore"}]
    )
    assert make(image)[0, :, 6:].mean() == pytest.approx(0, abs=1e-6)  # FP32 of 60 values near 1
