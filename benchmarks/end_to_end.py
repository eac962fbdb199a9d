"""From the modality's first byte to the result at the PACS: `python -m benchmarks.end_to_end [IMAGES] [SERIES]`.

A daemon in a process of its own takes images by C-STORE, one association each as a modality does it, analyses them, and
sends its reports on by C-STORE to a PACS, DCMTK's `storescp`; the modality is in this process. A result is there when
the PACS has answered Success. All clocks are the machine's monotonic one. First single images of 512 x 512 through a
classifier, then series of four slices through a segmenter, complete by the count that their headers name. The models
are tiny: what is seen is the daemon.

Stages are the daemon's own timeline; percentiles are by nearest rank, as everywhere in edgemed.
"""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.uid import generate_uid

from edgemed.imaging.dicom.part10 import read_meta
from edgemed.profile.stats import distribution
from edgemed.serve.dicom.requestor import Wanted
from edgemed.serve.dicom.scu import Link, Target
from tests.serve import kit
from tests.serve.analysis import bundles

IMAGES, SERIES, SLICES = 300, 60, 4
PACE_S = 0.1  # between images or series: a busy room, not a flood
WAIT_S = 120
POINTS = (
    ("receive", "first_byte", "last_object"),
    ("complete", "last_object", "complete"),
    ("queue", "complete", "started"),
)
SPANS = ("decode", "preprocess", "h2d", "compute", "d2h", "postprocess", "write")
REPO = Path(__file__).parents[1]

CONFIG = """
[daemon]
state = "state"
[dicom]
host = "127.0.0.1"
port = {port}
[[dicom.peers]]
ae_title = "MODALITY"
addresses = ["127.0.0.1"]
associations = 10
[http]
port = 0
[[models]]
name = "image"
bundle = "image.edgemed"
runner = "onnxruntime"
match = {{ modalities = ["CR"] }}
send_to = ["pacs"]
[[models]]
name = "series"
bundle = "series.edgemed"
runner = "onnxruntime"
level = "series"
match = {{ modalities = ["CT"] }}
results = ["sr", "seg"]
send_to = ["pacs"]
[[destinations]]
name = "pacs"
kind = "dicom"
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs}
commitment = false
[trust]
allow_unsigned = true
[log]
level = "warning"
"""


