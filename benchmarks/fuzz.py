"""Mutated inputs against a running daemon: after each batch it lives, is ready, holds no more than before, and every
input is accounted for.

    make bench-fuzz
    python -m benchmarks.fuzz --inputs 10000 --target pdu --seed 7

`TARGETS` is the table. A target makes an input from a random generator, sends it, and says which ones it cannot account
for. An input is found again by its target, seed and number, which are printed with what went wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import httpx

from tests.serve import kit
from tests.serve.netns import private_network

ROOT = Path(__file__).parents[1]
BATCH = 250
QUIET_S = 120  # for what was sent to come to its end, on a machine that does other things too
SPARE_FILES, SPARE_THREADS = 12, 4  # idle connections of the journal, a thread on its way out


class Hang(Exception):
    """No answer, and no end of the connection."""


@dataclass
class Bedside:
    """A daemon that runs.

    Attributes:
        process: its.
        folder: of its state, and of all else.
        dicom: port.
        http: port.
        rpc: port of gRPC.
        inbox: the watched folder.
    """

    process: subprocess.Popen[bytes]
    folder: Path
    dicom: int
    http: int
    rpc: int
    inbox: Path

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        """Of its journal."""
        path = self.state / "journal.sqlite3"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute(sql).fetchall()

    def ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{self.http}/v2/health/ready", trust_env=False, timeout=10).is_success
        return False

    def holds(self) -> tuple[int, int]:
        """Open files and threads."""
        proc = Path(f"/proc/{self.process.pid}")
        return len(list((proc / "fd").iterdir())), len(list((proc / "task").iterdir()))


class Target(Protocol):
    """Something that takes input.

    Attributes:
        name: in the table.
        answered: inputs so near to good ones that an object was taken or refused, or a request done; 0: it is broken.
    """

    name: str
    answered: int

    def make(self, rng: random.Random) -> object:
        """One input."""
        ...

    def send(self, bedside: Bedside, data: object) -> None:
        """Bring it there.

        Raises:
            Hang: no answer.
        """
        ...

    def unaccounted(self, bedside: Bedside) -> list[str]:
        """Of all that was sent, when everything has come to its end: a sentence each."""
        ...


@dataclass
class Score:
    inputs: int = 0
    crashes: int = 0
    hangs: int = 0
    unaccounted: int = 0
    answered: int = 0
    by_target: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.crashes or self.hangs or self.unaccounted)


def targets() -> dict[str, Callable[[], Target]]:
    """The table: how a target of each name is made."""
    from benchmarks.fuzz_file import FileTarget, FolderTarget
    from benchmarks.fuzz_http import HttpTarget, StowTarget
    from benchmarks.fuzz_pdu import PduTarget
    from benchmarks.fuzz_rpc import RpcTarget

    return {
        "pdu": PduTarget,
        "file": FileTarget,
        "folder": FolderTarget,
        "http": HttpTarget,
        "stow": StowTarget,
        "grpc": RpcTarget,
    }


SHARES = {"pdu": 0.35, "file": 0.2, "folder": 0.1, "http": 0.15, "stow": 0.1, "grpc": 0.1}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--target", choices=list(SHARES), action="append")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chosen = arguments.target or list(SHARES)
    whole = sum(SHARES[name] for name in chosen)
    counts = {name: round(arguments.inputs * SHARES[name] / whole) for name in chosen}
    began_ns = time.monotonic_ns()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        if os.geteuid() == 0:
            stack.enter_context(private_network())
        score = run(Path(folder), counts, arguments.seed)
    for note in score.notes[:40]:
        print(note)
    seconds = (time.monotonic_ns() - began_ns) / 1e9
    print(f"{score.by_target} in {seconds:.0f} s; {score.answered} were near enough to good ones to be done or refused")
    print(f"none of {score.inputs}: at most {3 / max(score.inputs, 1):.2%} with 95 % confidence" if score.clean else "")
    record = {"inputs": score.inputs, "crashes": score.crashes, "hangs": score.hangs, "unaccounted": score.unaccounted}
    print("BENCH", json.dumps({"name": "fuzz", **record}))
    sys.exit(0 if score.clean else 1)


def run(folder: Path, counts: dict[str, int], seed: int = 0) -> Score:
    """Send so many inputs of each target to a daemon of its own."""
    score = Score()
    makers = targets()
    with ExitStack() as stack:
        bedside = stack.enter_context(running(folder))
        sentries = {name: makers[name]() for name in counts}
        for target in sentries.values():  # what is loaded at the first use is not a leak
            _batch(bedside, target, range(-20, 0), seed, Score())
        settle(bedside)
        held = bedside.holds()
        for name, target in sentries.items():
            for start in range(0, counts[name], BATCH):
                numbers = range(start, min(start + BATCH, counts[name]))
                _batch(bedside, target, numbers, seed, score)
                score.by_target[name] = score.by_target.get(name, 0) + len(numbers)
                if not _look(bedside, target, held, score):
                    return score
            score.answered += target.answered
    return score


def _batch(bedside: Bedside, target: Target, numbers: Sequence[int], seed: int, score: Score) -> None:
    for number in numbers:
        data = target.make(random.Random(f"{target.name} {seed} {number}"))
        score.inputs += 1
        try:
            target.send(bedside, data)
        except Hang as hang:
            score.hangs += 1
            score.notes.append(f"{target.name} {seed} {number}: {hang}")
        except ConnectionError as error:
            if bedside.process.poll() is not None:
                return
            score.notes.append(f"{target.name} {seed} {number}: {error}")
            score.hangs += 1


def _look(bedside: Bedside, target: Target, held: tuple[int, int], score: Score) -> bool:
    """After a batch; whether there is any point in going on."""
    code = bedside.process.poll()
    if code is not None:
        score.crashes += 1
        log = (bedside.folder / "log").read_text(errors="replace")[-1500:]
        score.notes.append(f"{target.name}: the daemon ended with {code}.\n{log}")
        return False
    lost = [*settle(bedside), *target.unaccounted(bedside)]
    score.unaccounted += len(lost)
    score.notes += lost
    if not until(bedside.ready):
        score.hangs += 1
        score.notes.append(f"{target.name}: the daemon is not ready any more.")
    if not until(lambda: all(map(int.__le__, bedside.holds(), _most(held)))):
        score.hangs += 1
        score.notes.append(f"{target.name}: files and threads grew from {held} to {bedside.holds()}.")
    return True


def _most(held: tuple[int, int]) -> tuple[int, int]:
    return held[0] + SPARE_FILES, held[1] + SPARE_THREADS


def settle(bedside: Bedside) -> list[str]:
    """Wait until every object has come to an end, and nothing half-received is left; what does not, a sentence each."""
    query = "SELECT count(*) FROM object WHERE state IN ('arriving', 'received', 'routed')"

    def quiet() -> bool:
        return bedside.rows(query) == [(0,)] and not any((bedside.state / "incoming").iterdir())

    if until(quiet):
        return []
    open_ones = bedside.rows("SELECT sop_instance FROM object WHERE state IN ('arriving', 'received', 'routed')")
    left = list((bedside.state / "incoming").iterdir())
    return [f"{uid} has not come to an end." for (uid,) in open_ones] + [f"{len(left)} files lie in incoming/."]


def until(condition: Callable[[], bool]) -> bool:
    end_ns = time.monotonic_ns() + QUIET_S * 1_000_000_000
    while not condition():
        if time.monotonic_ns() > end_ns:
            return False
        time.sleep(0.05)
    return True


@contextmanager
def running(folder: Path) -> Iterator[Bedside]:
    """A daemon in a process of its own."""
    bundle, inbox = kit.write_classifier(folder / "chest.edgemed"), folder / "inbox"
    inbox.mkdir()
    dicom, http, rpc = _free_ports(3)
    (folder / "bedside.toml").write_text(
        f"""
        [daemon]
        state = "{folder / "state"}"
        [dicom]
        host = "127.0.0.1"
        port = {dicom}
        idle = "20s"
        max_object = "4MiB"
        associations = 50
        [[dicom.peers]]
        ae_title = "FUZZER"
        addresses = ["127.0.0.1"]
        associations = 50
        [http]
        port = {http}
        grpc_port = {rpc}
        [[folders]]
        name = "inbox"
        path = "{inbox}"
        settle = "100ms"
        [trust]
        allow_unsigned = true
        [log]
        level = "warning"
        [[models]]
        name = "chest"
        bundle = "{bundle}"
        runner = "onnxruntime"
        """
    )
    command = [sys.executable, "-m", "edgemed", "serve", str(folder / "bedside.toml")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            bedside = Bedside(process, folder, dicom, http, rpc, inbox)
            if not until(lambda: process.poll() is not None or bedside.ready()) or process.poll() is not None:
                raise SystemExit(f"The daemon does not come up:\n{(folder / 'log').read_text()[-2000:]}")
            yield bedside
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


if __name__ == "__main__":
    main()
