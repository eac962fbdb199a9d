"""No handles, no threads, a disk that does not even delete: nobody can connect, an alarm says so, and it comes back."""

from __future__ import annotations

import errno
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from edgemed.serve.dicom import names
from edgemed.serve.dicom.store import Reception
from tests.serve import kit
from tests.serve.dicom import rig
from tests.waiting import wait_for

ECHO = ("1.2.840.10008.1.1", [rig.EXPLICIT])


def lost(running: rig.Rig) -> bool:
    return running.services.alarms.stands("inlet-lost", "dicom")


def associates(port: int) -> bool:
    with rig.raw(port) as peer:
        return peer.send(rig.associate(ECHO)).pdu()[0] == 2


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_connections_that_cannot_be_accepted_are_an_alarm_until_they_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: socket.socket) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with rig.inlet(tmp_path) as running:
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "accept", full)
            wait_for(lambda: lost(running))
            (alarm,) = running.services.alarms.standing
            assert alarm.text == "A connection could not be accepted: Too many open files. It is tried again."
            assert alarm.count == 1
        assert associates(running.port)
        wait_for(lambda: not lost(running))


def test_an_association_that_gets_no_thread_is_an_alarm_until_the_next_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rig.inlet(tmp_path) as running:
        for _ in range(20):  # more than may wait: none keeps its place
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", no_thread)
                with rig.raw(running.port) as peer:
                    assert peer.pdu() == (0, b"")
        wait_for(lambda: lost(running))
        assert associates(running.port)
        wait_for(lambda: not lost(running))


def test_a_disk_that_does_not_delete_keeps_nobodys_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Reception) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    ended = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: ended.set())
    with rig.inlet(tmp_path, peers=[{**rig.MODALITY, "associations": 1}]) as running:
        with monkeypatch.context() as patch:
            patch.setattr(Reception, "cancel", fail)
            with rig.raw(running.port) as peer:
                peer.send(rig.associate()).pdu()
                peer.send(rig.p_data((1, 3, rig.store_command(kit.CT, "1.2.3"))))
                wait_for(lambda: any(running.services.spool.incoming.iterdir()))
            assert ended.wait(30)
        assert associates(running.port)


def test_a_name_that_could_not_be_asked_for_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        known = names.Names(["localhost"])
    wait_for(lambda: "127.0.0.1" in known.addresses("localhost"))


def test_a_name_that_a_bug_met_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_BELIEVED_NS", 0)
    ended = threading.Event()

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda _: ended.set())
        patch.setattr(socket, "getaddrinfo", fail)
        known = names.Names(["localhost"])
        assert ended.wait(30)
    wait_for(lambda: "127.0.0.1" in known.addresses("localhost"))