@contextmanager
def pacs(folder: Path) -> Iterator[int]:
    """One that keeps what it gets in a folder; its port."""
    folder.mkdir()
    port = free_port()
    process = subprocess.Popen(["storescp", "-od", str(folder), "-aet", "PACS", str(port)], stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


@dataclass
class Room:
    """A modality, the daemon beside it, and the PACS.

    Attributes:
        began: when the association of an image or series was asked for, by its UID.
    """

    root: Path
    port: int
    began: dict[str, int] = field(default_factory=dict)

    def send(self, subject: str, images: Sequence[Any]) -> None:
        """One association, as a modality opens it when images are there."""
        files = [kit.write(ds, self.root / "sent.dcm") for ds in images[:1]]
        self.began[subject] = time.monotonic_ns()
        sop_class = str(images[0].SOPClassUID)
        wanted = Wanted(sop_class, ("1.2.840.10008.1.2.1",))
        target = Target("127.0.0.1", self.port, "EDGEMED", "MODALITY", 30_000_000_000)
        with Link(target, [wanted]) as link:
            for ds in images:
                file = kit.write(ds, files[0])
                data = io.BytesIO(file.read_bytes())
                data.seek(read_meta(data).offset)
                status = link.store(link.granted.contexts[wanted], sop_class, str(ds.SOPInstanceUID), data.read)
                if status != 0:
                    raise SystemExit(f"an image was refused: 0x{status:04X}")

    def wait(self) -> None:
        """Until everything has its end."""
        end_ns = time.monotonic_ns() + WAIT_S * 1_000_000_000
        while time.monotonic_ns() < end_ns:
            rows = self.rows("SELECT state, count(*) FROM object GROUP BY 1")
            if {row[0] for row in rows} == {"delivered"}:
                return
            time.sleep(0.2)
        raise SystemExit(f"not everything was delivered: {[tuple(row) for row in rows]}")

    def rows(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(self.root / "state" / "journal.sqlite3", timeout=30)) as connection:
            return connection.execute(sql).fetchall()


@contextmanager
def daemon(root: Path) -> Iterator[list[dict[str, Any]]]:
    """Run it; when it has ended, the list holds its timelines."""
    lines: list[dict[str, Any]] = []
    command = [sys.executable, "-m", "benchmarks.end_to_end", "daemon", str(root / "bedside.toml"), str(root / "out")]
    environment = os.environ | {"PYTHONPATH": f"{REPO}:{REPO / 'tests'}"}
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "ready\n":
            raise SystemExit("the daemon did not start")
        yield lines
        process.stdin.close()
        process.wait(60)
        lines += json.loads((root / "out").read_text())
    finally:
        process.kill()
        process.wait()


def serve(config: Path, out: Path) -> None:
    """The daemon's process: until its input is closed."""
    from edgemed.serve.config import load_config
    from edgemed.serve.daemon import Daemon

    with Daemon(load_config(config)) as one:
        while not one.services.readiness.ready:
            time.sleep(0.1)
        print("ready", flush=True)
        sys.stdin.read()
        lines = [
            {
                "task": line.task,
                "model": line.model,
                "points": line.points,
                "spans": [(span.name, span.duration_ns) for span in line.spans],
            }
            for line in one.services.timelines.recent
        ]
    out.write_text(json.dumps(lines))


def stages(room: Room, lines: Sequence[dict[str, Any]]) -> dict[str, dict[str, list[int]]]:
    """Samples in ns by model and stage."""
    subjects = {row[0]: row[1] for row in room.rows("SELECT id, subject FROM task")}
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        points, model = line["points"], found[line["model"]]
        if not {"first_byte", "last_object", "complete", "started", "written", "sent"} <= points.keys():
            continue
        for name, first, last in POINTS:
            model[name].append(points[last] - points[first])
        totals: dict[str, int] = defaultdict(int)
        for name, duration_ns in line["spans"]:
            totals[name] += duration_ns
        for name in SPANS:
            if name in totals:
                model[name].append(totals[name])
        model["deliver"].append(points["sent"] - points["written"])
        model["last image to PACS"].append(points["sent"] - points["last_object"])
        model["association to PACS"].append(points["sent"] - room.began[subjects[line["task"]]])
    return found


def table(model: str, samples: dict[str, list[int]]) -> dict[str, float]:
    """Print percentiles in milliseconds; medians and p95 of the way as a whole."""
    print(f"\n{model}: n = {len(samples['association to PACS'])}, ms")
    print(f"  {'stage':22}{'p50':>9}{'p90':>9}{'p95':>9}{'p99':>9}{'max':>9}")
    names = [name for name, _, _ in POINTS] + [*SPANS, "deliver", "last image to PACS", "association to PACS"]
    whole: dict[str, float] = {}
    for name in (name for name in names if samples.get(name)):
        figures = distribution(np.array(samples[name], dtype=np.int64), percentiles=("50", "90", "95", "99"))
        assert figures is not None
        values = [each.value_ns for each in figures.percentiles]
        shown = "".join("        -" if value is None else f"{value / 1e6:9.2f}" for value in values)
        print(f"  {name:22}{shown}{figures.max_ns / 1e6:9.2f}")
        if name == "association to PACS":
            whole = {p: round((v or figures.max_ns) / 1e6, 2) for p, v in zip(("p50", "p95"), values[::2], strict=True)}
    return whole


def main(images: int = IMAGES, series: int = SERIES) -> None:
    """Print two tables and one BENCH line."""
    with tempfile.TemporaryDirectory(prefix="edgemed-way.") as name, pacs(Path(name) / "pacs") as theirs:
        root = Path(name)
        kit.write_classifier(root / "image.edgemed")
        bundles.volume(root / "series.edgemed")
        port = free_port()
        (root / "bedside.toml").write_text(CONFIG.format(port=port, pacs=theirs))
        room = Room(root, port)
        with daemon(root) as lines:
            for number in range(images):
                ds = kit.image(sop_class=kit.CR, rows=512, columns=512, level=60 + number % 140)
                room.send(str(ds.SOPInstanceUID), [ds])
                time.sleep(PACE_S)
            for _ in range(series):
                uids = {"study": generate_uid(), "series": generate_uid()}
                size = {"rows": 256, "columns": 256, "NumberOfSeriesRelatedInstances": SLICES}
                slices = [kit.image(**uids, **size, position=float(place)) for place in range(SLICES)]
                room.send(uids["series"], slices)
                time.sleep(PACE_S)
            room.wait()
        found = stages(room, lines)
        there = sum(1 for _ in (root / "pacs").iterdir())
    print(f"{images} images, {series} series of {SLICES} slices; {os.cpu_count()} cores")
    figures = {model: table(model, samples) for model, samples in found.items()}
    counted = {model: len(samples["association to PACS"]) for model, samples in found.items()}
    result = {"name": "end_to_end", "n": counted, **{f"{model}_ms": each for model, each in figures.items()}}
    print("\nBENCH " + json.dumps(result, separators=(",", ":")))
    if counted != {"image": images, "series": series} or there != images + 2 * series:
        raise SystemExit(1)


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


if __name__ == "__main__":
    if sys.argv[1:2] == ["daemon"]:
        serve(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main(*map(int, sys.argv[1:]))
