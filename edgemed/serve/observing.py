"""The other end of `observed`: starts the daemon's process, and takes what it tells as it goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from edgemed.base.child import how_ended, package_environment
from edgemed.base.errors import ChildError, DeviceStateError, EdgemedError, InputError, ResourceError
from edgemed.base.runner import RunnerInfo
from edgemed.base.spans import Span
from edgemed.serve.config import Config
from edgemed.serve.timeline import Timeline

_END_S: Final = 60
_KINDS: Final[dict[int, type[EdgemedError]]] = {2: InputError, 3: DeviceStateError, 4: DeviceStateError}


@dataclass(frozen=True)
class Passed:
    """A task that has ended.

    Attributes:
        line: its points and spans.
        subject: UID of its image, series or study.
        revision: 1, or more where images came late.
        state: its end.
    """

    line: Timeline
    subject: str
    revision: int
    state: str


@dataclass(frozen=True)
class Rest:
    """How everything stands at the end.

    Attributes:
        tasks: number, model, subject, revision and state of each.
        objects: state, reason and count.
        models: who answers for each model.
    """

    tasks: tuple[tuple[int, str, str, int, str], ...]
    objects: tuple[tuple[str, str, int], ...]
    models: Mapping[str, RunnerInfo]


class Observed:
    """Entered, the daemon is ready; left, it has ended.

    Attributes:
        port: of its DICOM inlet, on loopback.
        models: who answers for each model.
        passed: tasks that have ended so far.
    """

    def __init__(self, config: Config, log: Path) -> None:
        self._config = config
        self._log = log
        self._told: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._ended = False
        self.port = 0
        self.models: Mapping[str, RunnerInfo] = {}
        self.passed: list[Passed] = []

    def __enter__(self) -> Observed:
        """Start it.

        Raises:
            EdgemedError: what keeps the daemon from starting, or from becoming ready.
        """
        environment = package_environment()
        environment.pop("NOTIFY_SOCKET", None)  # whoever watches this command is not to be told of its child
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "edgemed.serve.observed", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C is ours: what was measured by then is kept
            )
        self._reader = threading.Thread(target=self._read, name="observing", daemon=True)
        self._reader.start()
        try:
            self._say(self._config.model_dump_json())
            ready = self._wait("ready")
        except BaseException:
            self._stop()
            raise
        self.port = int(ready["port"])
        self.models = _models(ready["models"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def check(self) -> None:
        """Raise what has ended the daemon, if it has.

        Raises:
            EdgemedError: it is gone.
        """
        with self._news:
            if self._ended:
                raise self._gone()

    def finish(self, within_s: float) -> Rest:
        """Wait until every input has its end, or for so long.

        Raises:
            ChildError: the daemon has ended.
        """
        self._say(f"finish {within_s:g}")
        rest = self._wait("tasks")
        return Rest(
            tuple(tuple(row) for row in rest["tasks"]),
            tuple(tuple(row) for row in rest["objects"]),
            _models(rest["models"]),
        )

    def _say(self, line: str) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(line + "\n")
            self._child.stdin.flush()
        except OSError:  # it is gone: `_wait` says why
            return

    def _wait(self, key: str) -> dict[str, Any]:
        with self._news:
            while True:
                for told in self._told:
                    if "error" in told:
                        raise _KINDS.get(told["code"], ResourceError)(told["error"], told["hint"])
                    if key in told:
                        self._told.remove(told)
                        return told
                if self._ended:
                    raise self._gone()
                self._news.wait()

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            told = json.loads(line)
            if "task" in told:
                self.passed.append(_passed(told))
                continue
            with self._news:
                self._told.append(told)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _gone(self) -> ChildError:
        return ChildError(f"The daemon {how_ended(self._child.wait())}.", self._last_words())

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return f"It said: {lines[-1][:300]}" if lines else "It said nothing."

    def _stop(self) -> None:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with suppress(OSError):
            self._child.stdin.close()
        try:
            self._child.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._reader.join()
        self._child.stdout.close()


def _models(told: Mapping[str, Mapping[str, Any]]) -> dict[str, RunnerInfo]:
    return {name: RunnerInfo(**info) for name, info in told.items()}


def _passed(told: Mapping[str, Any]) -> Passed:
    spans = [Span(name, start, end) for name, start, end in told["spans"]]
    line = Timeline(told["task"], told["model"], dict(told["points"]), spans)
    return Passed(line, told["subject"], told["revision"], told["state"])
