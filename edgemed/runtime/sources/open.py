"""A source by its address: a camera, a network stream, a pipeline, or a file."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl

from edgemed.base.errors import InputError, UsageError
from edgemed.runtime.sources.base import FrameSource
from edgemed.runtime.sources.files import ArraySource, FileSource, Reader
from edgemed.runtime.sources.gstreamer import GstSource
from edgemed.runtime.sources.network import SCHEMES, NetworkSource, without_password
from edgemed.runtime.sources.v4l2 import V4l2Source
from edgemed.runtime.sources.video import SUFFIXES, VideoSource

Kind = Literal["v4l2", "network", "gst", "video", "array", "file"]

_CAMERA_KEYS = ("size", "fps", "format", "buffers")
_CAMERA_HINT = "Write /dev/video0?size=1280x720&fps=30&format=YUYV, or leave parts of it out."


@dataclass(frozen=True)
class Address:
    """Where frames come from.

    Attributes:
        kind: of the source.
        place: a device, an address or a pipeline; a file's path.
        settings: of a camera, as they were written.
    """

    kind: Kind
    place: str
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def live(self) -> bool:
        """Frames come by themselves, and never end."""
        return self.kind in ("v4l2", "network", "gst")

    @property
    def shown(self) -> str:
        """As it may be printed."""
        return without_password(self.place)


def parse_address(text: str) -> Address:
    """Read an address; nothing is opened.

    `/dev/video0` or `v4l2:/dev/video0`, with `?size=640x480&fps=30&format=YUYV`; `rtsp://…` and the other schemes of
    `network.SCHEMES`; `gst:PIPELINE`; a path of a video, of an NPY file, or of an image.

    Raises:
        UsageError: a camera's settings that are none.
    """
    scheme, colon, rest = text.partition(":")
    if colon and scheme == "gst":
        return Address("gst", rest)
    if rest.startswith("//") and scheme.lower() in SCHEMES:
        return Address("network", text)
    place, mark, query = text.removeprefix("v4l2:").partition("?")
    if (colon and scheme == "v4l2") or place.startswith("/dev/video") or _is_device(Path(place)):
        settings = tuple(parse_qsl(query, keep_blank_values=True))
        unknown = [key for key, _ in settings if key not in _CAMERA_KEYS]
        if unknown or (mark and not settings):
            raise UsageError(f"A camera has no setting '{unknown[0] if unknown else query}'.", _CAMERA_HINT)
        return Address("v4l2", place, settings)
    suffix = Path(text).suffix.lower()
    return Address("video" if suffix in SUFFIXES else "array" if suffix == ".npy" else "file", text)


def open_source(
    addresses: Sequence[Address], *, reader: Reader | None = None, live: bool = False, fps: float | None = None
) -> FrameSource:
    """A source that is not opened yet.

    Args:
        addresses: one, or several image files.
        reader: opens image files; without it there are none.
        live: play a file in its own time, as a camera would.
        fps: frames per second of a live file, or of a camera.

    Raises:
        UsageError: several that are not all image files, or settings without meaning.
        InputError: a kind of file that cannot be read here.
    """
    if len(addresses) != 1:
        if not addresses or {address.kind for address in addresses} != {"file"}:
            raise UsageError("Only image files make one stream together.", "Give one video, camera or address.")
        return FileSource([Path(address.place) for address in addresses], _reader(reader), live=live, rate=fps)
    (address,) = addresses
    path = Path(address.place)
    match address.kind:
        case "v4l2":
            return _camera(address, fps)
        case "network":
            return NetworkSource(address.place)
        case "gst":
            return GstSource(address.place, live=True if live else None)
        case "video":
            return VideoSource(path, live=live, rate=fps)
        case "array":
            return ArraySource(path, live=live, rate=fps)
        case "file":
            return FileSource([path], _reader(reader), live=live, rate=fps)


def _reader(reader: Reader | None) -> Reader:
    if reader is None:
        raise InputError("Image files cannot be read here.", "Give a video, an NPY file, or a camera.")
    return reader


def _camera(address: Address, fps: float | None) -> V4l2Source:
    given = dict(address.settings)
    size = None
    try:
        if "size" in given:
            columns, _, rows = given["size"].partition("x")
            size = int(columns), int(rows)
        rate = float(given["fps"]) if "fps" in given else fps
        buffers = int(given.get("buffers", 6))
    except ValueError as error:
        raise UsageError(f"The camera's settings make no sense: {error}.", _CAMERA_HINT) from error
    if size is not None and not all(0 < side <= 1 << 16 for side in size):
        raise UsageError(f"A picture cannot be {given['size']}.", _CAMERA_HINT)
    return V4l2Source(address.place, size=size, fps=rate, pixel_format=given.get("format"), buffers=buffers)


def _is_device(path: Path) -> bool:
    try:
        return stat.S_ISCHR(path.stat().st_mode)
    except (OSError, ValueError):
        return False
