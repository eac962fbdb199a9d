"""What TensorRT reports about the calls of one object: an `IErrorRecorder` that writes into a book of ours.

An object with a recorder tells its errors there and not to the logger, so each object has its own: an error of one
context is never laid to another that runs beside it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from edgemed.engine.bridge import Native

_KEPT = 32  # an error has causes, reported first; a storm of them tells no more


@dataclass(frozen=True)
class Reported:
    """One error: name of its `ErrorCodeTRT`, and what TensorRT says."""

    code: str
    message: str


class ErrorBook:
    """Errors since they were last taken, the first ones kept. Any thread may write and read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._errors: list[Reported] = []
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._errors)

    @property
    def overflowed(self) -> bool:
        """Whether errors were dropped because the book was full."""
        return self._dropped > 0

    def report(self, code: str, message: str) -> None:
        """Write an error down, or count it where the book is full."""
        with self._lock:
            if len(self._errors) < _KEPT:
                self._errors.append(Reported(code, message))
            else:
                self._dropped += 1

    def at(self, index: int) -> Reported | None:
        """One error, or None where there is none of that number."""
        with self._lock:
            return self._errors[index] if 0 <= index < len(self._errors) else None

    def take(self) -> tuple[Reported, ...]:
        """All of them; the book is empty afterwards."""
        with self._lock:
            taken, self._errors, self._dropped = tuple(self._errors), [], 0
        return taken


def make_recorder(trt: Native, book: ErrorBook) -> Native:
    """An `IErrorRecorder` of this module that feeds `book`. It must outlive every object that it is set on.

    The answers to numbers out of range are the ones that NvInferRuntimeBase.h asks for.
    """

    class Recorder(trt.IErrorRecorder):  # type: ignore[misc]  # the base is imported at run time
        def __init__(self) -> None:
            trt.IErrorRecorder.__init__(self)

        def get_num_errors(self) -> int:  # the name that the bindings' C++ side looks up
            return len(book)

        def num_errors(self) -> int:  # the name that they document
            return len(book)

        def get_error_code(self, index: int) -> Native:
            found, members = book.at(index), trt.ErrorCodeTRT.__members__
            return members.get("" if found is None else found.code, trt.ErrorCodeTRT.UNSPECIFIED_ERROR)

        def get_error_desc(self, index: int) -> str:
            found = book.at(index)
            return "" if found is None else found.message

        def has_overflowed(self) -> bool:
            return book.overflowed

        def clear(self) -> None:
            book.take()

        def report_error(self, code: Native, description: str) -> bool:
            book.report(code.name, description)
            return True  # no error of an inference is one that it may go on after

    return Recorder()
