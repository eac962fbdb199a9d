"""The bytes of one frame become samples, still as they are stored: not masked, not rescaled, colours as they come."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.base.lazy import require
from edgemed.imaging.dicom.codestream import Codestream, jpeg2k_codestream, jpeg2k_header, jpeg_header
from edgemed.imaging.dicom.color import spread_chroma
from edgemed.imaging.dicom.jpeg import decode_whole
from edgemed.imaging.dicom.module import PixelModule
from edgemed.imaging.dicom.syntaxes import Syntax

Bytes = NDArray[np.uint8]

_HINT = "Fetch the file again; it is damaged."


@dataclass(frozen=True)
class Samples:
    """Samples of one frame.

    Attributes:
        pixels: `(rows, columns)` or `(rows, columns, 3)`, native byte order, writable; integers as they are allocated
            for uncompressed data and as the codestream has them for compressed; floats for float pixels.
        precision: bits that the codestream has of each sample; `None` if the stored bits lie below High Bit, with
            others around them.
        is_ybr: colour is Y Cb Cr.
    """

    pixels: NDArray[Any]
    precision: int | None = None
    is_ybr: bool = False


def decode_frame(data: Bytes, module: PixelModule, syntax: Syntax) -> Samples:
    """Decode one compressed frame.

    Args:
        data: all its bytes.
        module: what the header says; a codestream that says otherwise is refused before it is decoded.
        syntax: how it is coded.

    Raises:
        InputError: damaged, or another size than the header's.
    """
    return _DECODERS[syntax.codec](data, module)


def native_bytes(module: PixelModule) -> int:
    """Bytes of one uncompressed frame, one-bit frames rounded up."""
    samples = 2 if module.halved_chroma else module.samples
    return -(-module.pixels * samples * module.allocated // 8)


def native_frame(data: Bytes, module: PixelModule, *, little: bool = True) -> Samples:
    """One uncompressed frame from exactly its bytes; a view of them where possible."""
    if module.is_float:
        pixels = _native_order(data, "f", module.allocated // 8, little)
        return Samples(pixels.reshape(module.rows, module.columns))
    flat = _native_order(data, "u", module.allocated // 8, little)
    is_ybr = module.photometric.startswith("YBR_FULL")
    if module.halved_chroma:
        return Samples(spread_chroma(flat, module.rows, module.columns), is_ybr=is_ybr)
    return Samples(_shaped(flat, module, planar=module.planar), is_ybr=is_ybr)


def unpack_bits(data: Bytes, first: int, module: PixelModule) -> Samples:
    """One frame of one-bit pixels that begins at bit `first`: bits run from the least significant (PS3.5 8.1.1)."""
    bits = np.unpackbits(data, count=first + module.pixels, bitorder="little")[first:]
    return Samples(bits.reshape(module.rows, module.columns))


def _native_order(data: Bytes, kind: str, size: int, little: bool) -> NDArray[Any]:
    values = data.view(f"{'<' if little else '>'}{kind}{size}")
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _shaped(flat: NDArray[Any], module: PixelModule, *, planar: bool) -> NDArray[Any]:
    if not module.is_color:
        return flat.reshape(module.rows, module.columns)
    if planar:
        return flat.reshape(3, module.rows, module.columns).transpose(1, 2, 0)
    return flat.reshape(module.rows, module.columns, 3)


def _encapsulated_native(data: Bytes, module: PixelModule) -> Samples:
    size = native_bytes(module)
    if len(data) not in (size, size + 1):
        raise InputError(f"a frame has {len(data)} bytes instead of {size}.", _HINT)
    if module.allocated == 1:
        return unpack_bits(data, 0, module)
    return native_frame(data[:size], module)


def _deflated_frame(data: Bytes, module: PixelModule) -> Samples:
    size = native_bytes(module)
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = stream.decompress(data.data, size + 2)
    except zlib.error as error:
        raise InputError(f"a deflated frame is damaged: {error}.", _HINT) from error
    return _encapsulated_native(np.frombuffer(bytearray(inflated), np.uint8), module)


def _rle(data: Bytes, module: PixelModule) -> Samples:
    """PS3.5 annex G: one segment for each byte of a sample, the most significant first, sample by sample."""
    if module.allocated not in (8, 16, 32):
        raise InputError(f"its pixels of {module.allocated} bits are RLE coded.", _HINT)
    size = module.allocated // 8
    segments = size * module.samples
    if len(data) < 64 or struct.unpack("<L", data[:4].tobytes())[0] != segments:
        raise InputError(f"an RLE frame does not have its {segments} segments.", _HINT)
    length = module.pixels * segments
    decoded = _call(_codecs().dicomrle_decode, data.tobytes(), f"<u{size}", out=length)
    if len(decoded) != length:
        raise InputError(f"an RLE frame has {len(decoded)} bytes instead of {length}.", _HINT)
    flat = _native_order(np.frombuffer(bytearray(decoded), np.uint8), "u", size, little=True)
    return Samples(_shaped(flat, module, planar=True), is_ybr=module.photometric.startswith("YBR_FULL"))


def _jpeg(data: Bytes, module: PixelModule) -> Samples:
    head = jpeg_header(data.data, ls=False)
    _agree(head, module)
    if not module.is_color:
        return Samples(_jpeg_pixels(data, head, module), head.precision)
    says = "YBR" if module.photometric.startswith("YBR") else "RGB"
    # a lossless process transforms no colours: its components are what the header says (T.81 annex H)
    is_ybr = (says if head.lossless else head.color or says) == "YBR"
    if is_ybr and not head.lossless and head.precision == 8:
        pixels = _jpeg_pixels(data, head, module, colorspace="YCBCR", outcolorspace="RGB")
        return Samples(pixels, head.precision)
    pixels = _jpeg_pixels(data, head, module, colorspace="RGB", outcolorspace="RGB")
    return Samples(pixels, head.precision, is_ybr)


def _jpeg_pixels(data: Bytes, head: Codestream, module: PixelModule, **options: str) -> NDArray[Any]:
    codec = _codecs()

    def decode(stream: bytes | memoryview) -> NDArray[Any]:
        return _checked(_call(codec.jpeg8_decode, stream, **options), module)

    return decode_whole(data.data, head, decode)


def _jpegls(data: Bytes, module: PixelModule) -> Samples:
    head = jpeg_header(data.data, ls=True)
    _agree(head, module)
    pixels = _checked(_call(_codecs().jpegls_decode, data), module)
    return Samples(pixels, head.precision, is_ybr=module.photometric.startswith("YBR_FULL"))


def _jpeg2k(data: Bytes, module: PixelModule) -> Samples:
    stream = jpeg2k_codestream(data.data)
    head = jpeg2k_header(stream)
    _agree(head, module)
    return _bare(_checked(_call(_codecs().jpeg2k_decode, stream, planar=False), module), head, module)


def _htj2k(data: Bytes, module: PixelModule) -> Samples:
    stream = jpeg2k_codestream(data.data)
    head = jpeg2k_header(stream)
    _agree(head, module)
    return _bare(_checked(_call(_codecs().htj2k_decode, stream, planar=False), module), head, module)


def _bare(pixels: NDArray[Any], head: Codestream, module: PixelModule) -> Samples:
    """The bits of a JPEG 2000 sample, whatever its codestream says of their sign: the header decides (PS3.5 8.2.4).

    YBR_RCT and YBR_ICT are part of the codec, which has turned them back to RGB.
    """
    if pixels.dtype.kind == "i":
        pixels = pixels.view(f"u{pixels.dtype.itemsize}")
    return Samples(pixels, head.precision, is_ybr=module.photometric.startswith("YBR_FULL"))


def _agree(head: Codestream, module: PixelModule) -> None:
    """The codestream's own header against the data set's."""
    if (head.rows, head.columns) != (module.rows, module.columns):
        size = f"{head.rows} x {head.columns} pixels instead of {module.rows} x {module.columns}"
        raise InputError(f"a compressed frame has {size}.", _HINT)
    if head.components != module.samples:
        raise InputError(f"a compressed frame has {head.components} components instead of {module.samples}.", _HINT)
    if head.precision > module.allocated or module.is_float:
        raise InputError(f"a compressed frame has {head.precision} bits a sample.", _HINT)


def _checked(pixels: NDArray[Any], module: PixelModule) -> NDArray[Any]:
    shape = (module.rows, module.columns, 3) if module.is_color else (module.rows, module.columns)
    if pixels.shape != shape:
        raise InputError(f"a compressed frame decodes to {pixels.shape} instead of {shape}.", _HINT)
    return pixels


def _codecs() -> ModuleType:
    return require("imagecodecs", extra="imaging", purpose="read compressed DICOM files")


def _call(decode: Callable[..., Any], data: Any, *args: Any, **options: Any) -> Any:
    try:
        return decode(data, *args, **options)
    except MemoryError:
        raise
    except Exception as error:  # each codec has an error of its own
        raise InputError(f"a compressed frame is damaged: {error}.", _HINT) from error


_DECODERS: dict[str, Callable[[Bytes, PixelModule], Samples]] = {
    "native": _encapsulated_native,
    "deflated frames": _deflated_frame,
    "rle": _rle,
    "jpeg": _jpeg,
    "jpegls": _jpegls,
    "jpeg2k": _jpeg2k,
    "htj2k": _htj2k,
}
