"""The CUDA driver by ctypes: its errors, and what pycuda lacks (graphs, events with a handle, registered memory).

Nothing here pushes a context: callers hold `Cuda.current()`. Handles and addresses are plain integers, as they are in
pycuda (`Stream.handle`) and TensorRT, so all three share them. Facts are those of cuda.h (CUDA 13.0).
"""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from edgemed.base.errors import GpuError, GpuMemoryError, MissingSoftwareError

T = TypeVar("T", bound=ctypes.CDLL)
SONAME = "libcuda.so.1"  # what pycuda's extension is linked against, so that both load the same library

OUT_OF_MEMORY = 2
NOT_READY = 600
NOT_SUPPORTED = 801

# cuda.h says of these that the process must end before CUDA can be used again; 999 ("unknown") and the two of a
# context or driver that is gone are not described so, but nothing computed after them can be trusted
STICKY = frozenset({4, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911, 999})

_CAPTURE_THREAD_LOCAL = 1
_EVENT_BLOCKING_SYNC = 1
_EVENT_DISABLE_TIMING = 2
_REGISTER_PORTABLE = 1
_REGISTER_DEVICEMAP = 2
_LARGEST_CODE = 999
_LONGEST_DETAIL = 2000  # characters of a compiler's log


@cache
def library() -> ctypes.CDLL:
    """NVIDIA's driver library; calls through it release the GIL.

    Raises:
        MissingSoftwareError: it is not on this machine.
    """
    return _load(ctypes.CDLL)


@cache
def quick() -> ctypes.PyDLL:
    """The same for calls that do not wait: to give the GIL away is to wait for it, up to 5 ms beside a busy thread."""
    return _load(ctypes.PyDLL)


def _load(kind: type[T]) -> T:
    try:
        return kind(SONAME)
    except OSError as error:
        raise MissingSoftwareError(
            f"NVIDIA's driver library {SONAME} is not on this machine.",
            "On a Jetson it comes with JetPack, elsewhere with the NVIDIA driver; a container needs --runtime nvidia.",
        ) from error


def error_name(code: int) -> str:
    """The driver's own name of an error, e.g. `"CUDA_ERROR_ILLEGAL_ADDRESS"`."""
    return _text("cuGetErrorName", code) or f"CUDA error {code}"


def error_text(code: int) -> str:
    """The driver's own words for an error, e.g. `"an illegal memory access was encountered"`."""
    return _text("cuGetErrorString", code)


def _text(function: str, code: int) -> str:
    text = ctypes.c_char_p()
    if getattr(library(), function)(ctypes.c_int(code), ctypes.byref(text)) or text.value is None:
        return ""
    return text.value.decode(errors="replace")


@cache
def _codes() -> dict[str, int]:
    """Codes by the driver's words: pycuda's exceptions carry the words alone."""
    return {text: code for code in range(_LARGEST_CODE, 0, -1) if (text := error_text(code))}


class Health:
    """Whether this process's context still works. The first sticky error is kept, and `listeners` hear of it."""

    def __init__(self) -> None:
        self.poison: GpuError | None = None
        self.listeners: list[Callable[[GpuError], None]] = []

    def record(self, error: GpuError) -> None:
        """Take a sticky error."""
        if self.poison is None:
            self.poison = error
            for hear in self.listeners:
                hear(error)


health = Health()


def gpu_error(code: int, routine: str, detail: str = "") -> GpuError:
    """The error to raise for a driver's code; a sticky one is remembered in `health`.

    Args:
        code: a `CUresult` other than 0.
        routine: the driver's function that answered it.
        detail: what else was said, e.g. the log of the PTX compiler.
    """
    text = error_text(code)
    what = f"The GPU failed in {routine}: {error_name(code)}{f' ({text})' if text else ''}."
    if detail:
        printable = "".join(letter for letter in detail[:_LONGEST_DETAIL] if letter.isprintable() or letter == "\n")
        what += f" {printable.strip()}"
    if code == OUT_OF_MEMORY:
        return GpuMemoryError(
            what, "Use fewer slots or a smaller batch, or end other programs that hold memory of this GPU."
        )
    if code not in STICKY:
        return GpuError(what, "Run `edgemed doctor`; if it finds nothing wrong, this is a bug of edgemed.")
    error = GpuError(what, "This process cannot use the GPU any more: start it anew.", sticky=True)
    health.record(error)
    return error


