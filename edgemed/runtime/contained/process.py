"""The parent's end of one worker process: started, watched, killed, reaped."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from typing import IO, Final

from edgemed.base.child import how_ended, package_environment
from edgemed.base.errors import from_os_error
from edgemed.base.text import printable
from edgemed.runtime.contained.protocol import Channel

_LOG_TAIL: Final = 8000
_READ: Final = 1 << 16
_ENVIRONMENT: Final = {"ORT_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1"}


def readable(descriptor: int, limit_ns: int) -> bool:
    """Wait until a descriptor can be read, or for so long. (`select` refuses numbers from 1024 on.)"""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(-(-limit_ns // 1_000_000)))


class WorkerLog(Exception):
    """The end of what the worker printed; the cause of the error that is shown, so that --debug prints it."""


class WorkerProcess:
    """A running worker.

    The kernel kills it when the thread that made this object ends: make it in the thread that watches over it.

    Attributes:
        channel: to talk to it; sends and receives do not block.
        ended: a descriptor that can be read once the process has ended.
        log: a descriptor that can be read when it has printed something.

    Raises:
        ResourceError: no process, or no descriptor, can be had.
    """

    def __init__(self) -> None:
        try:
            self._start()
        except OSError as error:
            raise from_os_error(error) from error

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edgemed.runtime.contained.worker", str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                cwd="/",  # `-m` puts the working directory first in sys.path before Python 3.11: not the user's
                env={**package_environment(), **_ENVIRONMENT},
                start_new_session=True,  # Ctrl-C reaches the parent only, which then ends the worker in order
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self.channel = Channel(ours)
        assert self._process.stdout is not None, "asked for above"
        self._output: IO[bytes] = self._process.stdout
        self.log = self._output.fileno()
        os.set_blocking(self.log, False)
        self._printed = b""
        try:
            self.ended = os.pidfd_open(self.pid)
        except OSError:
            self.ended = -1
            self.kill(None)
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def read_log(self) -> bool:
        """Take in what it has printed; `False` once it can print no more."""
        try:
            data = os.read(self.log, _READ)
        except BlockingIOError:
            return True
        self._printed = (self._printed + data)[-_LOG_TAIL:]
        return bool(data)

    def printed(self) -> WorkerLog | None:
        """The end of its log, if it has printed anything; its lines steer no terminal."""
        with contextlib.suppress(OSError):
            while self.read_log() and readable(self.log, 0):
                pass
        text = self._printed.decode("utf-8", "replace").strip().expandtabs()
        return WorkerLog("\n".join(map(printable, text.splitlines()))) if text else None

    def kill(self, limit_ns: int | None) -> bool:
        """Kill its process group and reap it.

        Args:
            limit_ns: how long to wait for its end; a process that waits inside a driver may not die. `None`: for ever.

        Returns:
            Whether it has ended.
        """
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
        try:
            self._process.wait(None if limit_ns is None else limit_ns / 1e9)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self, limit_ns: int) -> str | None:
        """Wait for a process that is ending by itself, and kill whatever it has left behind.

        Args:
            limit_ns: how long it may take.

        Returns:
            Words for how it ended; `None`: it did not.
        """
        if not readable(self.ended, limit_ns):
            return None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        return how_ended(self._process.wait())

    def ended_well(self) -> bool:
        """Whether a process that has ended says that it ended in order."""
        return self._process.wait() == 0

    def close(self) -> None:
        """Give the descriptors back."""
        self.channel.close()
        self._output.close()
        if self.ended >= 0:
            os.close(self.ended)
            self.ended = -1
