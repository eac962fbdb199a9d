"""Video files, decoded by FFmpeg through PyAV, as fast as they are taken or in their own time."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from edgemed.base.errors import InputError, os_errors_as_resource
from edgemed.runtime.frames import Frame
from edgemed.runtime.sources.base import SECOND, FrameSource, checked_rate
from edgemed.runtime.sources.ffmpeg import (
    CONTAINERS,
    Converter,
    decoded,
    flushed,
    open_container,
    reason,
    require_av,
    video_stream,
)

SUFFIXES = frozenset({
    ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts",
    ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv",
})  # fmt: skip

# nothing but this one file is ever opened, whatever stands in it
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
_USUAL_RATE = Fraction(25)  # where a stream of pictures says nothing at all


class VideoSource(FrameSource):
    """The pictures of a video file, in the order in which they are shown.

    Damaged pictures are left out, and counted as lost. Gray video stays gray; everything else becomes RGB.

    Args:
        path: of the file.
        live: play it in its own time, as a camera would.
        rate: frames per second of a live source; `None` takes the times in the file.
    """

    def __init__(self, path: Path, *, live: bool = False, rate: float | Fraction | None = None) -> None:
        super().__init__(live=live)
        self._path = path
        self._rate = None if rate is None else checked_rate(rate)
        self._container: Any = None
        self._stream: Any = None
        self._ffmpeg_error: type[Exception] = Exception

    def _open(self) -> None:
        self._ffmpeg_error = require_av().error.FFmpegError
        what = str(self._path)
        with os_errors_as_resource(self._path):
            self._require_regular()
        try:
            self._container = open_container(f"file:{self._path}", _OPTIONS, None, what)
        except OSError as error:  # it can be opened, as was seen: so this is FFmpeg's word for damage
            raise InputError(f"{what} is damaged: {reason(error)}.", "Fetch it again.") from error
        self._stream = video_stream(self._container, str(self._path))
        self._stream.thread_type = "AUTO"

    def _require_regular(self) -> None:
        # without O_NONBLOCK, opening a pipe waits for somebody to write
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        os.close(descriptor)
        if not regular:
            raise InputError(f"{self._path} is not a regular file.", "Store the video in a file.")

    def _frames(self) -> Iterator[Frame]:
        start_ns = time.monotonic_ns()
        converter = Converter(str(self._path))
        clock = _Clock(self._rate, self._stream)
        for sequence, picture in enumerate(self._pictures()):
            if self._closing.is_set():
                return
            pixels = converter.pixels(picture)
            if pixels is None:
                self._lost += 1
                continue
            captured_ns = time.monotonic_ns()
            if self.live:
                captured_ns = start_ns + clock.shown_ns(picture)
                if not self._until(captured_ns):
                    return
            yield self._frame(pixels, captured_ns, sequence=sequence)
        if not self._ids:
            raise InputError(f"{self._path} holds no picture that can be decoded.", "Replace or remove it.")

    def _pictures(self) -> Iterator[Any]:
        """In the order of their times; `None` for what is damaged. Behind a break nothing can be found any more."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except self._ffmpeg_error:
                yield None
                yield from flushed(self._stream)
                return
            if packet is None:
                return
            yield from decoded(packet)

    def _release(self) -> None:
        container, self._container, self._stream = self._container, None, None
        if container is not None:
            container.close()


class _Clock:
    """When pictures are shown, from the first one on; times that run backwards or leap are set right."""

    _LEAP = 10 * SECOND  # a longer still is no still but damage

    def __init__(self, rate: Fraction | None, stream: Any) -> None:
        self._rate = rate
        self._usual_ns = int(SECOND / (rate or stream.average_rate or stream.guessed_rate or _USUAL_RATE))
        self._first: int | None = None
        self._last_ns = 0
        self._number = 0

    def shown_ns(self, picture: Any) -> int:
        number, self._number = self._number, self._number + 1
        if self._rate is not None:
            return number * SECOND * self._rate.denominator // self._rate.numerator
        if picture.pts is None or picture.time_base is None:
            shown_ns = self._last_ns + (self._usual_ns if number else 0)
        else:
            if self._first is None:
                self._first = picture.pts - int(Fraction(self._last_ns, SECOND) / picture.time_base)
            shown_ns = int((picture.pts - self._first) * picture.time_base * SECOND)
        if number and not 0 <= shown_ns - self._last_ns <= self._LEAP:
            shown_ns = self._last_ns + self._usual_ns
            self._first = None  # counted anew from here
        self._last_ns = shown_ns
        return shown_ns