_SAID = re.compile(r"(?P<routine>[\w:]+) failed: (?P<text>.*?)(?: - (?P<detail>.*))?", re.DOTALL)


def translate(error: Exception) -> GpuError:
    """The one place where pycuda's exceptions become ours."""
    said = _SAID.fullmatch(str(error))
    if said is None:
        return GpuError(f"The GPU failed: {error}.", "Run `edgemed doctor`.")
    # some of the driver's texts hold " - " themselves
    whole = said["text"] + (f" - {said['detail']}" if said["detail"] else "")
    code = _codes().get(whole) or _codes().get(said["text"])
    if code is None:
        return GpuError(f"The GPU failed in {said['routine']}: {whole}.", "Run `edgemed doctor`.")
    return gpu_error(code, said["routine"], "" if whole in _codes() else said["detail"] or "")


def check(code: int, routine: str) -> None:
    """Raise for a driver's answer other than success.

    Raises:
        GpuError: what the driver said.
    """
    if code:
        raise gpu_error(code, routine)


def function(name: str) -> Callable[..., int] | None:
    """One of the driver's functions, or None where this driver lacks it."""
    found: Callable[..., int] | None = getattr(library(), name, None)
    return found


def call(name: str, *arguments: Any) -> None:
    """Call one of the driver's functions.

    Raises:
        GpuError: it failed, or this driver lacks it.
    """
    routine = function(name)
    check(NOT_SUPPORTED if routine is None else routine(*arguments), name)


def attribute(number: int, device: int) -> int:
    """A `CUdevice_attribute` by number; 0 where this driver does not know it."""
    value = ctypes.c_int()
    failed = library().cuDeviceGetAttribute(ctypes.byref(value), ctypes.c_int(number), ctypes.c_int(device))
    return 0 if failed else value.value


class HandleEvent:
    """An event whose handle other libraries may record, e.g. TensorRT when it has read its inputs.

    Args:
        blocking: a thread that waits sleeps, instead of spinning on the processor.
    """

    __slots__ = ("_query", "_record", "_synchronize", "_value", "_wait", "handle")

    def __init__(self, *, blocking: bool = True) -> None:
        value = ctypes.c_void_p()
        flags = _EVENT_DISABLE_TIMING | (_EVENT_BLOCKING_SYNC if blocking else 0)
        call("cuEventCreate", ctypes.byref(value), ctypes.c_uint(flags))
        self._value = value
        self.handle: int = value.value or 0
        self._query = quick().cuEventQuery
        self._record = quick().cuEventRecord
        self._wait = quick().cuStreamWaitEvent
        self._synchronize = library().cuEventSynchronize

    def record(self, stream: int) -> None:
        """Mark the work put on a stream (a driver handle) so far."""
        check(self._record(self._value, ctypes.c_void_p(stream)), "cuEventRecord")

    def done(self) -> bool:
        """Whether the marked work has ended; true before anything was marked."""
        code = self._query(self._value)
        if code == NOT_READY:
            return False
        check(code, "cuEventQuery")
        return True

    def synchronize(self) -> None:
        """Wait for the marked work, without the GIL."""
        check(self._synchronize(self._value), "cuEventSynchronize")

    def wait_on(self, stream: int) -> None:
        """Make later work of a stream (a driver handle) wait for the marked work."""
        check(self._wait(ctypes.c_void_p(stream), self._value, ctypes.c_uint(0)), "cuStreamWaitEvent")

    def destroy(self) -> None:
        """Doing it twice does no harm."""
        if self.handle:
            self.handle = 0
            value, self._value = self._value, ctypes.c_void_p()  # later uses are refused, not undefined
            call("cuEventDestroy_v2", value)


