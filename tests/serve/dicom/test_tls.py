"""DICOM over TLS with DCMTK's programs: who shows the right certificate, and nobody else."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest

from tests.serve import kit
from tests.serve.dicom import rig
from tests.serve.dicom.certificates import Authority

pytestmark = rig.needs("echoscu", "storescu")


@pytest.fixture
def site(tmp_path: Path):
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")
    tls = {"certificate": certificate, "key": key, "ca": authority.path}
    with rig.inlet(tmp_path, tls=tls) as running:
        yield running, authority, tmp_path


def echo(port: int, *options: object, check: bool = True) -> str:
    return rig.dcmtk("echoscu", "-v", *options, "-aet", "CT1", "-aec", "EDGEMED", "localhost", port, check=check)


def test_mutual(site: tuple[rig.Rig, Authority, Path]) -> None:
    running, authority, folder = site
    certificate, key = authority.issue("modality")
    ours = ("+tls", key, certificate, "+cf", authority.path)
    assert "Received Echo Response (Success)" in echo(running.port, *ours)
    file = kit.write(kit.image(), folder / "a.dcm")
    said = rig.dcmtk("storescu", "-v", *ours, "-R", "-aet", "CT1", "-aec", "EDGEMED", "localhost", running.port, file)
    assert "Received Store Response (Success)" in said
    assert len(running.rows()) == 1


def test_nobody_else(site: tuple[rig.Rig, Authority, Path], tmp_path_factory: pytest.TempPathFactory) -> None:
    running, authority, _ = site
    stranger = Authority(tmp_path_factory.mktemp("stranger"), "stranger")
    theirs, their_key = stranger.issue("modality")
    good, good_key = authority.issue("modality")
    for options in (
        ("+tls", their_key, theirs, "+cf", authority.path),  # signed by somebody else
        ("+tla", "+cf", authority.path),  # none
        (),  # no TLS at all
    ):
        assert "Received Echo Response" not in echo(running.port, *options, check=False)
    before = running.metric("associations_rejected_total", reason="tls")
    assert before >= 3
    # and a peer that trusts another authority does not talk to us
    assert "Received Echo Response" not in echo(running.port, "+tls", good_key, good, "+cf", stranger.path, check=False)


def test_old_versions_are_refused(site: tuple[rig.Rig, Authority, Path]) -> None:
    running, authority, _ = site
    certificate, key = authority.issue("modality")
    for version, accepted in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(authority.path)
        context.load_cert_chain(certificate, key)
        context.set_ciphers("ALL:@SECLEVEL=0")  # so that it is the server that refuses
        context.options &= ~(ssl.OP_NO_TLSv1_1 | ssl.OP_NO_TLSv1)
        _only(context, version)
        with socket.create_connection(("127.0.0.1", running.port), timeout=20) as sock:
            if accepted:
                with context.wrap_socket(sock, server_hostname="localhost") as secure:
                    assert secure.version() == "TLSv1.2"
                    assert "ECDHE" in secure.cipher()[0]
                    secure.sendall(rig.associate())
                    assert secure.recv(1) == b"\x02"
            else:
                with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version|unsupported"):
                    context.wrap_socket(sock, server_hostname="localhost")


def test_one_that_does_not_shake_hands_holds_nobody_up(site: tuple[rig.Rig, Authority, Path]) -> None:
    running, authority, _ = site
    certificate, key = authority.issue("modality")
    with socket.create_connection(("127.0.0.1", running.port)):  # says nothing
        assert "Success" in echo(running.port, "+tls", key, certificate, "+cf", authority.path)


def test_a_new_certificate_is_taken_up(site: tuple[rig.Rig, Authority, Path]) -> None:
    running, authority, folder = site
    ours, our_key = authority.issue("modality")
    first = _shown(running.port, authority, ours, our_key)
    certificate, key = authority.issue("renewed")
    (folder / "server.key").write_bytes(b"half wri")  # under way: the old pair stays
    assert _shown(running.port, authority, ours, our_key) == first
    key.replace(folder / "server.key")
    certificate.replace(folder / "server.crt")
    assert _shown(running.port, authority, ours, our_key) != first


def _shown(port: int, authority: Authority, certificate: Path, key: Path) -> bytes | None:
    context = ssl.create_default_context(cafile=authority.path)
    context.load_cert_chain(certificate, key)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as secure,
    ):
        return secure.getpeercert(binary_form=True)


def _only(context: ssl.SSLContext, version: ssl.TLSVersion) -> None:
    import warnings

    with warnings.catch_warnings():  # Python warns of old versions, which is what this is about
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
