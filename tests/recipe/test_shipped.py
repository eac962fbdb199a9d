"""Each shipped recipe on a synthetic image of its kind: it takes that, gives what it says, and refuses the others."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgemed.base.errors import InputError
from edgemed.base.resources import shipped
from edgemed.base.runner import TensorSpec
from edgemed.recipe.apply import Preprocessor
from edgemed.recipe.contract import STORAGE_CLASSES
from edgemed.recipe.image import Facts, Image, Window
from edgemed.recipe.schema import load_recipe

RNG = np.random.default_rng(8)
RECIPES = shipped("calibration")
PLAIN = {"pixels-0-1", "pixels-0-255"}
DISC = np.hypot(*(np.indices((600, 600)) - 299.5)) < 250


def image(
    pixels: np.ndarray, sop_class: str, modality: str, bits: int, *, stacked: bool = False, **more: object
) -> Image:
    rows, columns = pixels.shape[1:3] if stacked else pixels.shape[:2]
    photometric = "RGB" if pixels.ndim == 3 + stacked else "MONOCHROME2"
    frames = len(pixels) if stacked else 1
    facts = Facts(rows, columns, frames, photometric, bits, modality, STORAGE_CLASSES[sop_class], **more)
    return Image(pixels, facts, stored_range=(0.0, float(2**bits - 1)), stacked=stacked)


def film(*shape: int) -> np.ndarray:
    return RNG.integers(0, 4096, shape, dtype=np.uint16)


def photograph() -> np.ndarray:
    return (RNG.integers(60, 256, (600, 600, 3)) * DISC[..., None]).astype(np.uint8)


CT = image(RNG.integers(-1000, 1500, (512, 512), dtype=np.int16), "CTImageStorage", "CT", 12)
BREAST = replace(
    image(film(800, 600) * DISC[[*range(600), *[0] * 200]].astype(np.uint16),
          "DigitalMammographyXRayImageStorageForPresentation", "MG", 12, laterality="L", view="CC"),
    windows=(Window(2048, 4096, "SIGMOID"),),
)  # fmt: skip
ECHO = RNG.integers(0, 256, (20, 240, 320, 3), dtype=np.uint8)

KINDS: dict[str, Image] = {
    "chest-xray": image(film(700, 600), "ComputedRadiographyImageStorage", "CR", 12),
    "ct-lung": CT,
    "ct-liver": CT,
    "ct-soft-tissue": CT,
    "mammography": BREAST,
    "brain-mr": image(film(256, 256), "MRImageStorage", "MR", 12, spacing=(0.9, 0.9)),
    "ultrasound": image(ECHO[0], "UltrasoundImageStorage", "US", 8),
    "ultrasound-cine": image(ECHO, "UltrasoundMultiFrameImageStorage", "US", 8, stacked=True),
    "endoscopy": image(photograph(), "VLEndoscopicImageStorage", "ES", 8),
    "dermoscopy": image(photograph(), "DermoscopicPhotographyImageStorage", "DMS", 8),
    "retina": image(photograph(), "OphthalmicPhotography8BitImageStorage", "OP", 8, laterality="R"),
}
COLOR = {"endoscopy", "dermoscopy", "retina"}
UNIT = {*KINDS} - {"brain-mr", "dermoscopy"}


def preprocessor(name: str) -> Preprocessor:
    shape = (64, 64, 3 if name in COLOR else 1)
    whole = (1, 16, *shape) if name == "ultrasound-cine" else (1, *shape)
    return Preprocessor(load_recipe(RECIPES[name]), TensorSpec("x", "float32", whole))


def test_every_recipe_has_its_image():
    assert set(KINDS) | PLAIN == set(RECIPES)


@pytest.mark.parametrize("name", KINDS)
def test_a_recipe_takes_its_kind(name: str):
    make = preprocessor(name)
    samples = [prepared.sample for prepared in make.clips(KINDS[name])]
    assert {sample.shape for sample in samples} == {make.spec.shape}
    assert len(samples) == (2 if name == "ultrasound-cine" else 1)
    sample = samples[0]
    if name in UNIT:
        assert sample.min() >= 0
        assert 0.2 < sample.max() <= 1
    else:
        assert sample.min() < 0 < sample.max()
    assert sample.std() > 0.01


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_a_recipe_refuses_other_kinds(name: str, other: str):
    if KINDS[other].facts.modality == KINDS[name].facts.modality:
        return
    with pytest.raises(InputError, match="Modality is"):
        list(preprocessor(name).clips(KINDS[other]))


@pytest.mark.parametrize("name", KINDS)
def test_burned_in_text_is_refused(name: str):
    marked = replace(KINDS[name], facts=replace(KINDS[name].facts, burned_in=True))
    with pytest.raises(InputError, match="burned into"):
        list(preprocessor(name).clips(marked))


@pytest.mark.parametrize("name", KINDS)
def test_the_output_in_the_comment_is_a_recipe_too(name: str, tmp_path: Path):
    text = RECIPES[name].read_text(encoding="utf-8")
    head, _, tail = text.partition("# [output]")
    (tmp_path / "whole.toml").write_text(head + "[output]" + re.sub(r"^# ", "", tail, flags=re.MULTILINE))
    recipe = load_recipe(tmp_path / "whole.toml")
    assert recipe.output.task is not None
    assert recipe.description


def test_ct_windows_are_hounsfield_units():
    values = np.array([[-1351, -1350, 151, 30, -46, 106, 250, 251]], np.int16).repeat(128, 0)
    ct = image(np.tile(values, (1, 16)), "CTImageStorage", "CT", 12)

    def shades(name: str) -> np.ndarray:
        return Preprocessor(load_recipe(RECIPES[name]), TensorSpec("x", "float32", (1, None, None, 1)))(ct)[0, 0, :8, 0]

    # width 1500 at -600: black up to -1350, white from 149
    np.testing.assert_allclose(shades("ct-lung")[:3], [0, 0, 1], atol=7e-4)  # one Hounsfield unit is 1/1499
    np.testing.assert_allclose(shades("ct-liver")[3:6], [0.5034, 0, 1], atol=1e-4)  # (30 - 29.5) / 149 + 0.5
    np.testing.assert_allclose(shades("ct-soft-tissue")[6:], [1, 1], atol=1e-6)
