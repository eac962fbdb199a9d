"""The worker: a process that owns the device, and answers as long as it is sound.

`python -m edgemed.runtime.contained.worker SOCKET_FD PARENT_PID`. One thread does everything, so that its count of
steps in the shared memory stands still when an inference does. After the first sign of a fault it answers nothing
more: it says so, and ends without running anything else in the broken process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import cast

from edgemed.base.child import die_with_parent
from edgemed.base.errors import ChildError, EdgemedError, GpuError, ResourceError
from edgemed.base.runner import Runner
from edgemed.runtime.contained.build import build
from edgemed.runtime.contained.drive import Driver, Job, driver_of, is_runner
from edgemed.runtime.contained.loaded import Loaded
from edgemed.runtime.contained.protocol import Channel, Kind, Message, error_to_json, pack_stages
from edgemed.runtime.contained.shared import HEADER, Layout, Slots, pack_shapes, unpack_shapes
from edgemed.runtime.lane import Lane

FAULT_STATUS = 70
IDLE_MS = 100
_OOM_SCORE = 500  # when memory runs out, the kernel is to take the worker, which is rebuilt, and not its parent


class Worker:
    """Says and hears; `serve` is its life."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._generation = 0
        self._stopping = False

    def serve(self) -> None:
        """Load what the parent asks for, and answer until it says stop, or goes away."""
        try:
            order = self._channel.receive()
            self._generation = order.generation
            wanted = order.json()
            made = build(wanted)
            if not is_runner(made):
                cast(Lane, made).timed = bool(wanted.get("timed"))
            with made as entered:
                self._live(entered)
        except BaseException as error:
            self._fault(error)

    def _live(self, entered: Runner | Lane) -> None:
        """Everything between loading and freeing. Of a broken device nothing is freed: that could hang or crash."""
        try:
            self._say(Kind.LOADED, body=Loaded(entered.specs, entered.info).to_body())
            message, (inputs, outputs) = self._channel.receive_descriptors(2)
            layout = message.json()
            greatest = {name: tuple(shape) for name, shape in layout["greatest"].items()}
            takes = Layout.of(entered.specs.inputs, greatest, layout["slots"])
            gives = Layout.of(entered.specs.outputs, greatest, layout["slots"], HEADER)
            self._inputs = Slots(inputs, takes, write=False)
            self._outputs = Slots(outputs, gives, write=True)
            os.close(inputs)
            os.close(outputs)
            self._answer(driver_of(entered, self._inputs))
        except BaseException as error:
            self._fault(error)

    def _answer(self, driver: Driver) -> None:
        steps = self._outputs.steps
        while True:
            steps += 1
            busy = driver.oldest is not None
            if not self._stopping and driver.room and self._channel.wait(0 if busy else IDLE_MS):
                self._hear(driver)
            elif busy:
                self._finish(driver)
            elif self._stopping:
                return

    def _hear(self, driver: Driver) -> None:
        message = self._channel.receive()
        if message.kind is Kind.STOP:
            self._stopping = True
            return
        shapes, _ = unpack_shapes(self._inputs.layout, message.body)
        job = Job(message.slot, message.request, shapes)
        try:
            driver.start(job)
        except Exception as error:
            self._failed(job, error)

    def _finish(self, driver: Driver) -> None:
        job = driver.oldest
        assert job is not None, "there is one, or nobody would finish it"
        try:
            outputs, stages = driver.finish()
            shapes = {name: value.shape for name, value in outputs.items()}
            for name, target in self._outputs.arrays(job.slot, shapes).items():
                value = outputs[name]
                if value.dtype != target.dtype or value.shape != target.shape:
                    raise ChildError(f"The Runner gave {name} as {value.dtype} {value.shape}.", "Report this.")
                target[...] = value
        except Exception as error:
            self._failed(job, error)
            return
        body = pack_shapes(self._outputs.layout, shapes) + pack_stages(stages)
        self._say(Kind.DONE, job, body)

    def _failed(self, job: Job, error: Exception) -> None:
        if isinstance(error, GpuError) and error.sticky:
            raise error
        self._say(Kind.FAILED, job, error_to_json(_ours(error)))

    def _fault(self, error: BaseException) -> None:
        """The last words; then the end, at once: destructors in a poisoned process can hang or crash."""
        if isinstance(error, EOFError):  # the parent is gone
            os._exit(0)
        with contextlib.suppress(OSError):
            self._say(Kind.FAULT, body=error_to_json(_ours(error)))
        if not isinstance(error, EdgemedError):
            traceback.print_exception(error)
            sys.stderr.flush()
        os._exit(FAULT_STATUS)

    def _say(self, kind: Kind, job: Job | None = None, body: bytes = b"") -> None:
        slot, request = (job.slot, job.request) if job is not None else (0, 0)
        self._channel.send(Message(kind, self._generation, slot, request, body))


def _ours(error: BaseException) -> EdgemedError:
    if isinstance(error, EdgemedError):
        return error
    if isinstance(error, MemoryError):
        return ResourceError("The worker ran out of memory.", "Close other programs or add swap, then try again.")
    return ChildError(f"The worker failed: {type(error).__name__}: {error}.", "Report this as a bug, with its log.")


def main() -> None:
    """Become the worker on the other end of the socket."""
    descriptor, parent = map(int, sys.argv[1:3])
    die_with_parent(parent)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a service manager signals the whole group; the parent ends us in order
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    end = socket.socket(fileno=descriptor)
    end.set_inheritable(False)
    Worker(Channel(end)).serve()
    os._exit(0)  # the Runner has freed its device; libraries' exit handlers have nothing to add


if __name__ == "__main__":
    main()