@dataclass(frozen=True, slots=True)
class NotCaptured:
    """Why work could not be recorded into a graph; the stream is as it was."""

    reason: str


class Graph:
    """Recorded work that one call puts on a stream."""

    __slots__ = ("_exec", "_launch")

    def __init__(self, executable: ctypes.c_void_p) -> None:
        self._exec = executable
        self._launch = quick().cuGraphLaunch

    def launch(self, stream: int) -> None:
        """Put the recorded work on a stream (a driver handle).

        Raises:
            GpuError: the driver refused.
        """
        code = self._launch(self._exec, ctypes.c_void_p(stream))
        if code:
            raise gpu_error(code, "cuGraphLaunch")

    def destroy(self) -> None:
        """Doing it twice does no harm."""
        if self._exec:
            executable, self._exec = self._exec, ctypes.c_void_p()
            call("cuGraphExecDestroy", executable)


def capture(stream: int, work: Callable[[], object]) -> Graph | NotCaptured:
    """Record what `work` puts on a stream, instead of doing it.

    The capture is thread-local: other threads may allocate meanwhile. Whatever goes wrong, the capture is ended, so
    that the stream can be used.

    Args:
        stream: a driver handle, not that of the null stream.
        work: puts copies, kernels and events on the stream, and waits for nothing.

    Raises:
        GpuError: sticky; anything else that the driver refuses is a `NotCaptured`.
    """
    handle = ctypes.c_void_p(stream)
    try:
        call("cuStreamBeginCapture_v2", handle, ctypes.c_int(_CAPTURE_THREAD_LOCAL))
    except GpuError as error:
        return _not_captured(error)
    graph = ctypes.c_void_p()
    try:
        refused, code = _recorded(handle, work, graph)
        if refused is None and not code and graph:
            return _instantiate(graph)
        return _not_captured(refused or gpu_error(code or NOT_SUPPORTED, "cuStreamEndCapture"))
    finally:
        if graph:
            library().cuGraphDestroy(graph)


def _recorded(
    stream: ctypes.c_void_p, work: Callable[[], object], graph: ctypes.c_void_p
) -> tuple[GpuError | None, int]:
    """What the work was refused, and what ending the capture answered."""
    refused = None
    collects = gc.isenabled()
    gc.disable()  # what it finds may be memory of the device, and to free that here would spoil the capture
    try:
        work()
    except GpuError as error:
        refused = error
    finally:
        code = library().cuStreamEndCapture(stream, ctypes.byref(graph))
        if collects:
            gc.enable()
    return refused, code


def _not_captured(error: GpuError) -> NotCaptured:
    if error.sticky:
        raise error
    return NotCaptured(error.what)


def _instantiate(graph: ctypes.c_void_p) -> Graph | NotCaptured:
    executable = ctypes.c_void_p()
    try:
        if function("cuGraphInstantiateWithFlags") is not None:
            call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        else:  # drivers before CUDA 11.4
            call("cuGraphInstantiate_v2", ctypes.byref(executable), graph, None, None, ctypes.c_size_t(0))
    except GpuError as error:
        return _not_captured(error)
    return Graph(executable)


def register(address: int, nbytes: int) -> int:
    """Lock pages of ordinary host memory, so that copies need no staging. Gives its device address, or 0.

    Raises:
        GpuError: the driver refused (attribute 99, HOST_REGISTER_SUPPORTED, tells before).
    """
    flags = _REGISTER_PORTABLE | _REGISTER_DEVICEMAP
    call("cuMemHostRegister_v2", ctypes.c_void_p(address), ctypes.c_size_t(nbytes), ctypes.c_uint(flags))
    mapped = ctypes.c_ulonglong()
    code = library().cuMemHostGetDevicePointer_v2(ctypes.byref(mapped), ctypes.c_void_p(address), ctypes.c_uint(0))
    return 0 if code else mapped.value


def unregister(address: int) -> None:
    """Unlock what `register` locked."""
    call("cuMemHostUnregister", ctypes.c_void_p(address))
