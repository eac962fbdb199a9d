"""Runs in the worker: a Runner that answers 3x + 1, until it is told to fail in one of many ways.

What it is told lies in a small shared file of int64: the fault of the next inference, and that of the next load. Each
is taken once, so a rebuilt worker is sound.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import GpuError, GpuMemoryError, InputError
from edgemed.base.runner import RunnerInfo, RunnerSpecs, TensorSpec
from edgemed.base.spans import SpanLog
from edgemed.runtime.contained.protocol import Kind, Message, encode
from edgemed.runtime.runner_lane import RunnerLane

FAULTS = (
    "sticky", "exception", "memory", "input", "hang", "hang_holding_gil", "kill", "segv", "abort", "exit",
    "system_exit", "stop", "rubbish", "empty", "stale", "wrong_slot", "twice", "unasked_kind", "shapes",
    "stages", "close", "silence", "poison", "python_memory", "missing_output", "misshapen", "loud", "drift",
)  # fmt: skip
LOADS = ("wrong", "slow", "refused", "gpu_load", "die_loading", "lie", "too_large", "wrong_once", "gpu_golden")
AT_INFER, AT_LOAD = 0, 1
FOREVER_S = 1000
_SLEEP_US = 1_000_000_000


class Control:
    """The shared file."""

    def __init__(self, path: Path | str) -> None:
        if not Path(path).exists():
            np.zeros(4, np.int64).tofile(path)
        self.words = np.memmap(path, np.int64, "r+", shape=(4,))

    def tell(self, fault: str) -> None:
        """Have the next inference, or the next load, fail so."""
        if fault in FAULTS:
            self.words[AT_INFER] = FAULTS.index(fault) + 1
        else:
            self.words[AT_LOAD] = LOADS.index(fault) + 1

    def take(self, place: int) -> str:
        code = int(self.words[place])
        if code == 0:
            return ""
        self.words[place] = 0
        return (FAULTS if place == AT_INFER else LOADS)[code - 1]


def answer(x: NDArray[Any]) -> NDArray[Any]:
    """What is right."""
    return x * np.float32(3) + np.float32(1)


class FaultyRunner:
    """See above.

    Args:
        control: path of the shared file.
        shape: of x and y; `None` in it varies.
        work_us: how long an inference takes.
    """

    def __init__(self, control: str | None, shape: list[int | None], work_us: int, backend: str) -> None:
        self._control = Control(control) if control else None
        self._specs = RunnerSpecs(
            (TensorSpec("x", "float32", tuple(shape)),), (TensorSpec("y", "float32", tuple(shape)),)
        )
        self._work_us = work_us
        self._backend = backend
        self._wrong = 0

    @property
    def specs(self) -> RunnerSpecs:
        return self._specs

    @property
    def info(self) -> RunnerInfo:
        return RunnerInfo(self._backend, "fp32", "none")

    def __enter__(self) -> FaultyRunner:
        fault = self._control.take(AT_LOAD) if self._control else ""
        if fault == "wrong":
            self._wrong = 1 << 60
        elif fault == "wrong_once":
            self._wrong = 1
        elif fault == "slow":
            time.sleep(FOREVER_S)
        elif fault == "refused":
            raise InputError("The model is no model.", "Build it anew.")
        elif fault == "gpu_load":
            raise GpuError("cuInit failed.", "Try again.")
        elif fault == "die_loading":
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault == "lie":
            one = TensorSpec("x", "float32", (1, 2))
            self._specs = RunnerSpecs((one,), (one,))
        elif fault == "too_large":
            huge = (1 << 20, 1 << 20)
            self._specs = RunnerSpecs((TensorSpec("x", "float32", huge),), (TensorSpec("y", "float32", huge),))
        elif fault == "gpu_golden":
            self._fail_next = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._wrong:  # what is broken cannot be freed
            time.sleep(FOREVER_S)

    def infer(
        self, feeds: Mapping[str, NDArray[Any]], *, frame: int | None = None, spans: SpanLog | None = None
    ) -> dict[str, NDArray[Any]]:
        spans = SpanLog() if spans is None else spans
        if getattr(self, "_fail_next", False):
            raise GpuMemoryError("No memory for the golden vectors.", "Use less.")
        with spans.record("compute", frame):
            y = answer(feeds["x"])
            if self._work_us:
                time.sleep(self._work_us / 1e6)
            if self._wrong > 0:
                self._wrong -= 1
                y = y + np.float32(1)
            fault = self._control.take(AT_INFER) if self._control else ""
            return self._fail(fault, y) if fault else {"y": y}

    def _fail(self, fault: str, y: NDArray[Any]) -> dict[str, NDArray[Any]]:
        self._wrong = 1 << 60  # whatever is computed after the first sign of a fault is wrong
        if fault in ("exception", "memory", "input", "python_memory", "missing_output", "misshapen", "loud"):
            self._wrong = 0  # these leave the process sound
        result: dict[str, NDArray[Any]] | None = getattr(self, f"_{fault}")(y)
        return {"y": y} if result is None else result

    def _sticky(self, y: NDArray[Any]) -> None:
        raise GpuError("an illegal memory access was encountered.", "Restart.", sticky=True)

    def _exception(self, y: NDArray[Any]) -> None:
        raise ValueError("a bug of the Runner")

    def _memory(self, y: NDArray[Any]) -> None:
        raise GpuMemoryError("The GPU has no memory left.", "Use less.")

    def _python_memory(self, y: NDArray[Any]) -> None:
        raise MemoryError

    def _input(self, y: NDArray[Any]) -> None:
        raise InputError("This frame is no frame.", "Give another.")

    def _hang(self, y: NDArray[Any]) -> None:
        time.sleep(FOREVER_S)

    def _hang_holding_gil(self, y: NDArray[Any]) -> None:
        ctypes.PyDLL(None).usleep(_SLEEP_US)  # PyDLL keeps the GIL

    def _kill(self, y: NDArray[Any]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _segv(self, y: NDArray[Any]) -> None:
        ctypes.string_at(8)

    def _abort(self, y: NDArray[Any]) -> None:
        os.abort()

    def _exit(self, y: NDArray[Any]) -> None:
        os._exit(0)

    def _system_exit(self, y: NDArray[Any]) -> None:
        sys.exit(0)

    def _stop(self, y: NDArray[Any]) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def _poison(self, y: NDArray[Any]) -> None:
        """An answer that looks whole, from a process that is already broken, and then the crash."""
        y += np.float32(1)
        os.kill(os.getpid(), signal.SIGBUS)

    def _drift(self, y: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Wrong from now on, without any sign."""
        return {"y": y + np.float32(1)}

    def _loud(self, y: NDArray[Any]) -> None:
        sys.stdout.write("x" * 200_000 + "\n\x1b[2J\x9b31m\tlast\u202e words\n")

    def _missing_output(self, y: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return {}

    def _misshapen(self, y: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return {"y": y[..., :-1]}

    # what a worker with damaged memory might send
    def _send(self, data: bytes) -> None:
        os.write(int(sys.argv[1]), data)

    def _message(self, kind: Kind, **others: Any) -> bytes:
        generation = int(others.pop("generation", self._generation()))
        return encode(Message(kind, generation, **others))

    def _generation(self) -> int:
        worker = sys.modules["__main__"].Worker  # type: ignore[attr-defined]
        return next(o._generation for o in gc.get_objects() if isinstance(o, worker))

    def _rubbish(self, y: NDArray[Any]) -> None:
        self._send(np.random.default_rng().bytes(40))

    def _empty(self, y: NDArray[Any]) -> None:
        self._send(b"e")

    def _stale(self, y: NDArray[Any]) -> None:
        self._send(self._message(Kind.DONE, generation=self._generation() - 1, slot=0, request=1, body=b"\0"))

    def _wrong_slot(self, y: NDArray[Any]) -> None:
        self._send(self._message(Kind.DONE, slot=9999, request=1, body=b"\0"))

    def _twice(self, y: NDArray[Any]) -> None:
        for slot in range(4):  # answers nobody asked for, in every slot
            self._send(self._message(Kind.DONE, slot=slot, request=1 << 40, body=b"\0"))

    def _unasked_kind(self, y: NDArray[Any]) -> None:
        self._send(self._message(Kind.LOADED, body=b"{}"))

    def _shapes(self, y: NDArray[Any]) -> None:
        self._send(self._message(Kind.FAILED, body=b'{"error": 3}'))

    def _stages(self, y: NDArray[Any]) -> None:
        self._send(self._message(Kind.FAILED, body=b"[" * 5000))

    def _close(self, y: NDArray[Any]) -> None:
        os.close(int(sys.argv[1]))
        time.sleep(FOREVER_S)

    def _silence(self, y: NDArray[Any]) -> None:
        """It goes on working, and never says so."""
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, int(sys.argv[1]))


def make(
    control: str | None = None, shape: list[int | None] | None = None, work_us: int = 0, backend: str = "faulty"
) -> FaultyRunner:
    """What a `FunctionWorker` calls."""
    return FaultyRunner(control, shape or [1, 16], work_us, backend)


def make_lane(**arguments: Any) -> RunnerLane:
    """The same, as a lane of three slots."""
    return RunnerLane(make(**arguments), 3)
