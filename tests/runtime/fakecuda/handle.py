"""What a test steers and reads of the host-only libcuda, in its own process. (Child processes: see `control.c`.)"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from tests.runtime import real_driver
from tests.runtime.fakecuda import fetch

OpKind = Literal["copy-in", "copy-out", "copy", "fill", "kernel"]
KINDS: tuple[OpKind, ...] = ("copy-in", "copy-out", "copy", "fill", "kernel")
_LIVE = ("device", "pinned", "registered", "streams", "events", "graphs", "execs", "modules", "pushed")


@dataclass(frozen=True)
class Traced:
    """A call (it starts and ends at once, `who` is the thread), or work of a stream (`who` is its number)."""

    start_ns: int
    end_ns: int
    name: str
    who: int
    bytes: int
    stream: int


class FakeCudaHandle:
    """One per process: the shim, active under pycuda."""

    def __init__(self, fake: fetch.FakeCuda) -> None:
        self.files = fake
        self._library = fake.activate()
        self._library.fakecuda_get.restype = ctypes.c_longlong
        self._library.fakecuda_access.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
        self._library.fakecuda_set.argtypes = (ctypes.c_char_p, ctypes.c_longlong)
        for name in ("fakecuda_races", "fakecuda_trace"):
            getattr(self._library, name).restype = ctypes.c_size_t
            getattr(self._library, name).argtypes = (ctypes.c_char_p, ctypes.c_size_t)
        self.kernels(fake.kernels)
        self._baseline = self._live()
        self.forgiven = False

    def fresh(self) -> None:
        """End faults and hangs, forget calls, races and settings; what is alive now is not counted as a leak."""
        self._library.fakecuda_reset()
        self._baseline = self._live()
        self.forgiven = False

    def set(self, **values: int) -> None:
        """Settings, by the names in `control.c`: `sm`, `memory`, `integrated`, `map_host`, `devices`, `trace`, …"""
        for name, value in values.items():
            self._checked(self._library.fakecuda_set(name.encode(), value), name)

    def delay(self, kind: OpKind | None = None, *, us: int = 0, mbps: int = 0) -> None:
        """How long one operation of a kind takes (of every kind): `us`, and its bytes at `mbps` MB/s (0: no time)."""
        for each in (kind,) if kind else KINDS:
            self._library.fakecuda_set(f"delay_us.{each}".encode(), us)
            self._library.fakecuda_set(f"mbps.{each}".encode(), mbps)

    def fail(self, name: str, code: int, *, nth: int = 1, sticky: bool = False) -> None:
        """Have the n-th call of a driver function from now answer `code`; sticky: every later call too."""
        routine, number = self._known(name).encode(), ctypes.c_long(nth)
        self._checked(self._library.fakecuda_fail(routine, number, code, int(sticky)), name)

    def fail_op(self, kind: OpKind, code: int, *, nth: int = 1) -> None:
        """Have the n-th operation of a kind from now fail on the device: later calls learn it, nothing more is done."""
        self._checked(self._library.fakecuda_fail_op(kind.encode(), ctypes.c_long(nth), code), kind)

    def hang(self, kind: OpKind, *, nth: int = 1) -> None:
        """Have the n-th operation of a kind from now not end, until `release` or the end of the test."""
        self._checked(self._library.fakecuda_hang(kind.encode(), ctypes.c_long(nth)), kind)

    def release(self) -> None:
        """End hangs: the operations are done."""
        self._library.fakecuda_release()

    def kernels(self, library: Path) -> None:
        """Look for host twins of kernels in a shared library, too."""
        self._checked(self._library.fakecuda_kernels(str(library).encode()), str(library))

    def reads(self, array: NDArray[Any]) -> None:
        """Tell the race checker that the host reads an array now."""
        self._library.fakecuda_access(array.ctypes.data, array.nbytes, 0)

    def writes(self, array: NDArray[Any]) -> None:
        """Tell the race checker that the host writes an array now."""
        self._library.fakecuda_access(array.ctypes.data, array.nbytes, 1)

    def races(self) -> list[str]:
        """What was found unordered."""
        return self._text(self._library.fakecuda_races)

    def take_races(self) -> list[str]:
        """The same, and they are forgotten."""
        races = self.races()
        self._library.fakecuda_forget_races()
        return races

    def forgive(self) -> None:
        """What this test races and leaves behind is meant to be: after a sticky error nothing can be freed."""
        self.forgiven = True

    def calls(self, name: str = "") -> int:
        """How often a driver function was called (any, without a name); contexts pushed and popped do not count."""
        return int(self._library.fakecuda_get(f"calls.{self._known(name)}".encode()))

    def trace(self) -> list[Traced]:
        """Calls and operations since `set(trace=1)`, in order of their ends; the last 65,536."""
        lines = (line.split() for line in self._text(self._library.fakecuda_trace))
        return [Traced(int(a), int(b), name, int(c), int(d), int(e)) for a, b, name, c, d, e in lines]

    def live(self) -> dict[str, int]:
        """Bytes (device, pinned, registered) and handles that exist and did not at the start of the test."""
        now = self._live()
        return {name: now[name] - self._baseline[name] for name in _LIVE if now[name] != self._baseline[name]}

    def _live(self) -> dict[str, int]:
        return {name: int(self._library.fakecuda_get(f"live.{name}".encode())) for name in _LIVE}

    def _text(self, read: Callable[[Any, int], int]) -> list[str]:
        room = 1 << 16
        while True:
            buffer = ctypes.create_string_buffer(room)
            needed = read(buffer, room)
            if needed < room:
                return buffer.value.decode().splitlines()
            room = 2 * needed

    def _known(self, name: str) -> str:
        if name and not any(hasattr(self._library, name + version) for version in ("", "_v2")):
            raise ValueError(f"the shim does not take {name}")
        return name

    def _checked(self, failed: int, name: str) -> None:
        if failed:
            raise ValueError(f"the shim does not take {name}")


@cache
def activate() -> FakeCudaHandle:
    """The shim of this process; fetched and built first, where the cache lacks it."""
    return FakeCudaHandle(fetch.ensure())


def environment(
    settings: Mapping[str, int] = {}, *, fail: str = "", ops: str = "", kernels: tuple[Path, ...] = ()
) -> dict[str, str]:
    """Variables that steer the shim of a child process from its start; the formats are in `control.c`."""
    chosen = ",".join(f"{name}={value}" for name, value in settings.items())
    libraries = ":".join(str(path) for path in (fetch.ensure().kernels, *kernels))
    return {
        "FAKECUDA_SET": chosen,
        "FAKECUDA_FAIL": fail,
        "FAKECUDA_OPS": ops,
        "FAKECUDA_KERNELS": libraries,
    }


def listing(source: Path) -> bytes:
    """What to load for the kernels of a source file: their PTX on a real driver, and their names alone for the shim."""
    if real_driver.wanted():
        return real_driver.compile_ptx(source)
    names = re.findall(r'extern "C" __global__ void (\w+)\(', source.read_text(encoding="utf-8"))
    return b".version 8.0\n" + b"".join(b".visible .entry %s(\n)\n" % name.encode() for name in names)
