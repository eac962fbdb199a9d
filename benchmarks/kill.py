"""Acknowledged is never lost: `PYTHONPATH=tests python -m benchmarks.kill [KILLS] [POWER CUTS]`.

First a whole daemon, `python -m edgemed serve`, is killed by `kill -9` at random moments: while it starts, while
several DCMTK `storescu` send to it, while it forwards to a receiving PACS (pynetdicom, in this process, which hashes
the bytes of each data set as they come). What a sender was not told Success for, it sends again the next time.
Afterwards every image that was ever acknowledged must be in the journal, at its end, and at the PACS with the bytes
that were sent.

Then power is cut, on a simulated disk that keeps only what was synced (`tests/serve/powercut`): every image that was
acknowledged before the cut must be there after the next start. The same disk is shown senders that cheat; it must catch
them, or its verdict would be worth nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgemed.imaging.dicom.part10 import read_meta
from edgemed.serve.reconcile import reconcile
from tests.serve import kit
from tests.serve.powercut import campaign

REPO = Path(__file__).resolve().parent.parent
KILLS, CUTS = 300, 400
SENDERS, FILES = 3, 40  # at once, and what each has to send
CUTS_EACH = 20
CHEATERS = ("no-file-sync", "no-folder-sync", "ack-first", "row-alone")
START_S, SETTLE_S, END_S = 60, 300, 90
EARLY = 0.15  # of the kills happen while it starts
UID = "2.25.100000000000000000000000000000"

CONFIG = """
[daemon]
state = "state"
[dicom]
host = "127.0.0.1"
port = {port}
[[dicom.peers]]
ae_title = "STORESCU"
addresses = ["127.0.0.1"]
[http]
port = {http}
[[models]]
name = "chest"
bundle = "chest.edgemed"
runner = "onnxruntime"
match = {{ modalities = ["DX"] }}  # not what is sent: images are sent on, and that is what is looked at here
[[destinations]]
name = "pacs"
kind = "dicom"
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs}
forward = true
commitment = false
retry = {{ first = "500ms", cap = "2s", give_up = "1h", timeout = "10s" }}
[spool]
reserve = "1MiB"
warn = "2MiB"
[trust]
allow_unsigned = true
[log]
level = "warning"
"""


class Pacs:
    """What came to the receiving PACS: SHA-256 of data sets by SOP Instance UID."""

    def __init__(self) -> None:
        from pynetdicom import AE, AllStoragePresentationContexts, evt

        self.received: defaultdict[str, list[str]] = defaultdict(list)
        entity = AE("PACS")
        entity.supported_contexts = AllStoragePresentationContexts
        self._server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])
        self.port: int = self._server.socket.getsockname()[1]

    def _store(self, event: Any) -> int:
        data = event.request.DataSet.getvalue()
        self.received[str(event.request.AffectedSOPInstanceUID)].append(hashlib.sha256(data).hexdigest())
        return 0

    def close(self) -> None:
        self._server.shutdown()


class Images:
    """Files to send, each with a UID and pixels of its own."""

    def __init__(self, seed: int) -> None:
        self._template = kit.encode(kit.image(instance=UID))
        self._pixels = 64 * 64
        self._begin = read_meta(io.BytesIO(self._template)).offset
        self._dice = random.Random(seed)
        self._count = 0
        self.hashes: dict[str, str] = {}

    def write(self, folder: Path) -> None:
        """One more file, named by its UID."""
        self._count += 1
        uid = f"2.25.1{self._count:0{len(UID) - 6}d}"
        data = self._template.replace(UID.encode(), uid.encode())
        data = data[: -self._pixels] + self._dice.randbytes(self._pixels)
        (folder / uid).write_bytes(data)
        self.hashes[uid] = hashlib.sha256(data[self._begin :]).hexdigest()


@dataclass
class Campaign:
    """Of kills.

    Attributes:
        root: where the daemon lives.
        images: that are sent.
        acknowledged: UIDs for which a sender was told Success.
        failures: answers that were no Success, by their text.
    """

    root: Path
    images: Images
    port: int
    dice: random.Random
    acknowledged: set[str] = field(default_factory=set)
    failures: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def daemon(self) -> subprocess.Popen[bytes]:
        """A daemon, in a process group of its own, as systemd would start it."""
        command = [sys.executable, "-m", "edgemed", "serve", str(self.root / "bedside.toml")]
        with (self.root / "log").open("ab") as log:
            return subprocess.Popen(
                command, env=os.environ | {"PYTHONPATH": str(REPO), "PYTHONFAULTHANDLER": "1"}, stdout=log, stderr=log
            )

    def round(self) -> None:
        """One life of the daemon, and its violent end."""
        process = self.daemon()
        try:
            if self.dice.random() < EARLY:
                time.sleep(self.dice.uniform(0, 1.5))
                return
            self._wait(process)
            with self._senders():
                time.sleep(self.dice.uniform(0.02, 1.2))
                process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
            process.wait()

    @contextmanager
    def _senders(self) -> Iterator[None]:
        """DCMTK's `storescu`, several at once; read to their ends after the kill."""
        folders = [self.root / f"sender{number}" for number in range(SENDERS)]
        for folder in folders:
            folder.mkdir(exist_ok=True)
            for _ in range(FILES - sum(1 for _ in folder.iterdir())):
                self.images.write(folder)
        command = ["storescu", "-v", "-to", "10", "-ta", "10", "-td", "10", "-aec", "EDGEMED"]
        processes = [
            subprocess.Popen(
                [*command, "127.0.0.1", str(self.port), "+sd", str(folder)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for folder in folders
        ]
        try:
            yield
        finally:
            for process, folder in zip(processes, folders, strict=True):
                self._read(process.communicate(timeout=END_S)[0], folder)

    def _read(self, output: str, folder: Path) -> None:
        """Each file by name, and what its sender was told."""
        sending: Path | None = None
        for line in output.splitlines():
            if found := re.search(r"Sending file: (.*)$", line):
                sending = folder / Path(found.group(1)).name
            elif (found := re.search(r"Received Store Response \((.*)\)", line)) and sending is not None:
                if found.group(1) == "Success":
                    self.acknowledged.add(sending.name)
                    sending.unlink()
                else:
                    self.failures[found.group(1)] += 1
                sending = None

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        """Until the daemon listens."""
        end_ns = time.monotonic_ns() + START_S * 1_000_000_000
        while process.poll() is None and time.monotonic_ns() < end_ns:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError(f"the daemon does not listen; its code is {process.poll()}:\n{self._said()}")

    def _said(self) -> str:
        return (self.root / "log").read_text(errors="replace")[-6000:]

    def settle(self) -> int:
        """Let the daemon finish in peace; its exit code."""
        process = self.daemon()
        try:
            self._wait(process)
            end_ns = time.monotonic_ns() + SETTLE_S * 1_000_000_000
            while self._waiting() and time.monotonic_ns() < end_ns:
                time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            try:
                return process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)  # faulthandler says where each thread is
                process.wait()
                raise RuntimeError(f"the daemon does not end:\n{self._said()}") from None
        finally:
            process.kill()

    def _waiting(self) -> int:
        with closing(sqlite3.connect(self.root / "state" / "journal.sqlite3", timeout=30)) as connection:
            sql = (
                "SELECT (SELECT count(*) FROM object WHERE state IN ('arriving', 'received', 'routed'))"
                " + (SELECT count(*) FROM delivery WHERE state <> 'delivered')"
            )
            return int(connection.execute(sql).fetchone()[0])


def kill(count: int, seed: int = 0, *, progress: bool = True) -> dict[str, int]:
    """Kill a daemon many times; what became of everything that was acknowledged. Ctrl-C ends the killing early."""
    with tempfile.TemporaryDirectory(prefix="edgemed-kill.") as name, closing(Pacs()) as pacs:
        root = Path(name)
        kit.write_classifier(root / "chest.edgemed")
        port, http = free_ports(2)
        (root / "bedside.toml").write_text(CONFIG.format(port=port, http=http, pacs=pacs.port))
        one = Campaign(root, Images(seed), port, random.Random(seed))
        done = 0
        try:
            for done in range(1, count + 1):
                one.round()
                if progress and done % 20 == 0:
                    print(f"  {done:4} kills, {len(one.acknowledged):6} acknowledged", file=sys.stderr)
        except KeyboardInterrupt:
            print("  judging what was done so far", file=sys.stderr)
        code = one.settle()
        return judge(one, pacs, code) | {"kills": done}


def judge(one: Campaign, pacs: Pacs, code: int) -> dict[str, int]:
    """Hold what was promised against journal and PACS."""
    with closing(sqlite3.connect(one.root / "state" / "journal.sqlite3")) as connection:
        rows = dict(connection.execute("SELECT sop_instance, sha256 FROM object WHERE state <> 'refused'"))
    account = reconcile(one.root / "state")
    for trouble in account.troubles[:20]:
        print(f"  {trouble.code} {trouble.what}: {trouble.text}", file=sys.stderr)
    lost = changed = 0
    for uid in one.acknowledged:
        sent, came = one.images.hashes[uid], pacs.received.get(uid)
        lost += uid not in rows or not came
        changed += rows.get(uid, sent) != sent or any(digest != sent for digest in came or ())
    if one.failures:
        print(f"  not Success: {dict(one.failures)}", file=sys.stderr)
    return {
        "acked": len(one.acknowledged),
        "lost": lost,
        "changed": changed,
        "unaccounted": len(account.troubles),
        "delivered": sum(map(len, pacs.received.values())),
        "exit": code,
    }


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def bound(count: int) -> float:
    """Upper end of the one-sided 95 % interval of a share, of which none of `count` was seen."""
    return 1 - 0.05 ** (1 / count) if count else 1.0


def main(kills: int = KILLS, cuts: int = CUTS) -> None:
    """Print what was seen and one BENCH line."""
    killed = kill(kills)
    print(f"kill -9      {kills} kills: {killed}")
    power = campaign.run(-(-cuts // CUTS_EACH), CUTS_EACH, seed=0)
    print(f"power cuts   {power}")
    if cuts >= CUTS and not (power.arrived and power.vanished):
        raise SystemExit("no cut came between a row and its file: the campaign does not show what it is for")
    for mutation in CHEATERS:
        caught = campaign.run(1, 5, seed=0, mutation=mutation, lives=1)
        print(f"cheater      {mutation}: lost {caught.lost}, changed {caught.changed} of {caught.promised}")
        if not caught.lost + caught.changed:
            raise SystemExit(f"the disk did not catch {mutation}: its verdict is worth nothing")
    acked, kills = killed["acked"], killed["kills"]
    print(
        f"0 of {acked} acknowledged: below {bound(acked):.1e} (95 %); in 0 of {kills} kills: below {bound(kills):.1e}"
    )
    result = {
        "name": "kill",
        "kills": kills,
        "power_cuts": power.cuts,
        "acked": acked,
        "lost": killed["lost"] + power.lost,
        "changed": killed["changed"] + power.changed,
        "unaccounted": killed["unaccounted"] + power.unaccounted,
        "acked_before_cuts": power.promised,
        "bound_95": float(f"{bound(acked):.2g}"),
    }
    print("BENCH " + json.dumps(result, separators=(",", ":")))
    if result["lost"] + result["changed"] + result["unaccounted"] + killed["exit"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
