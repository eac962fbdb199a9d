"""Read one file of a plain image format, or one file of arrays."""

from __future__ import annotations

import stat
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.arrays import ArrayFileError, read_npy, read_npz
from edgemed.base.errors import InputError, from_os_error
from edgemed.base.lazy import require
from edgemed.imaging.limits import MAX_ARRAY_BYTES, MAX_PIXELS, MAX_SIDE
from edgemed.recipe.image import Image, plain

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
ARRAY_SUFFIXES = frozenset({".npy", ".npz"})

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
_TIFF_PHOTOMETRIC = 0x0106
_EXIF_ORIENTATION = 0x0112


def read_image(path: Path) -> Image:
    """Read a PNG, JPEG, BMP or TIFF file: gray in uint8, uint16 or float32, colour in uint8.

    Raises:
        InputError: not such a file, damaged, empty, beyond the size limits, several frames, translucent, or turned by
            EXIF (whether the training code turned it too cannot be known).
        ResourceError: the file cannot be opened.
    """
    require_file(path)
    pil = require("PIL.Image", extra="imaging", purpose="read images")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pil.DecompressionBombWarning)
            with pil.open(path, formats=_FORMATS) as image:
                _check_header(image, path)
                pixels = _pixels(image, path)
    except pil.UnidentifiedImageError as error:
        raise InputError(
            f"{path} is not an image that is read: DICOM, NIfTI, PNG, JPEG, BMP or TIFF.", "Remove it or convert it."
        ) from error
    except (pil.DecompressionBombError, pil.DecompressionBombWarning) as error:
        raise InputError(f"{path} claims more pixels than allowed.", "Check the file.") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:  # Pillow's words for damaged files
        if isinstance(error, OSError) and error.errno is not None:
            raise from_os_error(error, path) from error
        raise InputError(f"{path} is damaged: {error}.", "Replace or remove it.") from error
    return plain(pixels)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays of an NPZ file by name, or the one array of an NPY file under the name `""`.

    Raises:
        InputError: not such a file, damaged, holding Python objects, too large, or holding NaN or infinity.
        ResourceError: the file cannot be opened.
    """
    require_file(path)
    try:
        with path.open("rb") as file:
            if _is_zip(file):
                arrays = read_npz(file, limit=MAX_ARRAY_BYTES)
            else:  # the one array has no name
                arrays = {"": read_npy(file, path.stat().st_size, limit=MAX_ARRAY_BYTES)}
    except OSError as error:
        raise from_os_error(error, path) from error
    except ArrayFileError as error:
        raise InputError(f"{path} is not a plain array file: {error}.", "Save it with numpy.save or savez.") from error
    _check_values(arrays, path)
    return arrays


def _is_zip(file: IO[bytes]) -> bool:
    """Whether several arrays are in it: the name does not always tell."""
    magic = file.read(4)
    file.seek(0)
    return magic.startswith(b"PK")


def require_file(path: Path) -> None:
    """Only regular files: a pipe or a device may never end, and has no size to check.

    Raises:
        InputError: it is something else, empty, or not there.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path} is a directory, not an image.", "Give image files.")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is not a regular file.", "Store the image in a file.")
    if status.st_size == 0:
        raise InputError(f"{path} is empty (0 bytes).", "Replace or remove it.")


def _check_header(image: PilImage, path: Path) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise InputError(f"{path} has no pixels ({width}x{height}).", "Replace or remove it.")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise InputError(f"{path} is {width}x{height}, more than allowed.", f"At most {MAX_SIDE} a side.")
    if image.mode in ("LA", "RGBA") and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):
        raise InputError(f"{path} has 16 bits and an alpha channel.", "Store it without the alpha channel.")
    if getattr(image, "n_frames", 1) > 1:
        raise InputError(f"{path} has several frames.", "Give one image per file.")
    if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        raise InputError(f"{path} is turned by an EXIF tag.", "Store it upright, as the model was trained.")


def _pixels(image: PilImage, path: Path) -> NDArray[Any]:
    mode = image.mode
    white_is_zero = image.format == "TIFF" and getattr(image, "tag_v2", {}).get(_TIFF_PHOTOMETRIC) == 0
    if white_is_zero and (mode.startswith("I") or mode == "F"):  # Pillow turns over 8 bits only
        raise InputError(f"{path} stores white as 0, in more than 8 bits.", "Store black as 0 (BlackIsZero).")
    if mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return _opaque(image, path)
    if mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    if mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if mode in ("I", "F"):
        return _wide(np.asarray(image), path)
    if mode in ("P", "RGB", "YCbCr", "CMYK", "LAB", "HSV"):
        return np.asarray(image.convert("RGB"))
    raise InputError(f"{path} has the pixel format {mode}, which is not supported.", "Store it as gray or RGB.")


def _opaque(image: PilImage, path: Path) -> NDArray[Any]:
    rgba = np.asarray(image.convert("RGBA"))
    if (rgba[..., 3] != 255).any():
        raise InputError(f"{path} is partly transparent.", "Store it without an alpha channel.")
    return rgba[..., 0] if image.mode == "LA" else rgba[..., :3]


def _wide(values: NDArray[Any], path: Path) -> NDArray[Any]:
    """Pillow opens some 16-bit gray files as 32-bit integers; true 32-bit ones become float32."""
    if values.dtype.kind == "f":
        _check_values({"": values}, path)
        return values.astype(np.float32)
    if values.min() >= 0 and values.max() <= np.iinfo(np.uint16).max:
        return values.astype(np.uint16)
    return values.astype(np.float32)


def _check_values(arrays: Mapping[str, NDArray[Any]], path: Path) -> None:
    for name, array in arrays.items():
        label = f"{path}{f' [{name}]' if name else ''}"
        if array.size == 0:
            raise InputError(f"{label} has no elements (shape {array.shape}).", "Replace or remove it.")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(f"{label} holds NaN or infinity.", "Replace or remove it.")
