"""C-STORE of 512x512 CT, kept durably, with inference beside: the daemon, Orthanc, and the least that pynetdicom needs.

    make bench-intake
    python -m benchmarks.intake --rounds 9 --objects 80

All get the same files from DCMTK's `storescu` with TCP_NODELAY, in rounds that interleave, on one disk, in a network of
their own. What is sent lies in memory where it can: a scanner has a disk of its own, and each sync of a receiver would
otherwise write the sender's files, too. Orthanc syncs its storage area; its SQLite is as it ships. The minimal SCP
syncs file and folder. DCMTK's `storescp` syncs nothing: it shows what the sender can do.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.uid import generate_uid

from tests.serve import kit
from tests.serve.netns import private_network

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
LOAD_PER_S = 20
MEMORY = Path("/dev/shm")
UID = "1.2.826.0.1.3680043.10.9999."
PLACEHOLDER = UID.ljust(64, "1")


@dataclass
class Contestant:
    """One who receives.

    Attributes:
        name: in the table.
        called: its AE title.
        port: on loopback.
        kept: how many it has on the disk.
        rates: objects per second, of each round, by the number of associations.
        inferences: per second, meanwhile.
    """

    name: str
    called: str
    port: int
    kept: Callable[[], int]
    rates: dict[int, list[float]] = field(default_factory=dict)
    inferences: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--objects", type=int, default=80)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to measure")
    arguments = parser.parse_args()
    memory = MEMORY if MEMORY.is_dir() else arguments.folder
    with (
        tempfile.TemporaryDirectory(dir=arguments.folder) as folder,
        tempfile.TemporaryDirectory(dir=memory) as sending,
        ExitStack() as stack,
    ):
        stack.enter_context(private_network())
        contestants = [stack.enter_context(start(Path(folder))) for start in (ours, orthanc, minimal, storescp)]
        load = stack.enter_context(Load.running(Path(folder)))
        sent = compete(contestants, load, Path(sending), arguments.rounds, arguments.objects)
        for contestant in contestants:
            have = contestant.kept()
            if have != sent:
                raise SystemExit(f"{contestant.name} has {have} of {sent} objects.")
    show(contestants)


def compete(contestants: Sequence[Contestant], load: Load, sending: Path, rounds: int, objects: int) -> int:
    """Rounds that interleave, each in another order; the number of objects that each was sent."""
    template = kit.encode(ct())
    rotated = list(contestants)
    for number in range(rounds + 1):  # the first is not counted
        for associations in (1, 4):
            files = [prepare(template, sending / str(n), objects // associations) for n in range(associations)]
            for contestant in rotated:
                answered, began_ns = load.count(), time.monotonic_ns()
                send(contestant, files)
                seconds = (time.monotonic_ns() - began_ns) / 1e9
                if number:
                    each = objects // associations * associations
                    contestant.rates.setdefault(associations, []).append(each / seconds)
                    contestant.inferences.append((load.count() - answered) / seconds)
        rotated = rotated[1:] + rotated[:1]
    return (rounds + 1) * sum(objects // associations * associations for associations in (1, 4))


def ct() -> object:
    """512x512 pixels of two bytes: half a megabyte."""
    ds = kit.image(rows=512, columns=512)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PixelData = np.random.default_rng(0).integers(0, 4096, (512, 512), np.uint16).tobytes()
    ds["PixelData"].VR = "OW"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = PLACEHOLDER
    return ds


def prepare(template: bytes, folder: Path, count: int) -> Path:
    """New objects: the same one under other UIDs."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    assert template.count(PLACEHOLDER.encode()) == 2  # in the meta information, and in the data set
    for index in range(count):
        unique = generate_uid(prefix=UID).ljust(64, "1")
        (folder / f"{index}.dcm").write_bytes(template.replace(PLACEHOLDER.encode(), unique.encode()))
    return folder


