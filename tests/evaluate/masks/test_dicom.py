"""DICOM images and volumes with DICOM Segmentations, and NIfTI, judged by a model that knows the answer."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from pydicom.data import get_testdata_file

from edgemed.base.errors import InputError
from edgemed.base.hashing import sha256_file, sha256_json
from edgemed.bundle.read import open_bundle
from edgemed.evaluate.compare import evaluate_bundle
from edgemed.imaging.dicom import open_dicom
from evaluate.masks.bundles import write_mask_bundle
from evaluate.masks.dicom import hounsfield, write_seg, write_slices

pytestmark = pytest.mark.filterwarnings("ignore")  # highdicom's and pydicom's, of what old slices lack

# -1000 to 1000 HU become 0 to 1: the first channel marks from -0.5 HU on, the second from 199.5; values are whole
WINDOW = '[[input.steps]]\nop = "window"\nlow = -1000\nhigh = 1000\n'
BOUNDS = (0.49975, 0.59975)
CLASSES = '[output]\nclasses = ["Liver", { name = "Milz", code = "SCT:78961009:Spleen" }]\n'


def truths(paths: list[Path]) -> np.ndarray:
    values = hounsfield(paths)
    return np.stack([values >= 0, values >= 200], axis=-1)


def bundle_of(path: Path, shape: tuple[int, ...], recipe: str = WINDOW + CLASSES, **more: object) -> Path:
    named = {"classes": ("Liver", "Milz"), "int8": (0.59975, 0.59975), **more}
    return write_mask_bundle(path, float_=BOUNDS, shape=shape, recipe=recipe, **named)  # type: ignore[arg-type]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three slices of one patient, two of another, one that nobody drew on; a class by its name, one by its code."""
    folder = tmp_path / "data"
    for index, (patient, count) in enumerate({"a": 3, "b": 2, "c": 1}.items()):
        paths = write_slices(folder, patient, count, seed=index)
        if patient != "c":
            write_seg(folder / f"{patient}.seg", paths, truths(paths), ("liver", "spleen"))
    return folder


def test_images(data: Path, tmp_path: Path) -> None:
    evaluation = evaluate_bundle(open_bundle(bundle_of(tmp_path / "b.edgemed", (1, 128, 128, 1))), data).evaluation
    float_, int8 = (result.metrics for result in evaluation.results)
    assert [float_[f"dice{c}"].value for c in ("", ":Liver", ":Milz")] == [1.0, 1.0, 1.0]
    assert float_["dice"].n == 5
    drawn = [truths(sorted(data.glob(f"{patient}-*.dcm"))) for patient in "ab"]
    every = np.concatenate(drawn)
    expected = [2 * t[..., 1].sum() / (t[..., 0].sum() + t[..., 1].sum()) for t in every]  # the smaller lies within
    assert int8["dice:Liver"].value == pytest.approx(np.mean(expected))
    assert int8["dice:Milz"].value == 1.0
    assert evaluation.masks is not None
    assert (evaluation.masks.units, evaluation.masks.left_out) == (2, 1)
    assert any("5 images of 2 independent units" in text for text in evaluation.warnings)
    assert any(text.endswith("refers to them: 1 images or series.") for text in evaluation.warnings)


@pytest.mark.parametrize("axes", ["SPL", "IAR"])
def test_volumes(data: Path, tmp_path: Path, axes: str) -> None:
    """All slices of a patient are one sample; slices, rows and columns are turned, and what was drawn with them."""
    (data / "b").mkdir()
    for path in [*data.glob("b*.*"), *data.glob("c*.*")]:
        path.unlink()
    recipe = f'[input]\nkind = "volume"\naxes = "{axes}"\n{WINDOW}{CLASSES}'
    seen = sha256_json(sorted(sha256_file(path) for path in data.glob("a-*.dcm")))
    bundle = bundle_of(tmp_path / "b.edgemed", (1, 3, 128, 128, 1), recipe)
    evaluation = evaluate_bundle(open_bundle(bundle), data).evaluation
    assert [result.metrics["dice:Milz"].value for result in evaluation.results] == [1.0, 1.0]
    assert evaluation.results[0].metrics["dice:Liver"].value == 1.0
    assert evaluation.results[1].metrics["dice:Liver"].value < 1.0
    assert evaluation.data.samples == 1
    known = bundle_of(tmp_path / "seen.edgemed", (1, 3, 128, 128, 1), recipe, calibrated_on=(seen,))
    with pytest.raises(InputError, match="1 of 1 images were used for calibration"):
        evaluate_bundle(open_bundle(known), data)


