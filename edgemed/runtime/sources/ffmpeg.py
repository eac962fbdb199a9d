"""What video files and network streams share: opening by PyAV, decoding, and what FFmpeg may not do.

PyAV's wheels carry FFmpeg with x264 and x265, which are under the GPL. So no extra of edgemed asks for it: it is used
where the user has installed it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError, MissingSoftwareError
from edgemed.base.text import printable

CONTAINERS: Final = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg,mxf,dv,mjpeg,h264,hevc,m4v"
)
"""Demuxers that may open a file: those that play what is in it. Playlists name other files and hosts, and are none."""

MOST_PIXELS: Final = 1 << 26  # 8192 x 8192

_GRAY = {  # what is decoded to values of its own instead of RGB
    "gray": "gray", "grayf32le": None, "gray9le": "gray16le", "gray10le": "gray16le", "gray12le": "gray16le",
    "gray14le": "gray16le", "gray16le": "gray16le", "gray16be": "gray16le",
}  # fmt: skip


def require_av() -> ModuleType:
    """PyAV.

    Raises:
        MissingSoftwareError: it is not installed, or does not load.
    """
    try:
        import av
    except ImportError as error:
        raise MissingSoftwareError(
            f"PyAV is needed to read video, and {'is not installed' if error.name == 'av' else f'fails: {error}'}.",
            "On Jetson and Debian: apt install python3-av; elsewhere: pip install av. Its wheels hold GPL code (x264, "
            "x265): look at that before you ship them.",
        ) from error
    av.logging.set_level(av.logging.PANIC)  # FFmpeg prints on stderr otherwise; errors reach us as exceptions anyway
    return av


def open_container(name: str, options: Mapping[str, str], timeout: tuple[float, float] | None, what: str) -> Any:
    """Open a file or an address.

    Raises:
        InputError: it is no video that is read; `what` names it.
        OSError: the system, or the other side, refused.
    """
    av = require_av()
    try:
        return av.open(name, mode="r", options=dict(options), timeout=timeout, metadata_errors="replace")
    except av.error.FFmpegError as error:
        if isinstance(error, OSError) and not isinstance(error, ValueError):
            raise
        if isinstance(error, av.error.ExitError):  # FFmpeg's word for having been interrupted, by the timeout
            raise TimeoutError("no answer") from error
        if isinstance(error, (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)):
            raise PermissionError(reason(error)) from error
        raise InputError(f"{what} is no video that is read: {reason(error)}.", "Check it with ffprobe.") from error


def video_stream(container: Any, what: str) -> Any:
    """The first stream of pictures, ready to be decoded.

    Raises:
        InputError: there is none, no decoder for it, or pictures beyond the limit.
    """
    if not container.streams.video:
        raise InputError(f"{what} holds no pictures.", "Give a video.")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise InputError(f"{what} is in a codec that FFmpeg here cannot decode.", "Store it as H.264, for example.")
    columns, rows = stream.codec_context.width, stream.codec_context.height
    if columns * rows > MOST_PIXELS:
        raise InputError(f"{what} claims pictures of {columns}x{rows}, more than allowed.", "Check the file.")
    stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}  # also where the size changes on the way
    return stream


def decoded(packet: Any) -> Iterator[Any]:
    """Pictures that a packet completes; `None` for each that is damaged."""
    av = require_av()
    try:
        for picture in packet.decode():
            yield None if picture.is_corrupt else picture
    except av.error.FFmpegError:
        yield None


def flushed(stream: Any) -> Iterator[Any]:
    """What the decoder still holds, as `decoded`."""
    av = require_av()
    try:
        for picture in stream.decode(None):
            yield None if picture.is_corrupt else picture
    except av.error.FFmpegError:
        yield None


class Converter:
    """Pictures of a stream as arrays.

    Args:
        what: the file or address, for errors.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._av = require_av()
        self._graph: Any = None
        self._graph_for: tuple[Any, ...] = ()

    def pixels(self, picture: Any | None) -> NDArray[Any] | None:
        """Of what `decoded` gave: `None` where it is damaged, or describes itself as something that cannot be.

        Gray of 9 to 14 bits is widened to 16, so that white is 65535. Luma and chroma become RGB as FFmpeg's tools and
        OpenCV do it, which is also how pictures of a training set are taken from a video: within 3 levels of the exact
        matrix, in an eighth of the time.

        Returns:
            `(rows, columns)` in uint8 or uint16 of gray pictures, `(rows, columns, 3)` RGB in uint8 of others.

        Raises:
            InputError: the picture is turned by metadata (whether the training code turned it too cannot be known).
        """
        if picture is None:
            return None
        if getattr(picture, "rotation", 0):
            raise InputError(f"{self._what} is turned by metadata.", "Store it upright, as the model was trained.")
        gray = _GRAY.get(picture.format.name)
        try:
            if gray is not None:
                return np.ascontiguousarray(picture.to_ndarray(format=gray))
            return np.ascontiguousarray(self._rgb(picture))
        except (self._av.error.FFmpegError, ValueError):
            return None

    def _rgb(self, picture: Any) -> NDArray[Any]:
        """By FFmpeg's filter, which looks at what a picture says of its colours; PyAV 10 to 15 by themselves do not."""
        tags = getattr(picture, "colorspace", None), getattr(picture, "color_range", None)
        kind = picture.width, picture.height, picture.format.name, *tags
        if kind != self._graph_for:
            self._graph, self._graph_for = self._build(picture), kind
        self._graph.push(picture)
        pixels: NDArray[Any] = self._graph.pull().to_ndarray()
        return pixels

    def _build(self, picture: Any) -> Any:
        graph = self._av.filter.Graph()
        size = {"width": picture.width, "height": picture.height}
        steps = [
            graph.add_buffer(**size, format=picture.format, time_base=picture.time_base),
            graph.add("scale", "in_color_matrix=auto:flags=bicubic"),
            graph.add("format", "pix_fmts=rgb24"),
            graph.add("buffersink"),
        ]
        for one, next_ in pairwise(steps):
            one.link_to(next_)
        graph.configure()
        return graph


def reason(error: Exception) -> str:
    """FFmpeg's words, without the address, which may hold a password."""
    return printable(str(getattr(error, "strerror", None) or error)).rstrip(".")