def send(contestant: Contestant, folders: Sequence[Path]) -> None:
    """One association for each folder, at once."""
    options = ["-v", "-xe", "--max-send-pdu", "131072", "-aet", "STORESCU", "-aec", contestant.called, "+sd"]
    processes = [
        subprocess.Popen(
            ["storescu", *options, "127.0.0.1", str(contestant.port), str(folder)],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for folder in folders
    ]
    for process in processes:
        said, _ = process.communicate(timeout=300)
        if process.returncode or said.count(b"Response (Success)") != len(list(Path(process.args[-1]).iterdir())):
            raise SystemExit(f"{contestant.name}: {said.decode()[-500:]}")


class Load:
    """Inference in a process beside."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def count(self) -> int:
        return self._log.stat().st_size

    @classmethod
    @contextmanager
    def running(cls, folder: Path) -> Iterator[Load]:
        log = folder / "load"
        with process([sys.executable, "-m", "benchmarks.intake_load", str(LOAD_PER_S)], log):
            load = cls(log)
            until(lambda: load.count() > LOAD_PER_S, "inference")
            yield load


@contextmanager
def ours(folder: Path) -> Iterator[Contestant]:
    state, bundle = folder / "ours", kit.write_classifier(folder / "chest.edgemed")
    (folder / "bedside.toml").write_text(
        f"""
        [daemon]
        state = "{state}"
        [dicom]
        host = "127.0.0.1"
        port = 11101
        [[dicom.peers]]
        ae_title = "STORESCU"
        addresses = ["127.0.0.1"]
        [http]
        port = 18000
        [trust]
        allow_unsigned = true
        [[models]]
        name = "chest"
        bundle = "{bundle}"
        runner = "onnxruntime"
        match.modalities = ["CR"]
        """
    )
    command = [sys.executable, "-m", "edgemed", "serve", str(folder / "bedside.toml")]
    with process(command, folder / "ours.log"):
        until(lambda: listens(11101), "the daemon")
        yield Contestant("edgemed", "EDGEMED", 11101, lambda: files(state / "objects"))


@contextmanager
def orthanc(folder: Path) -> Iterator[Contestant]:
    program = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
    settings = {
        "DicomAet": "ORTHANC",
        "DicomPort": 11102,
        "HttpPort": 18042,
        "StorageDirectory": str(folder / "orthanc"),
        "IndexDirectory": str(folder / "orthanc-index"),
        "SyncStorageArea": True,
        "OverwriteInstances": False,
        "TcpNoDelay": True,
        "RemoteAccessAllowed": False,
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with process([program, str(folder / "orthanc.json")], folder / "orthanc.log"):
        until(lambda: listens(11102), "Orthanc")
        yield Contestant("Orthanc, syncing", "ORTHANC", 11102, lambda: files(folder / "orthanc"))


@contextmanager
def minimal(folder: Path) -> Iterator[Contestant]:
    (folder / "minimal").mkdir()
    command = [sys.executable, "-m", "benchmarks.intake_minimal", str(folder / "minimal"), "11103"]
    with process(command, folder / "minimal.log"):
        until(lambda: listens(11103), "the minimal SCP")
        yield Contestant("pynetdicom, minimal, syncing", "MINIMAL", 11103, lambda: files(folder / "minimal"))


@contextmanager
def storescp(folder: Path) -> Iterator[Contestant]:
    (folder / "dcmtk").mkdir()
    command = ["storescp", "--fork", "--bit-preserving", "-pdu", "131072", "-od", str(folder / "dcmtk"), "11104"]
    with process(command, folder / "dcmtk.log"):
        until(lambda: listens(11104), "storescp")
        yield Contestant("DCMTK storescp, syncing nothing", "STORESCP", 11104, lambda: files(folder / "dcmtk"))


@contextmanager
def process(command: Sequence[str], log: Path) -> Iterator[None]:
    with log.open("wb") as sink:
        started = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=sink, stderr=sink)
        try:
            yield
        finally:
            started.terminate()
            started.wait(60)


def listens(port: int) -> bool:
    """Without a connection, which would be counted."""
    return any(
        int(line.split()[1].partition(":")[2], 16) == port and line.split()[3] == "0A"
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/thread-self/net/{name}").read_text().splitlines()[1:]
    )


def files(folder: Path) -> int:
    return sum(path.is_file() and path.stat().st_size > 500_000 for path in folder.rglob("*"))


def until(condition: Callable[[], bool], what: str) -> None:
    end_ns = time.monotonic_ns() + 120_000_000_000
    while not condition():
        if time.monotonic_ns() > end_ns:
            raise SystemExit(f"{what} does not come up.")
        time.sleep(0.05)


def show(contestants: Sequence[Contestant]) -> None:
    print(f"\n{'':32}  1 association   4 associations   inferences/s beside")
    for each in contestants:
        one, four = (statistics.median(each.rates[n]) for n in (1, 4))
        print(f"{each.name:32}  {one:9.1f}/s      {four:9.1f}/s      {statistics.median(each.inferences):6.1f}")
    us, theirs, least, _ = contestants
    ratios = {
        (name, n): statistics.median(a / b for a, b in zip(us.rates[n], other.rates[n], strict=True))
        for name, other in (("orthanc", theirs), ("minimal", least))
        for n in (1, 4)
    }
    record = {"name": "intake"}
    record |= {f"vs_{name}": round(min(ratios[name, 1], ratios[name, 4]), 2) for name in ("orthanc", "minimal")}
    record |= {f"vs_{name}_{n}": round(ratio, 2) for (name, n), ratio in ratios.items()}
    print("BENCH", json.dumps(record))


if __name__ == "__main__":
    main()
