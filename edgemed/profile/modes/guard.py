"""Restores power mode and clocks however the sweep ends: also when it is killed, for then its pipe ends.

As a program it is the guard itself (`python -m edgemed.profile.modes.guard PLAN`, JSON): it waits for its stdin to
end, restores, and says how that went. Signals meant for the sweep do not reach it.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from edgemed.base.child import how_ended, package_environment
from edgemed.base.errors import DeviceStateError, EdgemedError, from_os_error
from edgemed.profile.modes.tools import PowerTools, last_line, run

KEPT: Final = "power-state"  # folder beside the results: what to restore, if even the guard is killed
CLOCKS: Final = "clocks.conf"
HOW: Final = "restore.txt"
_TRIES: Final = 3
_PAUSE_S: Final = 2.0  # a command of the sweep that was killed may still be at work
_PATIENCE_S: Final = 600.0


class Guard:
    """The state as it was found, and the process that brings it back.

    Args:
        tools: of the board.
        folder: takes `power-state/` until the state is restored.

    Raises:
        DeviceStateError: on entering: the state cannot be read, so nothing may be changed.
            On leaving: it could not be restored.
    """

    def __init__(self, tools: PowerTools, folder: Path) -> None:
        self._tools, self._kept = tools, folder / KEPT
        self._process: subprocess.Popen[bytes] | None = None
        self.mode = -1
        self.restored = False

    def __enter__(self) -> Guard:
        self.mode = self._tools.mode()
        if self._kept.exists():
            raise DeviceStateError(
                f"An earlier sweep left {self._kept}: it was killed before the board's state was restored.",
                f"Do what {self._kept / HOW} says, then remove the folder.",
            )
        try:
            self._kept.mkdir(parents=True)
            self._store()
            commands = self._commands()
            (self._kept / HOW).write_text("".join(f"sudo {' '.join(command)}\n" for command in commands))
        except OSError as error:
            raise from_os_error(error, self._kept) from error
        plan = {"commands": commands, "query": [self._tools.nvpmodel, "-q"], "mode": self.mode, "kept": str(self._kept)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgemed.profile.modes.guard", json.dumps(plan)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            env=package_environment(),
            start_new_session=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            raise DeviceStateError("The process that restores the state did not start.", "Nothing was changed.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        # a second Ctrl-C shall not leave the board in a state that nobody chose
        with _deaf(), process.stdout as out:
            said = out.read()
            process.wait()
        self.restored = process.returncode == 0
        if not self.restored:
            why = last_line(said.decode(errors="replace")) if said else f"it {how_ended(process.returncode)}"
            raise DeviceStateError(
                f"Power mode and clocks could not be restored: {why}.",
                f"Do what {self._kept / HOW} says, or restart the board.",
            )

    def _store(self) -> None:
        """Nothing was changed yet: if this fails, nothing needs restoring."""
        try:
            self._tools.store(self._kept / CLOCKS)
        except DeviceStateError:
            (self._kept / CLOCKS).unlink(missing_ok=True)
            self._kept.rmdir()
            raise

    def _commands(self) -> list[list[str]]:
        clocks = str((self._kept / CLOCKS).resolve())
        return [
            [self._tools.nvpmodel, "-m", str(self.mode)],
            [self._tools.jetson_clocks, "--restore", clocks],
        ]


@contextlib.contextmanager
def _deaf() -> Any:
    """No Ctrl-C and no SIGTERM in the main thread's block; elsewhere they do not arrive."""
    try:
        before = [(each, signal.signal(each, signal.SIG_IGN)) for each in (signal.SIGINT, signal.SIGTERM)]
    except ValueError:  # not the main thread
        before = []
    try:
        yield
    finally:
        for each, handler in before:
            signal.signal(each, handler)


def restore(
    commands: Sequence[Sequence[str]], query: Sequence[str], mode: int, pause: Callable[[float], None] = time.sleep
) -> str | None:
    """Run the commands until the mode is the one wanted; `None`, or why that failed."""
    why = "it said nothing"
    for attempt in range(_TRIES):
        if attempt:
            pause(_PAUSE_S)
        try:
            done = [run(command, _PATIENCE_S) for command in commands]
            failed = [each for each in done if each.returncode]
            said = run(query).stdout.split()
        except (OSError, subprocess.TimeoutExpired, EdgemedError) as error:
            why = str(error)
            continue
        if not failed and said[-1:] == [str(mode)]:
            return None
        why = last_line(failed[0].stdout) if failed else f"nvpmodel says that mode {' '.join(said[-1:])} is on"
    return why


def main(plan: dict[str, Any]) -> int:
    """Wait, then restore."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()  # until the sweep closes it, or is no more
    why = restore(plan["commands"], plan["query"], plan["mode"])
    kept = Path(plan["kept"])
    if why is None:
        for name in (CLOCKS, HOW):
            (kept / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else lies in it
            kept.rmdir()
        return 0
    with contextlib.suppress(OSError):  # who asked may be gone
        sys.stdout.write(f"{why}\n")
        sys.stdout.flush()
    return 1


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
