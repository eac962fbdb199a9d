"""Loads beside a measurement: on before the first frame, off whatever happens."""

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
from typing import Any, Final

from edgemed.base.child import how_ended, package_environment
from edgemed.base.errors import ChildError, from_os_error
from edgemed.profile.beside import Finding, Interference, Measured, Series, Unmeasured
from edgemed.profile.interference.spec import LoadSpec

_START_S: Final = 60.0
_END_S: Final = 10.0  # a write that is being forced to a slow card
_LAST_WORDS: Final = 4000


class Interferer:
    """One kind of load, by child processes of ours.

    Args:
        spec: what was asked for.
        folder: where a disk is loaded: the one that results are written to.

    Raises:
        ChildError: on entering, a worker did not start; those that did are stopped.
    """

    series: Sequence[Series] = ()
    junction: str | None = None

    def __init__(self, spec: LoadSpec, folder: Path) -> None:
        self._spec, self._folder = spec, folder
        self._workers: list[subprocess.Popen[bytes]] = []
        self._reports: list[dict[str, Any]] = []
        self._failed: list[str] = []

    def __enter__(self) -> Interferer:
        try:
            for _ in range(self._spec.workers):
                self._workers.append(self._start())
            for worker in self._workers:
                if self._line(worker, _START_S) != b"ready\n":
                    worker.kill()
                    raise ChildError(
                        f"The {self._spec.kind} load did not start{_last_words(worker)}.", "Leave it out, or see to it."
                    )
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def findings(self, measured: Measured) -> Sequence[Finding]:  # noqa: ARG002
        """What the load was; and that it was not there all the time, if so."""
        told = Interference(
            kind=self._spec.kind,
            workers=self._spec.workers,
            asked=self._spec.text,
            achieved=achieved(self._spec, self._reports),
        )
        lost = [Unmeasured(what=f"the {self._spec.kind} load to the end: a worker {why}") for why in self._failed[:1]]
        return (told, *lost)

    def _start(self) -> subprocess.Popen[bytes]:
        spec = self._spec
        rate = 0.0 if spec.rate is None else spec.rate / spec.workers
        command = [sys.executable, "-m", "edgemed.profile.interference.worker", spec.kind, repr(rate)]
        try:
            return subprocess.Popen(
                [*command, str(self._folder.resolve()), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env=package_environment(),
                bufsize=0,  # lines are waited for by `select`, which knows nothing of buffers
                start_new_session=True,  # Ctrl-C reaches the parent only, which stops them in order
            )
        except OSError as error:
            raise from_os_error(error) from error

    def _line(self, worker: subprocess.Popen[bytes], patience_s: float) -> bytes:
        assert worker.stdout is not None
        return worker.stdout.readline() if select.select([worker.stdout], [], [], patience_s)[0] else b""

    def _stop(self) -> None:
        """Tell all to end before waiting for any, so that none loads the machine alone."""
        workers, self._workers = self._workers, []
        try:
            for worker in workers:
                if worker.poll() is not None:
                    self._failed.append(how_ended(worker.returncode) + _last_words(worker))
                with contextlib.suppress(OSError):
                    assert worker.stdin is not None
                    worker.stdin.close()
            for worker in workers:
                with contextlib.suppress(ValueError):
                    self._reports.append(json.loads(self._line(worker, _END_S)))
        finally:
            for worker in workers:
                _reap(worker)


def _reap(worker: subprocess.Popen[bytes]) -> None:
    try:
        worker.wait(_END_S)
    except BaseException as error:
        worker.kill()
        worker.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
    finally:
        for pipe in (worker.stdin, worker.stdout, worker.stderr):
            if pipe is not None:
                pipe.close()


def _last_words(worker: subprocess.Popen[bytes]) -> str:
    """The end of what it printed on stderr; it has ended, or was killed."""
    worker.wait()
    assert worker.stderr is not None
    lines = worker.stderr.read()[-_LAST_WORDS:].decode(errors="replace").strip().splitlines()
    return f" ({lines[-1][:200]})" if lines else ""


def achieved(spec: LoadSpec, reports: Sequence[dict[str, Any]]) -> str:
    """What the workers managed, in words; `n/a` where none told."""
    if not reports:
        return "n/a"
    if spec.kind == "cpu":
        busy = sum(report["done"] / report["ns"] for report in reports)
        return f"{busy:.2f} processors busy"
    rate = sum(report["done"] * 1e9 / report["ns"] for report in reports)
    what = {"memory": "copied", "disk": "written and forced to the disk", "network": "sent over the loopback"}
    return f"{rate / (1 << 20):.1f} MiB/s {what[spec.kind]}"
