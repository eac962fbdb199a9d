"""A day of traffic, replayed fast: `PYTHONPATH=tests python -m benchmarks.soak [STUDIES]`.

A whole daemon, `python -m edgemed serve`, in a process of its own, takes studies by DICOM (DCMTK's `storescu`, one
association each), single images by a watched folder, and inferences over HTTP, all at once. It analyses images and
series, and sends results and the images themselves to a receiving PACS (pynetdicom, in a process of its own). What has
ended is deleted after a short while, as it would be after a day.

Memory, open files, threads, and what lies on the disk are sampled as it goes. The first part is left out: it warms up.
Over the rest a line is fitted against the number of images, whose error is taken from blocks of neighbouring samples
(jackknife: samples that follow one another are much alike). Flat is a measure whose slope, with its one-sided 95 %
bound, grows over a day by less than a stated amount. The journal is to grow: it keeps a row for each image, for years.
It is said by how much.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgemed.serve.journal.file import connect
from edgemed.serve.reconcile import reconcile
from tests.serve import kit
from tests.serve.process import Process, free_port, started

STUDIES: Final = 400  # of a day: a busy radiography room sends fewer
IMAGES: Final = 4  # in each
MOST_OPEN: Final = 50  # objects under way at once
WARM: Final = 0.35  # of the samples
BLOCKS: Final = 10
EVERY_S: Final = 0.5
T95: Final = 1.833  # one-sided 95 % of Student's t with nine degrees of freedom: one for each block, less one
DRAIN_S: Final = 300

FLAT: Final = {
    "memory": (64 << 20, "bytes; an 8 GB board would take months to fill, and systemd's MemoryMax restarts it before"),
    "files": (4.0, "of 1024 that a process may have open"),
    "threads": (2.0, "threads"),
    "wal": (16 << 20, "bytes; it is cut back at checkpoints"),
    "spool": (64 << 20, "bytes; what has ended is deleted"),
}
"""Growth over a day below which a measure is called flat, and why that is little."""

CHEST: Final = {"name": "chest", "bundle": "chest.edgemed", "runner": "onnxruntime", "send_to": ["pacs"]}
SERIES: Final = {
    **CHEST,
    "name": "series",
    "level": "series",
    "match": {"inlets": ["dicom"]},
    "completeness": {"after": "200ms", "quiet": "5s"},
}

PACS = """
import sys
from pynetdicom import AE, AllStoragePresentationContexts, evt
entity = AE("PACS")
entity.supported_contexts = AllStoragePresentationContexts
server = entity.start_server(("127.0.0.1", int(sys.argv[1])), evt_handlers=[(evt.EVT_C_STORE, lambda event: 0)])
"""


@dataclass
class Sample:
    """At one moment: how many images had come, and what the daemon took."""

    images: int
    memory: float
    files: float
    threads: float
    wal: float
    spool: float
    journal: float


@dataclass
class Day:
    """The traffic, and what was seen of it."""

    root: Path
    port: int
    http: str
    pid: int
    studies: int
    sent: int = 0
    requests: int = 0
    samples: list[Sample] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def send(self) -> None:
        """Studies by DICOM, and now and then a picture by the folder."""
        dice = random.Random(0)
        for number in range(self.studies):
            with tempfile.TemporaryDirectory(dir=self.root) as name:
                write_study(Path(name), number, dice)
                command = ["storescu", "-aet", "SENDER", "-aec", "EDGEMED", "127.0.0.1", str(self.port), "+sd", name]
                subprocess.run(command, check=True, capture_output=True)
            self.sent += IMAGES
            drop = self.root / f"dropped{number}"
            kit.write(image(f"2.25.9.{number}", "1", 0, dice), drop)
            drop.replace(self.root / "drop" / f"{number}.dcm")
            self.sent += 1
            self.wait_for(MOST_OPEN)  # a sender that overtakes the analysis would measure the queue

    def ask(self) -> None:
        """Inferences over HTTP, a few every second."""
        url = f"{self.http}/v2/models/chest"
        with urllib.request.urlopen(url) as response:
            (spec, *_) = json.load(response)["inputs"]
        shape = [1 if size < 0 else size for size in spec["shape"]]
        tensor = {"name": spec["name"], "datatype": spec["datatype"], "shape": shape}
        body = json.dumps({"inputs": [tensor | {"data": [0.5] * int(np.prod(shape))}]}).encode()
        while not self.over.wait(0.2):
            with urllib.request.urlopen(urllib.request.Request(f"{url}/infer", body)) as response:
                json.load(response)
            self.requests += 1

    def sample(self) -> None:
        """What the daemon takes, until the end."""
        while not self.over.wait(EVERY_S):
            with suppress(FileNotFoundError, ProcessLookupError):  # a worker or a file that goes meanwhile
                self.samples.append(look(self.root / "state", self.pid, self.sent))

    def wait_for(self, most: int) -> None:
        """Until not more than so many inputs are under way."""
        end_ns = time.monotonic_ns() + DRAIN_S * 1_000_000_000
        while open_objects(self.root) > most:
            if time.monotonic_ns() > end_ns:
                raise RuntimeError("the daemon does not keep up, or hangs")
            time.sleep(0.1)


def image(study: str, series: str, number: int, dice: random.Random) -> Any:
    uids = {"study": study, "series": f"{study}.{series}", "instance": f"{study}.{series}.{number}"}
    return kit.image(sop_class=kit.CR, rows=256, columns=256, level=dice.randrange(60, 200), **uids)


def write_study(folder: Path, number: int, dice: random.Random) -> None:
    for index in range(IMAGES):
        kit.write(image(f"2.25.8.{number}", "1", index, dice), folder / str(index))


def open_objects(root: Path) -> int:
    with closing(connect(root / "state" / "journal.sqlite3", read_only=True)) as connection:
        sql = "SELECT count(*) FROM object WHERE state IN ('arriving', 'received', 'routed')"
        return int(connection.execute(sql).fetchone()[0])


def look(state: Path, pid: int, images: int) -> Sample:
    """Of the daemon and its workers together: proportional memory, open files, threads; and of the disk."""
    pids = family(pid)
    journal = state / "journal.sqlite3"
    return Sample(
        images=images,
        memory=sum(memory(each) for each in pids),
        files=sum(len(list(Path(f"/proc/{each}/fd").iterdir())) for each in pids),
        threads=sum(len(list(Path(f"/proc/{each}/task").iterdir())) for each in pids),
        wal=size_of(Path(f"{journal}-wal")),
        spool=sum(size_of(file) for name in ("objects", "results", "incoming") for file in (state / name).rglob("*")),
        journal=size_of(journal),
    )


def family(pid: int) -> list[int]:
    """A process and all below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):
            children += (thread / "children").read_text().split()
    return [pid, *(each for child in sorted(set(children)) for each in family(int(child)))]


def memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def size_of(path: Path) -> int:
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0
    return status.st_size if path.is_file() else 0


def slope(samples: list[Sample], name: str) -> tuple[float, float]:
    """Growth for each image, and its standard error by the jackknife over blocks of neighbouring samples."""
    x = np.array([sample.images for sample in samples], float)
    y = np.array([getattr(sample, name) for sample in samples], float)
    fit: Callable[[Any], float] = lambda keep: float(np.polyfit(x[keep], y[keep], 1)[0])  # noqa: E731
    block = np.arange(len(x)) * BLOCKS // len(x)
    without = np.array([fit(block != number) for number in range(BLOCKS)])
    error = np.sqrt((BLOCKS - 1) / BLOCKS * np.sum((without - without.mean()) ** 2))
    return fit(block >= 0), float(error)


@contextmanager
def receiving() -> Iterator[int]:
    """A PACS in a process of its own; gives its port."""
    port = free_port()
    pacs = subprocess.Popen([sys.executable, "-c", PACS, str(port)], stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        pacs.kill()
        pacs.wait()


def soak(studies: int) -> tuple[Day, float, list[str]]:
    """Replay a day; what was seen, how long it took, and what reconcile has to say."""
    with tempfile.TemporaryDirectory(prefix="edgemed-soak.") as name, receiving() as pacs:
        root = Path(name)
        (root / "drop").mkdir()
        to = {"name": "pacs", "kind": "dicom", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs}
        sections = {
            "models": [CHEST, SERIES],
            "folders": [{"name": "drop", "path": "drop", "settle": "200ms"}],
            "destinations": [{**to, "forward": True, "commitment": False}],
            "spool": {"reserve": "1MiB", "warn": "2MiB", "keep": "5s"},
            "log": {"level": "warning"},
        }
        with started(root, **sections) as daemon:
            daemon.ready()
            began_ns = time.monotonic_ns()
            day = run(daemon, studies)
            took_s = (time.monotonic_ns() - began_ns) / 1e9
            if code := daemon.stop():
                raise RuntimeError(f"the daemon ended with {code}: {daemon.log[-2000:]}")
        return day, took_s, [f"{trouble.what}: {trouble.text}" for trouble in reconcile(root / "state").troubles]


def run(daemon: Process, studies: int) -> Day:
    """All senders at once, until all is at its end."""
    day = Day(daemon.root, daemon.dicom, daemon.http, daemon.child.pid, studies)
    beside = [threading.Thread(target=work, daemon=True) for work in (day.ask, day.sample)]
    for thread in beside:
        thread.start()
    try:
        day.send()
        day.wait_for(0)
    finally:
        day.over.set()
        for thread in beside:
            thread.join()
    return day


def main() -> int:
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else STUDIES
    day, took_s, troubles = soak(studies)
    warm = day.samples[int(len(day.samples) * WARM) :]
    daily = STUDIES * (IMAGES + 1)
    print(f"{day.sent} images and {day.requests} requests in {took_s:.0f} s; {len(warm)} samples after the warm-up")
    print(f"{'':10}{'first':>14}{'last':>14}{'a day':>14}{'± bound':>14}{'flat below':>14}")
    found: dict[str, Any] = {}
    for name in (*FLAT, "journal"):
        rise, error = (value * daily for value in slope(warm, name))
        limit = FLAT.get(name, (None, ""))[0]
        first, last = getattr(warm[0], name), getattr(warm[-1], name)
        verdict = "" if limit is None else f"{limit:14,.0f}  {'flat' if rise + T95 * error < limit else 'GROWS'}"
        print(f"{name:10}{first:14,.0f}{last:14,.0f}{rise:14,.0f}{T95 * error:14,.0f}{verdict}")
        found[name] = {"per_day": round(rise, 1), "bound": round(rise + T95 * error, 1)}
        if limit is not None:
            found[name]["flat"] = bool(rise + T95 * error < limit)
    for trouble in troubles[:10]:
        print(f"reconcile: {trouble}")
    flat = all(value.get("flat", True) for value in found.values())
    line = {"name": "soak", "images": day.sent, "requests": day.requests, "seconds": round(took_s), "flat": flat}
    print("BENCH " + json.dumps(line | {"unaccounted": len(troubles)} | found))
    return 0 if flat and not troubles else 1


if __name__ == "__main__":
    sys.exit(main())
