"""Transfer syntaxes of which no real file was found: uncompressed in fragments, and deflated frame by frame."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom.encaps import encapsulate

from edgemed.base.errors import InputError
from edgemed.imaging.dicom import open_dicom
from tests.imaging.make_dicom import dataset

ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"


def deflated(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


def write_fragments(path: Path, pixels: np.ndarray, syntax: str, frames: list[bytes]) -> Path:
    made = dataset(pixels)
    made.file_meta.TransferSyntaxUID = ENCAPSULATED_UNCOMPRESSED  # pydicom writes none that it does not know
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2) for frame in frames])
    made["PixelData"].is_undefined_length = True
    made.save_as(path, enforce_file_format=True)
    path.write_bytes(path.read_bytes().replace(ENCAPSULATED_UNCOMPRESSED.encode(), syntax.encode().ljust(22, b"\0")))
    return path


@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7), (2, 5, 7, 3)])
@pytest.mark.parametrize(("syntax", "pack"), [(ENCAPSULATED_UNCOMPRESSED, bytes), (DEFLATED_FRAMES, deflated)])
def test_frames_are_those_that_were_written(tmp_path: Path, shape: tuple[int, ...], syntax: str, pack: object):
    color = shape[-1] == 3
    kind = np.uint8 if color else np.uint16
    pixels = np.random.default_rng(0).integers(0, 250, shape).astype(kind)
    several = pixels if pixels.ndim - color > 2 else pixels[None]
    frames = [pack(frame.tobytes()) for frame in several]  # type: ignore[operator]
    opened = open_dicom(write_fragments(tmp_path / "a.dcm", pixels, syntax, frames))
    assert opened.transfer_syntax == syntax
    assert opened.frames == len(several)
    for index, frame in enumerate(several):
        np.testing.assert_array_equal(opened.frame(index).pixels, frame)


@pytest.mark.parametrize("syntax", [ENCAPSULATED_UNCOMPRESSED, DEFLATED_FRAMES])
@pytest.mark.parametrize("frame", [b"\0\0", b"\xff" * 40, deflated(b"\0" * 10), deflated(bytes(1 << 20))])
def test_a_frame_of_another_length_is_refused(tmp_path: Path, syntax: str, frame: bytes):
    path = write_fragments(tmp_path / "a.dcm", np.zeros((5, 7), np.uint16), syntax, [frame])
    with pytest.raises(InputError, match=r"a\.dcm is not read"):
        open_dicom(path).frame(0)
