"""Store one image so that nothing but its pixels, and what is needed to read them, comes along."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.arrays import write_npz
from edgemed.base.errors import InputError
from edgemed.base.hashing import sha256_bytes, sha256_json
from edgemed.base.lazy import require
from edgemed.imaging.deid.deidentify import deidentify_file, silent_pydicom
from edgemed.imaging.deid.options import Options
from edgemed.imaging.deid.report import DeidReport
from edgemed.imaging.dicom import is_dicom, open_dicom
from edgemed.imaging.nifti import is_nifti, without_words
from edgemed.imaging.open import open_image
from edgemed.imaging.read import read_arrays, read_image
from edgemed.imaging.sources import Sample
from edgemed.recipe.contract import check_contract
from edgemed.recipe.image import Facts
from edgemed.recipe.schema import Recipe

_BLANKED = "113101"  # Clean Pixel Data Option (PS3.16 CID 7050)
_STAGED = ".series"
_NAME_DIGITS = 20  # 80 bits: names of different images do not clash


class ContractError(InputError):
    """The recipe's contract refuses the image."""


@dataclass(frozen=True)
class Kept:
    """An image in the set.

    Attributes:
        file: relative to the set.
        sha256: of it, as `Sample.digest` has it.
        reports: of each DICOM file, with its place.
    """

    file: str
    sha256: str
    reports: tuple[tuple[str, DeidReport], ...] = ()


def keep(sample: Sample, folder: Path, recipe: Recipe | None, options: Options) -> Kept:
    """Check an image against the recipe's contract, and store it in `folder` without what identifies.

    DICOM is de-identified; PNG, JPEG, BMP and TIFF are decoded and stored as PNG (TIFF where the pixels are floats);
    arrays and NIfTI are written anew. New names are hashes.

    Raises:
        ContractError: the contract refuses it.
        BurnedInError: text may be burned into it, and no region rule matches.
        InputError: it cannot be read.
        ResourceError: it cannot be read or stored.
    """
    if sample.holds_arrays:
        return _arrays(sample, folder)
    _check(recipe, open_image(sample.path).facts)  # of a series, the whole volume is read, and forgotten
    if sample.path.is_dir():
        return _series(sample, folder, recipe, options)
    if is_dicom(sample.path):
        return _dicom(sample, folder, recipe, options)
    return _nifti(sample, folder) if is_nifti(sample.path) else _plain(sample, folder)


def _check(recipe: Recipe | None, facts: Facts) -> None:
    if recipe is None:
        return
    try:
        check_contract(recipe.input.contract, facts)
    except InputError as error:
        raise ContractError(error.what, error.hint) from error


def _dicom(sample: Sample, folder: Path, recipe: Recipe | None, options: Options) -> Kept:
    data, report = _deidentified(sample.path, options)
    kept = _write(data, folder, ".dcm")
    target = folder / kept.file
    try:
        with _after(target):
            _check(recipe, open_dicom(target).facts)
            _compare(sample.path, target, blanked=_BLANKED in report.codes)
    except InputError:
        target.unlink()
        raise
    return Kept(kept.file, kept.sha256, ((kept.file, report),))


def _series(sample: Sample, folder: Path, recipe: Recipe | None, options: Options) -> Kept:
    """One file in memory after the other; then the volume that they make, read anew."""
    staged = folder / _STAGED
    staged.mkdir()
    try:
        hashes, reports = [], []
        for number, path in enumerate(sample.files):
            data, report = _deidentified(path, options)
            (staged / f"{number:05}.dcm").write_bytes(data)
            hashes.append(sha256_bytes(data))
            reports.append(report)
        with _after(staged):
            _check(recipe, open_image(staged).facts)
            middle = len(reports) // 2
            stored = staged / f"{middle:05}.dcm"
            _compare(sample.files[middle], stored, blanked=_BLANKED in reports[middle].codes)
        digest = sha256_json(sorted(hashes))
        name = digest[:_NAME_DIGITS]
        if not (folder / name).exists():  # else its bytes are there already
            staged.rename(folder / name)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return Kept(name, digest, tuple((f"{name}/{number:05}.dcm", report) for number, report in enumerate(reports)))


@contextmanager
def _after(stored: Path) -> Iterator[None]:
    """Refusals of what was stored: they say so, and not where it lay."""
    try:
        yield
    except InputError as error:
        what = re.sub(rf"{re.escape(str(stored))}(/\d+\.dcm)?", "it", error.what)
        raise type(error)(f"After de-identification: {what}", error.hint) from error


def _deidentified(path: Path, options: Options) -> tuple[bytes, DeidReport]:
    file, report = deidentify_file(path, options)
    buffer = io.BytesIO()
    try:
        with silent_pydicom():
            file.save_as(buffer, enforce_file_format=True)
    except Exception as error:  # pydicom raises whatever the odd values of a header provoke
        raise InputError(f"{path} cannot be written anew: {type(error).__name__}.", "Check the file.") from error
    return buffer.getvalue(), report


def _compare(source: Path, stored: Path, *, blanked: bool) -> None:
    """The stored pixels are the source's, read anew; where some were blanked the frame must still be readable."""
    before, after = open_dicom(source), open_dicom(stored)
    index = before.frames // 2
    was, now = before.frame(index).pixels, after.frame(index).pixels
    if before.frames != after.frames or not (was.shape == now.shape if blanked else np.array_equal(was, now)):
        raise InputError("its pixels changed.", "Report this; the image was left out.")


def _plain(sample: Sample, folder: Path) -> Kept:
    pil = require("PIL.Image", extra="imaging", purpose="write images")
    pixels = read_image(sample.path).pixels
    image, buffer = pil.fromarray(np.ascontiguousarray(pixels)), io.BytesIO()
    if pixels.dtype.kind == "f":
        image.save(buffer, "TIFF")
        return _write(buffer.getvalue(), folder, ".tif")
    image.save(buffer, "PNG")
    return _write(buffer.getvalue(), folder, ".png")


def _arrays(sample: Sample, folder: Path) -> Kept:
    arrays: dict[str, NDArray[Any]] = read_arrays(sample.path)
    if set(arrays) == {""}:
        buffer = io.BytesIO()
        np.save(buffer, arrays[""], allow_pickle=False)
        return _write(buffer.getvalue(), folder, ".npy")
    return _write(write_npz(arrays), folder, ".npz")


def _nifti(sample: Sample, folder: Path) -> Kept:
    return _write(without_words(sample.path), folder, ".nii")


def _write(data: bytes, folder: Path, suffix: str) -> Kept:
    digest = sha256_bytes(data)
    name = digest[:_NAME_DIGITS] + suffix
    (folder / name).write_bytes(data)
    return Kept(name, digest)