def test_nifti(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    values = np.random.default_rng(0).integers(-1000, 1000, (24, 20, 6)).astype(np.int16)  # columns, rows, slices
    labels = (values >= 200).astype(np.uint8) + (values >= 600)
    affine = np.diag([2.0, -3.0, 4.0, 1.0])
    for kind, array in (("images", values), ("masks", labels.astype(np.uint8))):
        (tmp_path / "data" / kind).mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "data" / kind / "a.nii.gz")
    recipe = f'[input]\nkind = "volume"\naxes = "SPL"\n{WINDOW}'
    # 100 (x - 0), 200 (x - 0.3), 300 (x - 0.4666): lines that cross at 0.6 and 0.8, less half a HU
    bounds = (0.0, 0.29975 + 0.000125, 0.4665)
    bundle = write_mask_bundle(
        tmp_path / "b.edgemed", float_=bounds, int8=None, shape=(1, 6, 20, 24, 1), recipe=recipe, softmax=True
    )
    evaluation = evaluate_bundle(open_bundle(bundle), tmp_path / "data").evaluation
    assert evaluation.results[0].metrics["dice:class 1"].value == pytest.approx(1, abs=2e-3)  # crossings are rounded
    moved = nibabel.Nifti1Image(labels, affine + np.eye(4)[:, [3, 0, 1, 2]] * 0.1)
    nibabel.save(moved, tmp_path / "data" / "masks" / "a.nii.gz")
    with pytest.raises(InputError, match="another grid"):
        evaluate_bundle(open_bundle(bundle), tmp_path / "data")


def test_a_segment_that_is_no_class_is_refused(data: Path, tmp_path: Path) -> None:
    paths = sorted(data.glob("c-*.dcm"))
    write_seg(data / "c.seg", paths, truths(paths), ("liver", "tumour"))
    bundle = open_bundle(bundle_of(tmp_path / "b.edgemed", (1, 128, 128, 1), WINDOW + CLASSES.replace("Liver", "X")))
    with pytest.raises(InputError, match=r"The segment 'liver' of .* is none of the classes X, Milz"):
        evaluate_bundle(bundle, data)
    unnamed = write_mask_bundle(tmp_path / "u.edgemed", shape=(1, 128, 128, 1), recipe=WINDOW)
    with pytest.raises(InputError, match=r"names no classes, and .* has 2 segments"):
        evaluate_bundle(open_bundle(unnamed), data)


def test_a_segmentation_of_other_images_is_refused(data: Path, tmp_path: Path) -> None:
    for path in data.glob("[ab]-*.dcm"):
        path.unlink()
    bundle = open_bundle(bundle_of(tmp_path / "b.edgemed", (1, 128, 128, 1)))
    with pytest.raises(InputError, match="refer to none of the 1 images"):
        evaluate_bundle(bundle, data)


def test_frames_of_one_file_are_one_unit(tmp_path: Path) -> None:
    """An enhanced CT of several frames, with a segmentation of its frames."""
    folder = tmp_path / "data"
    folder.mkdir()
    source = folder / "enhanced.dcm"
    shutil.copy(str(get_testdata_file("eCT_Supplemental.dcm", download=False)), source)
    opened = open_dicom(source)
    masks = np.stack([opened.frame(i).pixels >= 0 for i in range(opened.frames)])[..., None]
    write_seg(folder / "enhanced.seg", [source], masks, ("liver",))
    shape = (1, opened.module.rows, opened.module.columns, 1)
    bundle = write_mask_bundle(
        tmp_path / "b.edgemed",
        float_=BOUNDS[:1],
        shape=shape,
        recipe=WINDOW + '[output]\nclasses = ["Liver"]\n',
        classes=("Liver",),
    )
    evaluation = evaluate_bundle(open_bundle(bundle), folder).evaluation
    assert evaluation.masks is not None
    assert (evaluation.data.samples, evaluation.masks.units) == (opened.frames, 1)
    assert evaluation.results[0].metrics["dice"].value == 1.0
