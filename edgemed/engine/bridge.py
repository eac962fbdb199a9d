"""One bridge over tensorrt 8.6 to 11 and tensorrt_rtx: what this copy can do is asked of its names.

Versions are compared in one place only (`strongly_typed`), where a name exists long before it is the way to go.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from collections import deque
from dataclasses import dataclass
from functools import cache, cached_property
from types import ModuleType
from typing import Any, Literal, get_args

from edgemed.base.errors import DeviceStateError, MissingSoftwareError
from edgemed.base.lazy import require
from edgemed.engine.names import NAMES
from edgemed.graph.tensorrt import TYPED_SINCE

Flavour = Literal["tensorrt", "tensorrt_rtx"]
Native = Any  # an object of the bindings; the conformance test, not mypy, knows their names

_log = logging.getLogger(__name__)
_LEVELS = {
    "INTERNAL_ERROR": logging.ERROR,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.INFO,
    "VERBOSE": logging.DEBUG,
}
_KEPT_ERRORS = 50


def installed_flavours() -> tuple[Flavour, ...]:
    """The flavours that Python could import here; nothing is imported."""
    return tuple(name for name in get_args(Flavour) if importlib.util.find_spec(name) is not None)


def load_bridge(flavour: Flavour) -> Bridge:
    """Import one flavour.

    Raises:
        MissingSoftwareError: it, or a library it needs, is not installed.
    """
    if flavour == "tensorrt_rtx":
        return bridge_over(require(flavour, extra="rtx", purpose="compile TensorRT-RTX plans"), flavour)
    try:
        return bridge_over(require(flavour, extra="tensorrt", purpose="build and run TensorRT engines"), flavour)
    except MissingSoftwareError as missing:
        raise MissingSoftwareError(
            missing.what,
            "On a Jetson it is JetPack's (sudo apt install nvidia-jetpack), seen from a virtual environment made with "
            "--system-site-packages; on x86-64 install it with: pip install 'edgemed[tensorrt]'",
        ) from missing


@cache
def bridge_over(trt: ModuleType, flavour: Flavour) -> Bridge:
    """The bridge over an imported module; one per module, because TensorRT keeps the first logger of a process."""
    return Bridge(trt, flavour, ErrorLog())


class ErrorLog:
    """Python side of TensorRT's logger: forwards to `logging`, keeps the last errors of a build.

    Attributes:
        errors: the last ones.
        total: how many there ever were.
    """

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=_KEPT_ERRORS)
        self.total = 0

    def record(self, severity: str, message: str) -> None:
        """Take one message. Never raises: the caller is C++."""
        level = _LEVELS.get(severity, logging.WARNING)
        if level >= logging.ERROR:
            self.errors.append(message)
            self.total += 1
        # an error is part of the exception that follows; said twice on a terminal it only confuses
        _log.log(min(level, logging.INFO), "%s", message)

    def since(self, total: int) -> list[str]:
        """The errors that came after there were `total`, as far as they are kept."""
        new = self.total - total
        return list(self.errors)[-new:] if new > 0 else []


@dataclass(frozen=True, eq=False)
class Bridge:
    """One imported flavour and the questions the rest of the room asks of it."""

    trt: Native
    flavour: Flavour
    log: ErrorLog

    @property
    def version(self) -> str:
        """Version of the bindings, e.g. `"10.3.0"`."""
        return str(self.trt.__version__)

    def has(self, name: str) -> bool:
        """Whether this copy has a name of the table, e.g. `"BuilderFlag.INT8"`."""
        return self.find(name) is not None

    def find(self, name: str) -> Native | None:
        """The object behind a dotted name of the table, or None where this copy lacks it."""
        if name not in NAMES:
            raise KeyError(f"{name} is not in edgemed.engine.names")
        found: Native = self.trt
        for part in name.split("."):
            found = getattr(found, part, None)
            if found is None:
                return None
        return found

    @property
    def strongly_typed(self) -> bool:
        """Whether types come from the graph: always on 11 and RTX, by choice from 10.12 on, never before.

        STRONGLY_TYPED exists from 9.3, but weak typing is the well-trodden way until it was deprecated in 10.12.
        """
        if not self.allows_weak_typing:
            return True
        return self.has("NetworkDefinitionCreationFlag.STRONGLY_TYPED") and self._number >= TYPED_SINCE

    @property
    def allows_weak_typing(self) -> bool:
        """Whether precision can be asked for by flags: up to 10.16."""
        return self.has("BuilderFlag.INT8")

    @property
    def can_cancel(self) -> bool:
        """Whether a running build can be followed and cancelled."""
        return self.has("IProgressMonitor")

    @property
    def targets_other_gpus(self) -> bool:
        """Whether it compiles for compute capabilities that are not in this machine."""
        return self.has("IBuilderConfig.set_compute_capability")

    @cached_property
    def logger(self) -> Native:
        """An `ILogger` of this module that feeds `log`."""
        return _make_logger(self.trt, self.log)

    def builder(self) -> Native:
        """A new `Builder`.

        Raises:
            DeviceStateError: TensorRT found no GPU it can use.
        """
        return self._made("Builder", "its builder")

    def runtime(self) -> Native:
        """A new `Runtime`.

        Raises:
            DeviceStateError: TensorRT found no GPU it can use.
        """
        return self._made("Runtime", "its runtime")

    def _made(self, name: str, what: str) -> Native:
        """An object that TensorRT makes of its logger; the bindings answer NULL with a TypeError."""
        self.log.errors.clear()
        try:
            return getattr(self.trt, name)(self.logger)
        except TypeError as error:
            said = f" It says: {one_line(self.log.errors[0])}" if self.log.errors else ""
            raise DeviceStateError(
                f"{self.flavour} {self.version} cannot start {what}; it needs a GPU that it supports.{said}",
                "Run this on the device itself, and see that its NVIDIA driver works.",
            ) from error

    @property
    def _number(self) -> tuple[int, ...]:
        return version_number(self.version)


def version_number(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: `"10.13.3.9.post1"` is (10, 13, 3, 9)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def one_line(text: str, limit: int = 300) -> str:
    """A message of the library as one sentence part: white space joined, cut at `limit` characters."""
    joined = " ".join(text.split()).rstrip(".")
    return joined if len(joined) <= limit else joined[: limit - 1] + "…"


def _make_logger(trt: Native, log: ErrorLog) -> Native:
    class Logger(trt.ILogger):  # type: ignore[misc]  # the base is imported at run time
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # pybind11 wants its own initialiser called by name

        def log(self, severity: Native, msg: str) -> None:
            log.record(severity.name, msg)

    return Logger()
