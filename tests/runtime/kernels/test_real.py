"""The shipped recipes, and frames of real DICOM files: the kernels give what the recipe gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgemed.base.errors import InputError
from edgemed.base.resources import shipped
from edgemed.base.runner import TensorSpec
from edgemed.imaging.dicom import open_dicom
from edgemed.recipe.apply import Preprocessor
from edgemed.recipe.image import Facts, Image
from edgemed.recipe.schema import load_recipe
from edgemed.runtime.kernels.plan import Refusal, plan_kernels
from edgemed.runtime.kernels.raw import RawFormat
from tests.imaging.dicom.samples import pydicom, sample
from tests.imaging.dicom.test_samples import NATIVE, READ
from tests.recipe.test_shipped import COLOR, KINDS, PLAIN, RECIPES
from tests.runtime.kernels.compare import agree, difference, recipe, spec_of

# why a shipped recipe goes the CPU's way
LEFT_TO_CPU = {
    "brain-mr": ("window", "percentiles"),
    "endoscopy": ("content", "crop a fixed box"),
    "mammography": ("content", "crop a fixed box"),
    "retina": ("content", "crop a fixed box"),
}
TAKEN = sorted({*RECIPES} - LEFT_TO_CPU.keys())
FACTS = ("SOPClassUID", "Modality")


def spec_for(name: str, dtype: str) -> TensorSpec:
    shape = (3, 224, 224) if name in COLOR else (1, 224, 224)
    return TensorSpec("x", dtype, (1, shape[0], 16, *shape[1:]) if name == "ultrasound-cine" else (1, *shape))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", TAKEN)
def test_a_shipped_recipe_that_the_kernels_take_over(name: str, dtype: str):
    whole = load_recipe(shipped("calibration")[name])
    image = KINDS["dermoscopy" if name in PLAIN else name]
    spec, layout = spec_for(name, dtype), "NCDHW" if name == "ultrasound-cine" else "NCHW"
    if name == "ultrasound-cine":  # its clips of 16 frames
        image = replace(image, pixels=image.pixels[3:19], facts=replace(image.facts, frames=16))
    difference(whole, spec, layout, image)


@pytest.mark.parametrize("name", LEFT_TO_CPU)
def test_a_shipped_recipe_that_goes_the_cpus_way(name: str):
    found = plan_kernels(
        load_recipe(shipped("calibration")[name]), spec_for(name, "float32"), "NCHW", RawFormat.of(KINDS[name])
    )
    assert isinstance(found, Refusal)
    step, reason = LEFT_TO_CPU[name]
    assert found.step == step
    assert reason in str(found)


def test_every_shipped_recipe_is_in_one_of_the_lists():
    assert set(TAKEN) | set(LEFT_TO_CPU) == set(RECIPES)


@pytest.mark.parametrize("name", sorted(KINDS.keys() - LEFT_TO_CPU.keys()))
def test_the_contract_is_held_when_planning(name: str):
    other = replace(KINDS[name], facts=replace(KINDS[name].facts, modality="NM"))
    with pytest.raises(InputError, match="Modality is"):
        plan_kernels(load_recipe(shipped("calibration")[name]), spec_for(name, "float32"), "NCHW", RawFormat.of(other))


@pytest.mark.parametrize("key", READ)
def test_frames_of_real_files(key: str):
    image = open_dicom(sample(key)).frame(0)
    if str(image.pixels.dtype) not in ("uint8", "uint16", "int16"):
        found = plan_kernels(recipe(), spec_of(96, 128, 1, "NCHW"), "NCHW", RawFormat.of(image))
        assert isinstance(found, Refusal)
        assert "the kernels take uint8, uint16, int16" in found.reason
        return
    shown = (
        {"op": "window", "file": True, "otherwise": "range"} if not image.is_color else {"op": "range", "of": "type"}
    )
    for steps in ([shown, {"op": "resize", "fit": "pad"}], [{"op": "resize", "filter": "area"}, shown]):
        whole, spec = recipe(*steps), spec_of(96, 128, 3 if image.is_color else 1, "NCHW")
        if image.tables and steps[0] is not shown:  # a table takes whole numbers
            assert isinstance(plan_kernels(whole, spec, "NCHW", RawFormat.of(image)), Refusal)
            continue
        difference(whole, spec, "NCHW", image)


def stored_only(key: str) -> bool:
    """Gray files whose stored numbers pydicom gives as they are, and whose meaning is slope and intercept."""
    data = pydicom.dcmread(sample(key), stop_before_pixels=True, force=True)
    return (
        str(data.file_meta.get("TransferSyntaxUID", "")) in NATIVE
        and data.get("PhotometricInterpretation", "").startswith("MONOCHROME")
        and data.get("BitsAllocated") in (8, 16)
        and not {"ModalityLUTSequence", "PixelPaddingValue", "SharedFunctionalGroupsSequence"} & set(data.dir())
    )


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # of files that are not quite right
def test_stored_values_of_real_files_go_in_as_they_are():
    """Rescale and MONOCHROME1 on the device: the raw bytes of the file give what reader and recipe make of it."""
    done = 0
    for key in READ:
        try:
            if not stored_only(key):
                continue
        except (AttributeError, pydicom.errors.InvalidDicomError):
            continue
        data = pydicom.dcmread(sample(key), force=True)
        stored = pydicom.pixels.pixel_array(data, raw=True) if int(data.get("NumberOfFrames") or 1) == 1 else None
        if stored is None or str(stored.dtype) not in ("uint8", "uint16", "int16"):
            continue
        image = open_dicom(sample(key)).frame(0)
        raw = RawFormat(*stored.shape, str(stored.dtype), facts=image.facts, windows=image.windows).stored(
            bits=data.BitsStored,
            slope=float(data.get("RescaleSlope", 1)),
            intercept=float(data.get("RescaleIntercept", 0)),
            inverted=data.PhotometricInterpretation == "MONOCHROME1",
        )
        np.testing.assert_array_equal(raw.image(stored).pixels, image.pixels, err_msg=key)
        assert raw.image(stored).pixels.dtype == image.pixels.dtype, key
        assert raw.stored_range == image.stored_range, key
        whole = recipe({"op": "range", "of": "stored-bits"}, {"op": "resize"})
        spec = spec_of(64, 72, 1, "NHWC")
        plan = plan_kernels(whole, spec, "NHWC", raw)
        assert not isinstance(plan, Refusal), str(plan)
        agree(plan, Preprocessor(whole, spec)(image), stored)
        done += 1
    assert done > 20


def test_the_format_of_a_stream_need_not_come_from_a_file():
    facts = Facts(480, 640, photometric="RGB", bits=8, modality="US", sop_class=KINDS["ultrasound"].facts.sop_class)
    raw = RawFormat(480, 640, pixels="nv12", matrix="709", facts=facts)
    whole = load_recipe(shipped("calibration")["ultrasound"])
    plan = plan_kernels(whole, spec_for("ultrasound", "float16"), "NCHW", raw)
    assert not isinstance(plan, Refusal)
    taken = np.random.default_rng(0).integers(0, 256, raw.shape, dtype=np.uint8)
    picture: Image = raw.image(taken)
    agree(plan, Preprocessor(whole, spec_for("ultrasound", "float16"), "NCHW")(picture), taken)
