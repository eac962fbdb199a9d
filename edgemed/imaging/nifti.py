"""NIfTI volumes, by nibabel. Its axes (x, y, z; Right, Anterior, Superior) become ours: slices, rows, columns; LPS."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError, from_os_error
from edgemed.base.lazy import require
from edgemed.imaging.limits import MAX_ARRAY_BYTES
from edgemed.recipe.image import Facts, Geometry, Image

SUFFIXES = (".nii", ".nii.gz")
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_UNITS = {"meter": 1000.0, "micron": 0.001}  # to mm, which unknown units are taken for
_FORMS = {
    "qform_code": ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    "sform_code": ("srow_x", "srow_y", "srow_z"),
}
_DAMAGED = (ValueError, EOFError, OverflowError, IndexError, zlib.error)  # nibabel's words for what it cannot read


def is_nifti(path: Path) -> bool:
    """By its name: NIfTI-1 and -2, single file, packed or not."""
    return path.name.lower().endswith(SUFFIXES)


def read_nifti(path: Path) -> Image:
    """Read a volume: `(slices, rows, columns)`, in the file's own axes, with its affine in LPS.

    Values are what the file's slope and intercept make of them: whole numbers stay in their integer type, others are
    float32. NaN counts as padding.

    Raises:
        InputError: damaged, not of three dimensions, no numbers, infinite values, or beyond the size limits.
        ResourceError: the file cannot be opened.
    """
    nibabel = require("nibabel", extra="imaging", purpose="read NIfTI files")
    try:
        file = nibabel.load(path)
        shape = tuple(int(n) for n in file.shape)
        _check(path, shape, np.dtype(file.get_data_dtype()))
        pixels = _values(file)
    except nibabel.filebasedimages.ImageFileError as error:
        raise InputError(f"{path} is not a NIfTI file.", "Give .nii or .nii.gz.") from error
    except OSError as error:
        if error.errno is not None:
            raise from_os_error(error, path) from error
        raise InputError(f"{path} is damaged: {error}.", "Replace or remove it.") from error
    except (*_DAMAGED, nibabel.spatialimages.HeaderDataError) as error:
        raise InputError(f"{path} is damaged: {error}.", "Replace or remove it.") from error
    return _image(path, file, np.ascontiguousarray(pixels.reshape(shape[:3]).transpose(2, 1, 0)))


def without_words(path: Path) -> bytes:
    """Voxels and geometry in a header of our own: names of people stand in descriptions and extensions.

    Where the file gives no directions (both codes 0), none are made up. 64-bit integers become 32-bit ones.

    Raises:
        InputError: as `read_nifti`; or integers need 64 bits, or NIfTI-1 cannot hold it.
        ResourceError: as `read_nifti`.
    """
    read_nifti(path)  # refuses what is no volume, and what claims too much
    nibabel = require("nibabel", extra="imaging", purpose="write NIfTI")
    source = nibabel.load(path)
    voxels = _narrowed(path, np.asanyarray(source.dataobj))
    try:
        made = nibabel.Nifti1Image(voxels, None)
        made.header.set_xyzt_units(*source.header.get_xyzt_units())
        made.header["pixdim"][:4] = source.header["pixdim"][:4]
        for code, fields in _FORMS.items():
            if int(source.header[code]) > 0:
                for name in (code, *fields):
                    made.header[name] = source.header[name]
        return bytes(made.to_bytes())
    except (*_DAMAGED, KeyError, nibabel.spatialimages.HeaderDataError) as error:
        raise InputError(f"{path} cannot be written anew: {type(error).__name__}.", "Check its header.") from error


def _narrowed(path: Path, voxels: NDArray[Any]) -> NDArray[Any]:
    """64-bit integers, which few readers of NIfTI-1 take, as int32."""
    if voxels.dtype.kind not in "ui" or voxels.dtype.itemsize <= 4:
        return voxels
    bounds = np.iinfo(np.int32)
    if voxels.min() < bounds.min or voxels.max() > bounds.max:
        raise InputError(f"{path} holds integers that need 64 bits.", "Store them as int32, or as floats.")
    return voxels.astype(np.int32)


def _check(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if len(shape) < 3 or math.prod(shape[3:]) != 1:
        raise InputError(
            f"{path} has the shape {'×'.join(map(str, shape))}, not that of one volume.", "Give one volume per file."
        )
    if min(shape) < 1:
        raise InputError(f"{path} has no voxels ({'×'.join(map(str, shape))}).", "Replace or remove it.")
    if dtype.kind not in "uif":
        raise InputError(f"{path} holds {dtype}, not gray values.", "Store integers or floating-point numbers.")
    if math.prod(shape) * max(dtype.itemsize, 4) > MAX_ARRAY_BYTES:
        raise InputError(
            f"{path} claims {math.prod(shape) * dtype.itemsize / 1e9:.1f} GB of voxels.",
            f"At most {MAX_ARRAY_BYTES >> 30} GiB are read.",
        )


def _values(file: Any) -> NDArray[Any]:
    proxy = file.dataobj
    slope, intercept = float(proxy.slope), float(proxy.inter)
    stored: NDArray[Any] = np.asanyarray(proxy.get_unscaled())
    if stored.dtype.kind in "ui" and stored.dtype.itemsize <= 4 and (slope, intercept) == (1.0, 0.0):
        return stored.astype(stored.dtype.newbyteorder("="), copy=False)
    with np.errstate(over="ignore"):  # what overflows is refused as infinite
        return (stored * slope + intercept).astype(np.float32)


def _image(path: Path, file: Any, pixels: NDArray[Any]) -> Image:
    valid = None
    if pixels.dtype.kind == "f":
        nan = np.isnan(pixels)
        if np.isinf(pixels).any() or nan.all():
            raise InputError(f"{path} holds infinite values, or nothing but NaN.", "Replace or remove it.")
        if nan.any():
            valid = ~nan
            pixels[nan] = pixels[valid].min()
    geometry = _geometry(path, file)
    mm = _UNITS.get(file.header.get_xyzt_units()[0], 1.0)
    zooms = [abs(float(z)) * mm for z in file.header.get_zooms()[:3]]
    if geometry is not None:  # pixdim may say something else; the affine is what places voxels
        geometry.affine[:3] *= mm
        zooms = [float(length) for length in np.linalg.norm(geometry.affine[:3, [2, 1, 0]], axis=0)]
    if not np.isfinite(zooms).all() or min(zooms) <= 0:
        raise InputError(f"{path} gives voxels of {zooms} mm.", "Correct the file's geometry.")
    slices, rows, columns = pixels.shape
    facts = Facts(
        rows=rows,
        columns=columns,
        frames=slices,
        bits=pixels.dtype.itemsize * 8 if pixels.dtype.kind in "ui" else None,
        spacing=(zooms[1], zooms[0]),
        slice_spacing=zooms[2],
    )
    span = None
    if pixels.dtype.kind in "ui":
        span = (float(np.iinfo(pixels.dtype).min), float(np.iinfo(pixels.dtype).max))
    return Image(pixels, facts, stored_range=span, valid=valid, geometry=geometry, stacked=True)


def _geometry(path: Path, file: Any) -> Geometry | None:
    """None where neither sform nor qform is set: the file then gives spacings, but no directions."""
    if int(file.header["sform_code"]) == 0 and int(file.header["qform_code"]) == 0:
        return None
    affine = _RAS_TO_LPS @ np.asarray(file.affine, np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:  # no volume a voxel could have
        raise InputError(f"{path} has an affine that is none.", "Correct the file's geometry.")
    return Geometry(affine[:, [2, 1, 0, 3]])
