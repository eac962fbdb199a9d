"""Tokens and certificates that are replaced by rubbish while the daemon works: the old stay, and somebody is told."""

from __future__ import annotations

import hashlib
import resource
import shutil
import socket
import ssl
from pathlib import Path

import httpx

from edgemed.base.errors import from_os_error
from edgemed.serve.dicom.inlet import DicomInlet
from edgemed.serve.http.tokens import read_tokens
from edgemed.serve.renewal import Renewed
from tests.serve import kit
from tests.serve.dicom.certificates import Authority
from tests.serve.http.conftest import server_of
from tests.waiting import wait_for


def token(secret: str) -> str:
    return f"gateway read {hashlib.sha256(secret.encode()).hexdigest()}\n"


def shown(port: int, authority: Authority) -> bool:
    """Whether the one who listens shows a certificate that the authority has signed."""
    context = ssl.create_default_context(cafile=str(authority.path))
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=30) as sock,
            context.wrap_socket(sock, server_hostname="localhost"),
        ):
            return True
    except ssl.SSLError:
        return False


def test_rubbish_leaves_the_old_and_is_an_alarm(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path, "first"), Authority(tmp_path, "second")
    certificate, key = authority.issue("server")
    good = tmp_path / "good.crt"
    shutil.copy(certificate, good)
    tokens = tmp_path / "tokens"
    tokens.write_text(token("old"))
    tls = {"certificate": certificate, "key": key}
    http = {"host": "127.0.0.1", "port": 0, "tls": tls, "tokens": tokens}
    dicom = {
        "host": "127.0.0.1",
        "port": 0,
        "tls": tls,
        "peers": [{"ae_title": "CT1", "addresses": ["127.0.0.1"]}],
    }
    with kit.running(kit.bedside(tmp_path, http=http, dicom=dicom)) as daemon:
        alarms, inlet = daemon.services.alarms, daemon.part("dicom")
        assert isinstance(inlet, DicomInlet)
        ports = server_of(daemon).port, inlet.port
        subjects = {"file of tokens", "certificate of http", "certificate of dicom"}

        def standing() -> set[str]:
            return {alarm.subject for alarm in alarms.standing if alarm.code == "config-failed"}

        tokens.write_text("half a li")
        certificate.write_text("rubbish")
        wait_for(lambda: standing() == subjects)  # though nobody asks
        assert all(shown(port, authority) for port in ports)
        with httpx.Client(verify=ssl.create_default_context(cafile=str(authority.path)), trust_env=False) as client:
            url = f"https://localhost:{ports[0]}/v2/health/live"
            read = f"https://localhost:{ports[0]}/metrics"
            assert client.get(url).status_code == 200
            assert client.get(read, headers={"Authorization": "Bearer old"}).status_code == 200

            tokens.write_text(token("new"))
            shutil.copy(good, certificate)
            wait_for(lambda: not standing())
            assert client.get(read, headers={"Authorization": "Bearer new"}).status_code == 200
            assert client.get(read, headers={"Authorization": "Bearer old"}).status_code == 401

        for new, place in zip(other.issue("renewed"), (certificate, key), strict=True):
            shutil.copy(new, place)
        wait_for(lambda: all(shown(port, other) for port in ports))
        wait_for(lambda: not standing())


def test_a_key_of_another_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")
    _, stranger = authority.issue("stranger")
    http = {"host": "127.0.0.1", "port": 0, "tls": {"certificate": certificate, "key": key}}
    with kit.running(kit.bedside(tmp_path, http=http)) as daemon:
        shutil.copy(stranger, key)
        daemon.reload()
        wait_for(lambda: daemon.services.alarms.stands("config-failed", "certificate of http"))
        assert shown(server_of(daemon).port, authority)
        key.unlink()
        daemon.reload()
        assert shown(server_of(daemon).port, authority)


def test_files_that_cannot_be_read_for_a_moment_are_read_when_they_can(tmp_path: Path) -> None:
    """A token that was taken back stays in force no longer than the reason why its file could not be opened."""
    path = tmp_path / "tokens"
    path.write_text("old")
    told: list[str | None] = []

    def read() -> str:
        try:
            return path.read_text()
        except OSError as error:
            raise from_os_error(error, path) from error

    renewed = Renewed([path], read, lambda error: told.append(None if error is None else error.what))
    path.write_text("new")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        assert renewed.now() == "old"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert renewed.now() == "new"
    assert [what is None for what in told] == [True, False, True]


def test_files_that_come_back_as_they_were_are_right_again(tmp_path: Path) -> None:
    """On a disk that was away, say; and what is wrong is told once, not at each look."""
    kept, path = tmp_path / "kept", tmp_path / "tokens"
    kept.write_text(token("old"))
    path.symlink_to(kept)
    told: list[bool] = []
    renewed = Renewed([path], lambda: read_tokens(path), lambda error: told.append(error is None))
    before = renewed.now()
    path.unlink()
    assert [renewed.now() for _ in range(3)] == [before] * 3
    path.symlink_to(kept)
    assert renewed.now() == before
    assert told == [True, False, True]
