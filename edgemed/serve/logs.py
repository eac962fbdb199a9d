"""Logs of the daemon: one JSON object a line, or a line of text. They go to stderr, which journald or Docker keeps.

No name of a patient may get there. Our own messages hold none, by rule; libraries below us print what they please
(pynetdicom prints data sets), so nothing of theirs below a warning is let through, and of exceptions only the type and
the places in the code, never the text, unless it is one of ours.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import traceback
import warnings
from pathlib import Path
from typing import Final, TextIO

from edgemed.base.errors import EdgemedError
from edgemed.base.text import printable
from edgemed.serve.clock import stamp
from edgemed.serve.config.daemon import LogSection

log = logging.getLogger(__name__)

_UID: Final = re.compile(r"\b(?:[0-2](?:\.\d{1,40}){5,}|2\.25\.\d{10,})\b")
_OURS: Final = "edgemed"
_LONGEST: Final = 4096
_PLACES: Final = 8
_HERE: Final = str(Path(__file__).parents[1])


def configure(section: LogSection, stream: TextIO | None = None) -> logging.Handler:
    """Send all logs of this process to one place."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if section.format == "json" else Lines())
    handler.addFilter(_only_ours_in_detail)
    root = logging.getLogger()
    for other in list(root.handlers):
        root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(section.level.upper())
    for name in ("pynetdicom", "pydicom", "uvicorn", "uvicorn.access", "httpx", "hl7"):
        logging.getLogger(name).setLevel(logging.ERROR)
        logging.getLogger(name).propagate = True
    warnings.showwarning = _told
    threading.excepthook = _ended
    # it writes past us, and a line for everybody who knocks without TLS; to be set before it is imported
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    return handler


def _ended(of: threading.ExceptHookArgs) -> None:
    """A thread that an exception has ended, told as everything else is: Python would print what it quotes."""
    if of.exc_value is not None and not isinstance(of.exc_value, SystemExit):
        name = of.thread.name if of.thread is not None else "unknown"
        log.error("the thread %s was ended by an error", name, exc_info=of.exc_value)


def _told(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: object = None,
) -> None:
    """A warning of a library by its kind and place: its text may quote a patient's name (highdicom's does)."""
    del message, file, line
    log.debug("%s at %s:%d", category.__name__, filename.rpartition("/")[2], lineno)


def _only_ours_in_detail(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] == _OURS


class JsonLines(logging.Formatter):
    """`{"at": …, "level": …, "logger": …, "text": …}`, with `error` and `trace` where an exception is told."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "at": stamp(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "thread": record.threadName,
            "text": text_of(record),
        }
        if record.exc_info and record.exc_info[1] is not None:
            fields |= {"error": error_of(record.exc_info[1]), "trace": places_of(record.exc_info[1])}
        return json.dumps(fields, ensure_ascii=False)


class Lines(logging.Formatter):
    """The same for people."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{stamp()} {record.levelname.lower():7} {record.name}: {text_of(record)}"
        if record.exc_info and record.exc_info[1] is not None:
            line += f" [{error_of(record.exc_info[1])} at {places_of(record.exc_info[1])}]"
        return line


def text_of(record: logging.LogRecord) -> str:
    """The message, on one line and without UIDs. What a library says is its own words alone: no values put in."""
    ours = record.name.partition(".")[0] == _OURS
    text = record.getMessage() if ours else str(record.msg)
    return scrub(printable(text))[:_LONGEST]


def scrub(text: str) -> str:
    """Without anything that looks like a UID: a second net, below the rule that messages hold none."""
    return _UID.sub("[uid]", text)


def error_of(error: BaseException) -> str:
    """An exception without what it might quote from an image."""
    if isinstance(error, EdgemedError):
        return scrub(printable(str(error)))
    return type(error).__name__


def places_of(error: BaseException) -> str:
    """Where it happened: files and lines, no values. Of libraries between our own places, the last one alone."""
    every = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in every[:-1] if frame.filename.startswith(_HERE)]
    frames = [*ours, *every[-1:]][-_PLACES:]
    return " > ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames)
