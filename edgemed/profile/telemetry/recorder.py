"""Starts the sampler, reads its file, and ends it. A sampler that dies is said in the result; the run goes on."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.base.child import how_ended, package_environment
from edgemed.device.sysfs import Tree
from edgemed.profile.beside import Finding, Measured, Series
from edgemed.profile.telemetry.limits import Limits
from edgemed.profile.telemetry.sampler import MISSING, TIMES
from edgemed.profile.telemetry.summary import Known, junction_among, summarize

INTERVAL_NS: Final = 100_000_000  # INA3221 and thermal zones of Jetsons do not change faster by much
FILE: Final = "telemetry.npz"
_RAW: Final = ".telemetry.rows"
_START_S: Final = 30.0  # a first import of NVML from a cold SD card takes seconds
_ANSWER_S: Final = 2.0
_NO_ROWS: Final = np.empty((0, TIMES), dtype=np.int64)


class Recorder:
    """Sensors of this machine beside a measurement, read by a process of its own.

    Args:
        folder: takes the sampler's file while it runs.
        root: where `sys` and `proc` are.
        interval_ns: between samples.
        nvml: ask NVML for a discrete GPU, too.
        kernel: sample what the kernel counts of this process, too; it stands in the series, in no record.
        keep: whether all samples stay in `folder` as `telemetry.npz`: `NAME` and `NAME.ns` for each sensor.
    """

    def __init__(
        self,
        folder: Path,
        root: Path = Path("/"),
        *,
        interval_ns: int = INTERVAL_NS,
        nvml: bool = True,
        kernel: bool = False,
        keep: bool = False,
    ) -> None:
        self._folder, self._root, self._keep = folder, root, keep
        self._nvml, self._kernel = nvml, kernel
        self.interval_ns = interval_ns
        self._process: subprocess.Popen[bytes] | None = None
        self.sensors: tuple[Known, ...] = ()
        self.lost: str | None = None
        self._limits: tuple[Limits, Limits | None] = (Limits(()), None)
        self._rows: NDArray[np.int64] | None = None

    @property
    def series(self) -> Sequence[Series]:
        """All sensors so far; names are unique among the sources, those of sysfs come first."""
        rows = self._read()
        times = rows[:, 0] + (rows[:, 1] - rows[:, 0]) // 2
        return tuple(self._series(index, rows, times) for index in range(len(self.sensors)))

    @property
    def junction(self) -> str | None:
        """The hottest part's sensor, by the names that boards give it."""
        return junction_among(self.sensors, self._read())

    def __enter__(self) -> Recorder:
        self._limits = (Limits.read(Tree(self._root)), None)
        (self._folder / _RAW).unlink(missing_ok=True)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edgemed.profile.telemetry.sampler", json.dumps(self._plan())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",  # `-m` puts the working directory first in sys.path before Python 3.11: not the user's
                env=package_environment(),
                bufsize=0,  # lines are waited for by `select`, which knows nothing of buffers
                start_new_session=True,  # Ctrl-C reaches the parent only, which then ends the sampler in order
            )
        except OSError as error:
            self.lost = f"could not start ({error.strerror})"
            return self
        line = self._line(_START_S)
        if line is None:
            self._give_up()
        else:
            self.sensors = tuple(Known(*each) for each in json.loads(line))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._limits = (self._limits[0], Limits.read(Tree(self._root)))
        if self._process is not None:
            self._end(self._process)
        self._rows = self._read()
        with contextlib.suppress(OSError):
            (self._folder / _RAW).unlink(missing_ok=True)
            if self._keep and self.sensors:
                self._export(self._folder / FILE)

    def sample_now(self) -> None:
        """Have all sensors read at this moment; returns when they are, or when the sampler is gone."""
        if self._process is None or self._process.stdin is None:
            return
        with contextlib.suppress(OSError):
            self._process.stdin.write(b".")
            self._process.stdin.flush()
            self._line(_ANSWER_S)

    def findings(self, measured: Measured) -> Sequence[Finding]:
        """One record for each source that has sensors here."""
        rows, found = self._read(), []
        for source in dict.fromkeys(sensor.source for sensor in self.sensors if sensor.source != "kernel"):
            chosen = [index for index, sensor in enumerate(self.sensors) if sensor.source == source]
            found.append(
                summarize(
                    [self.sensors[index] for index in chosen],
                    rows[:, [0, 1, *(TIMES + index for index in chosen)]],
                    measured,
                    interval_ns=self.interval_ns,
                    limits=self._limits if source == "sysfs" else None,
                    lost=self.lost,
                    file=FILE if self._keep else None,
                )
            )
        return [finding for finding in found if finding is not None]

    def sensor(self, name: str) -> Known | None:
        """What is known of a sensor."""
        return next((sensor for sensor in self.sensors if sensor.name == name), None)

    def named(self, name: str) -> Series | None:
        """One sensor's readings so far."""
        names = [sensor.name for sensor in self.sensors]
        return self.series[names.index(name)] if name in names else None

    def _plan(self) -> dict[str, Any]:
        cores = sorted(os.sched_getaffinity(0))
        return {
            "root": str(self._root.resolve()),
            "file": str((self._folder / _RAW).resolve()),
            "interval_ns": self.interval_ns,
            "parent": os.getpid(),
            "nvml": self._nvml,
            "kernel": self._kernel,
            "core": cores[-1] if len(cores) > 1 else None,
        }

    def _series(self, index: int, rows: NDArray[np.int64], times: NDArray[np.int64]) -> Series:
        sensor, values = self.sensors[index], rows[:, TIMES + index]
        there = values != MISSING
        return Series(sensor.name, sensor.kind, sensor.unit, times[there], values[there])

    def _read(self) -> NDArray[np.int64]:
        """Whole rows that are in the file now, (n, times and values)."""
        if self._rows is not None:
            return self._rows
        width = TIMES + len(self.sensors)
        try:
            data = (self._folder / _RAW).read_bytes() if self.sensors else b""
        except OSError:
            data = b""
        whole = len(data) // (8 * width) * 8 * width
        return np.frombuffer(data[:whole], dtype="<i8").reshape(-1, width) if whole else _NO_ROWS[:, [0] * width]

    def _line(self, patience_s: float) -> bytes | None:
        assert self._process is not None
        assert self._process.stdout is not None
        out: IO[bytes] = self._process.stdout
        return (out.readline() or None) if select.select([out], [], [], patience_s)[0] else None

    def _give_up(self) -> None:
        assert self._process is not None
        self._process.kill()
        self.lost = "did not start" + self._last_words(self._process)
        self._close(self._process)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Let it take a last row and end; one that has ended by itself has lost what came after."""
        if process.poll() is not None:
            self.lost = how_ended(process.returncode) + self._last_words(process)
        else:
            with contextlib.suppress(OSError):
                assert process.stdin is not None
                process.stdin.close()
            try:
                process.wait(_ANSWER_S)
            except subprocess.TimeoutExpired:  # stuck in a driver
                process.kill()
                self.lost = "did not end and was killed"
        self._close(process)

    def _close(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):  # what was meant for a sampler that is gone
                if pipe is not None:
                    pipe.close()
        self._process = None

    def _last_words(self, process: subprocess.Popen[bytes]) -> str:
        """The end of what it printed on stderr: its error, if it had one."""
        process.wait()
        assert process.stderr is not None
        lines = process.stderr.read()[-4000:].decode(errors="replace").strip().splitlines()
        return f" ({lines[-1][:200]})" if lines else ""

    def _export(self, path: Path) -> None:
        arrays: dict[str, Any] = {}
        for each in self.series:
            arrays |= {each.name: each.values, f"{each.name}.ns": each.times_ns}
        np.savez_compressed(path, **arrays)
