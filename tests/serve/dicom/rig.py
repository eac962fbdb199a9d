"""An inlet with all that it needs and no other part; DCMTK's programs; and a socket that says whatever one likes."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import build_context

from edgemed.serve.daemon import Daemon
from edgemed.serve.dicom.inlet import DicomInlet
from edgemed.serve.services import Part, Services
from tests.serve import kit
from tests.serve.store import rows
from tests.waiting import PATIENCE_S

LOOPBACK = ("127.0.0.0/8",)
MODALITY = {"ae_title": "CT1", "addresses": LOOPBACK, "may": ("echo", "store", "commit")}
EXPLICIT = "1.2.840.10008.1.2.1"
RELEASE = b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00"


class InletAlone(Daemon):
    """The daemon with this part alone."""

    def _all_parts(self, services: Services) -> Sequence[Part]:
        return [DicomInlet(services)]


@dataclass
class Rig:
    daemon: Daemon
    services: Services
    inlet: DicomInlet

    @property
    def port(self) -> int:
        return self.inlet.port

    def rows(self, sql: str = "SELECT * FROM object ORDER BY id") -> list[sqlite3.Row]:
        return rows(self.services.journal, sql)

    def data_set(self, row: sqlite3.Row) -> bytes:
        """What was kept of an object, without the meta information."""
        from edgemed.imaging.dicom.part10 import read_meta

        with self.services.spool.path(row["path"]).open("rb") as file:
            file.seek(read_meta(file).offset)
            return file.read()

    def metric(self, name: str, **labels: str) -> float:
        return self.services.metrics.registry.get_sample_value(f"edgemed_{name}", labels) or 0.0


@contextmanager
def inlet(root: Path, *, sections: dict[str, Any] | None = None, **dicom: Any) -> Iterator[Rig]:
    """An inlet on loopback at a port of the system's choice."""
    section = {"host": "127.0.0.1", "port": 0, "peers": [MODALITY], **dicom}
    models = [{"name": "chest", "bundle": root / "none.edgemed"}]  # never opened: the parts that do are not there
    config = kit.bedside(root, **{"dicom": section, "models": models, **(sections or {})})
    with InletAlone(config) as daemon:
        part = daemon.part("dicom")
        assert isinstance(part, DicomInlet)
        yield Rig(daemon, part._services, part)


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip where a program of Debian's dcmtk is not there; in CI it is."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def dcmtk(program: str, *arguments: object, check: bool = True) -> str:
    """Run one of DCMTK's programs; what it says."""
    done = subprocess.run(
        [program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TCP_NODELAY": "1"},
        check=False,
    )
    said = done.stdout + done.stderr
    assert not check or done.returncode == 0, said
    return said


def storescu(
    port: int,
    *files: Path,
    calling: str = "CT1",
    called: str = "EDGEMED",
    options: Sequence[str] = ("-R",),
    check: bool = True,
) -> str:
    """Send files, each in its own transfer syntax."""
    return dcmtk("storescu", "-v", *options, "-aet", calling, "-aec", called, "127.0.0.1", port, *files, check=check)


def associate(
    *contexts: tuple[str, Sequence[str]],
    calling: str = "CT1",
    called: str = "EDGEMED",
    roles: Sequence[tuple[str, bool, bool]] = (),
    max_length: int = 16384,
    application: str = "1.2.840.10008.3.1.1.1",
) -> bytes:
    """An A-ASSOCIATE-RQ PDU; contexts are numbered 1, 3, 5, …"""
    request = A_ASSOCIATE()
    request.application_context_name = application
    request.calling_ae_title, request.called_ae_title = calling, called
    length = MaximumLengthNotification()
    length.maximum_length_received = max_length
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = "1.2.3.4"
    items: list[Any] = [length, implementation]
    for uid, scu, scp in roles:
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid, role.scu_role, role.scp_role = uid, scu, scp
        items.append(role)
    request.user_information = items
    asked = []
    for number, (uid, syntaxes) in enumerate(contexts or ((kit.CT, [EXPLICIT]),)):
        context = build_context(uid, list(syntaxes))
        context.context_id = 2 * number + 1
        asked.append(context)
    request.presentation_context_definition_list = asked
    return bytes(A_ASSOCIATE_RQ(request).encode())


def element(tag: int, value: bytes) -> bytes:
    """One of a command set."""
    return struct.pack("<HHL", 0, tag, len(value)) + value


def store_command(sop_class: str, instance: str, *, message: int = 1, data: bool = True) -> bytes:
    """The command set of a C-STORE-RQ."""
    body = b"".join(
        (
            element(0x0002, _even(sop_class)),
            element(0x0100, b"\x01\x00"),
            element(0x0110, struct.pack("<H", message)),
            element(0x0700, b"\x00\x00"),
            element(0x0800, b"\x01\x00" if data else b"\x01\x01"),
            element(0x1000, _even(instance)),
        )
    )
    return element(0x0000, struct.pack("<L", len(body))) + body


def echo_command() -> bytes:
    body = b"".join(
        (
            element(0x0002, _even("1.2.840.10008.1.1")),
            element(0x0100, b"\x30\x00"),
            element(0x0110, b"\x01\x00"),
            element(0x0800, b"\x01\x01"),
        )
    )
    return element(0x0000, struct.pack("<L", len(body))) + body


def p_data(*values: tuple[int, int, bytes]) -> bytes:
    """A P-DATA-TF PDU of (context, control header, data): 1 command, 2 last."""
    body = b"".join(struct.pack(">LBB", len(data) + 2, context, control) + data for context, control, data in values)
    return struct.pack(">BxL", 4, len(body)) + body


class Raw:
    """A socket."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)

    def send(self, *pdus: bytes) -> Raw:
        for pdu in pdus:
            self.socket.sendall(pdu)
        return self

    def pdu(self) -> tuple[int, bytes]:
        """The next PDU: its type and what follows its header; (0, b'') where the connection is closed."""
        head = self._read(6)
        if len(head) < 6:
            return 0, b""
        kind, length = struct.unpack(">BxL", head)
        return kind, self._read(length)

    def status(self) -> int:
        """Of the response that comes next."""
        kind, body = self.pdu()
        assert kind == 4, (kind, body)
        at = body.index(struct.pack("<HHL", 0, 0x0900, 2)) + 8
        return int.from_bytes(body[at : at + 2], "little")

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                more = self.socket.recv(size - len(data))
            except ConnectionError:
                break
            if not more:
                break
            data += more
        return data


@contextmanager
def raw(port: int) -> Iterator[Raw]:
    peer = Raw(port)
    with closing(peer.socket):
        yield peer


def _even(text: str) -> bytes:
    return (text + "\0" * (len(text) % 2)).encode()
