"""Files as frames: images, and the frames of cines, through a reader that is handed in; stacks of arrays by ourselves.

The runtime knows no image format. Who opens files hands in the reader: the command line gives
`imaging.open.open_image`, so that a stream sees exactly the pixels and the facts that calibration and evaluation saw.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgemed.base.arrays import ArrayFileError, open_npy
from edgemed.base.errors import EdgemedError, InputError, UsageError, from_os_error
from edgemed.recipe.image import Facts, Image
from edgemed.runtime.frames import Frame
from edgemed.runtime.sources.base import FrameSource, Pace


class Pictures(Protocol):
    """An opened file of one or more frames; nothing but its header needs to be in memory."""

    @property
    def facts(self) -> Facts: ...

    @property
    def frames(self) -> int: ...

    def frame(self, index: int) -> Image: ...


Reader = Callable[[Path], Pictures]


class FileSource(FrameSource):
    """The frames of image files, one file after the other.

    Args:
        paths: of the files.
        reader: opens one.
        live: play them in their own time, as a camera would.
        rate: frames per second of a live source; `None` takes what each file says (DICOM's Frame Time).
    """

    def __init__(
        self, paths: Sequence[Path], reader: Reader, *, live: bool = False, rate: float | Fraction | None = None
    ) -> None:
        super().__init__(live=live)
        self._paths = tuple(paths)
        self._reader = reader
        self._rate = rate
        if rate is not None:
            Pace(rate, 0)

    def _frames(self) -> Iterator[Frame]:
        due_ns = time.monotonic_ns()
        for path in self._paths:
            file = self._reader(path)
            pace = Pace(self._rate_of(file, path), due_ns) if self.live else None
            for index in range(file.frames):
                if self._closing.is_set():
                    return
                image = _named(file.frame, index, path)
                captured_ns = time.monotonic_ns()
                if pace is not None:
                    captured_ns = pace.due_ns(index)
                    if not self._until(captured_ns):
                        return
                yield self._frame(image.pixels, captured_ns, image=image)
            if pace is not None:
                due_ns = pace.due_ns(file.frames)

    def _rate_of(self, file: Pictures, path: Path) -> float | Fraction:
        if self._rate is not None:
            return self._rate
        interval_ms = file.facts.frame_time_ms
        if interval_ms is None or not interval_ms > 0:
            raise UsageError(f"{path} does not say how fast its frames follow.", "Give a rate: --fps 25.")
        return 1000 / Fraction(str(interval_ms))


def _named(read: Callable[[int], Image], index: int, path: Path) -> Image:
    try:
        return read(index)
    except EdgemedError as error:
        if str(path) in error.what:
            raise
        raise type(error)(f"{path}, frame {index}: {error.what}", error.hint) from error


class ArraySource(FrameSource):
    """The first axis of an NPY file as frames, mapped rather than read: memory does not grow with the file.

    Args:
        path: of an array of 2 or more dimensions.
        live: at a steady rate, as a camera would.
        rate: frames per second, where live.
    """

    def __init__(self, path: Path, *, live: bool = False, rate: float | Fraction | None = None) -> None:
        super().__init__(live=live)
        if live and rate is None:
            raise UsageError(f"{path} does not say how fast its frames follow.", "Give a rate: --fps 25.")
        self._path = path
        self._rate = rate if live else None
        self._stack: NDArray[Any] | None = None

    def _open(self) -> None:
        try:
            stack = open_npy(self._path)
        except OSError as error:
            raise from_os_error(error, self._path) from error
        except ArrayFileError as error:
            raise InputError(f"{self._path} is not a plain array file: {error}.", "Save it with numpy.save.") from error
        if stack.ndim < 2:
            raise InputError(f"{self._path} has the shape {stack.shape}: no frames.", "Stack frames on the first axis.")
        self._stack = stack

    def _frames(self) -> Iterator[Frame]:
        stack = self._stack
        assert stack is not None
        pace = None if self._rate is None else Pace(self._rate, time.monotonic_ns())
        for index in range(len(stack)):
            if pace is not None and not self._until(pace.due_ns(index)):
                return
            if self._closing.is_set():
                return
            captured_ns = time.monotonic_ns() if pace is None else pace.due_ns(index)
            yield self._frame(np.ascontiguousarray(stack[index]), captured_ns, sequence=index)

    def _release(self) -> None:
        self._stack = None
