"""Webhook and STOW-RS against servers that are right, wrong, slow and lying."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest

from edgemed.base.errors import InputError
from edgemed.serve.against import Delivered
from edgemed.serve.config.destinations import DicomWebDestination, WebhookDestination
from edgemed.serve.config.network import Tls
from edgemed.serve.outlets.courier import Unavailable
from edgemed.serve.outlets.outlets import make_lane
from edgemed.serve.outlets.qido import QidoClient
from edgemed.serve.outlets.stow import Unreadable, parse_stored
from edgemed.serve.tls import server_context
from tests.serve import kit
from tests.serve.dicom.certificates import Authority
from tests.serve.outlets import bench
from tests.serve.outlets.bench import always
from tests.serve.outlets.servers import Asked, Reply, site

RETRY = {"first": "10s", "cap": "20s", "timeout": "5s"}
RESULT = b'{"schema":"edgemed/result/1"}'


def hook(port: int, **more: Any) -> dict[str, Any]:
    return {"kind": "webhook", "name": "hook", "url": f"http://127.0.0.1:{port}/in?x=1", "retry": RETRY, **more}


def stow(port: int, **more: Any) -> dict[str, Any]:
    return {"kind": "dicomweb", "name": "web", "url": f"http://127.0.0.1:{port}/dicom-web", "retry": RETRY, **more}


def one_step(root: Path, place: dict[str, Any], results: list[tuple[str, str, bytes]]) -> tuple[list[str], list[str]]:
    with bench.services(root, place) as services:
        bench.add_task(services, results)
        lane = make_lane(services, services.config.destinations[0])
        lane.step(always)
        lane._courier.close()
        return bench.states(services), bench.reasons(services)


# webhook


def test_the_result_is_posted_and_signed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    with site(lambda asked: (204, {}, b"")) as server:
        states, _ = one_step(tmp_path, hook(server.port, secret=secret), [("json", "", RESULT)])
    assert states == ["delivered"]
    (asked,) = server.asked
    assert asked.path == "/in?x=1"
    assert asked.body == RESULT
    assert asked.headers["content-type"] == "application/json"
    assert len(asked.headers["idempotency-key"]) == 32
    found = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", asked.headers["edgemed-signature"])
    assert found is not None
    wanted = hmac.new(b"s3cret", found[1].encode() + b"." + asked.body, hashlib.sha256).hexdigest()
    assert hmac.compare_digest(wanted, found[2])


def test_each_try_has_the_same_key(tmp_path: Path) -> None:
    statuses = iter([500, 200])
    with (
        site(lambda asked: (next(statuses), {}, b"")) as server,
        bench.services(tmp_path, hook(server.port, retry={**RETRY, "first": "1ms", "cap": "1ms"})) as services,
    ):
        bench.add_task(services, [("json", "", RESULT)])
        for _ in range(2):  # as after a restart
            lane = make_lane(services, services.config.destinations[0])
            lane.step(always)
            lane._courier.close()
        assert bench.states(services) == ["delivered"]
    first, second = (asked.headers["idempotency-key"] for asked in server.asked)
    assert first == second


@pytest.mark.parametrize(
    ("reply", "state", "reason"),
    [
        ((200, {}, b""), "delivered", ""),
        ((400, {}, b"Doe^Jane is unknown"), "failed", "HTTP 400"),
        ((422, {}, b""), "failed", "HTTP 422"),
        ((401, {}, b""), "pending", "HTTP 401"),
        ((404, {}, b""), "pending", "HTTP 404"),
        ((429, {"Retry-After": "7"}, b""), "pending", "HTTP 429"),
        ((500, {}, b""), "pending", "HTTP 500"),
        ((503, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, b""), "pending", "HTTP 503"),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), "pending", "HTTP 302"),
        ((200, {"Content-Length": "100"}, b"short"), "pending", "in time"),
    ],
)
def test_what_the_answer_of_a_hook_means(tmp_path: Path, reply: Reply, state: str, reason: str) -> None:
    with site(lambda asked: reply) as server:
        place = hook(server.port, retry={**RETRY, "timeout": "500ms"})
        states, reasons = one_step(tmp_path, place, [("json", "", RESULT)])
    assert states == [state]
    assert reason in reasons[0]
    assert "Doe" not in reasons[0]
    assert len(server.asked) == 1


def test_a_hook_that_never_ends_its_answer(tmp_path: Path) -> None:
    release = threading.Event()

    def hang(asked: Asked) -> Reply:
        release.wait(10)
        return 200, {}, b""

    with site(hang) as server:
        place = hook(server.port, retry={**RETRY, "timeout": "300ms"})
        states, reasons = one_step(tmp_path, place, [("json", "", RESULT)])
        release.set()
    assert (states, reasons) == (["pending"], ["It does not answer in time."])


def test_a_hook_that_says_a_byte_now_and_then(tmp_path: Path) -> None:
    """Each read has its answer in time, and the whole never comes."""
    ended = threading.Event()
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def trickle() -> None:
            peer, _ = server.accept()
            with peer, suppress(OSError):
                peer.recv(1 << 16)
                for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000:
                    if ended.wait(0.05):
                        return
                    peer.sendall(bytes([byte]))

        thread = threading.Thread(target=trickle)
        thread.start()
        place = hook(server.getsockname()[1], retry={**RETRY, "timeout": "500ms"})
        states, reasons = one_step(tmp_path, place, [("json", "", RESULT)])
        ended.set()
        thread.join()
    assert (states, reasons) == (["pending"], ["It does not answer in time."])


def test_certificates_are_checked(tmp_path: Path) -> None:
    ca, tls = certificate(tmp_path)
    with site(lambda asked: (200, {}, b""), tls) as server:
        place = hook(server.port, url=f"https://localhost:{server.port}/in")
        states, reasons = one_step(tmp_path / "a", place, [("json", "", RESULT)])
        assert states == ["pending"]
        assert "certificate is not trusted" in reasons[0]
        states, reasons = one_step(tmp_path / "b", {**place, "ca": ca}, [("json", "", RESULT)])
        assert (states, reasons) == (["delivered"], [""])


def test_a_secret_that_is_none_is_refused_at_the_start(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    with bench.services(tmp_path, hook(1, secret=empty)) as services, pytest.raises(InputError, match="holds none"):
        make_lane(services, services.config.destinations[0])


# STOW-RS


def told(kept: list[str] = [], failed: dict[str, int] | None = None, warning: int = 0) -> bytes:  # noqa: B006
    def item(uid: str, **codes: int) -> dict[str, Any]:
        made = {"00081150": {"vr": "UI", "Value": [kit.CT]}, "00081155": {"vr": "UI", "Value": [uid]}}
        return made | {tag: {"vr": "US", "Value": [code]} for tag, code in codes.items()}

    return json.dumps(
        {
            "00081199": {"vr": "SQ", "Value": [item(u, **({"00081196": warning} if warning else {})) for u in kept]},
            "00081198": {"vr": "SQ", "Value": [item(u, **{"00081197": c}) for u, c in (failed or {}).items()]},
        }
    ).encode()


JSON = {"Content-Type": "application/dicom+json"}


def instance() -> tuple[str, bytes]:
    ds = kit.image(rows=16, columns=16)
    return ds.SOPInstanceUID, kit.encode(ds)


def test_the_very_file_is_stored(tmp_path: Path) -> None:
    uid, data = instance()
    token = tmp_path / "token"
    token.write_text("abc")
    with site(lambda asked: (200, JSON, told([uid]))) as server:
        states, _ = one_step(tmp_path, stow(server.port, token=token), [("sr", uid, data)])
    assert states == ["delivered"]
    (asked,) = server.asked
    assert asked.path == "/dicom-web/studies"
    assert asked.headers["authorization"] == "Bearer abc"
    assert asked.headers["accept"] == "application/dicom+json"
    head = f"Content-Type: {asked.headers['content-type']}\r\n\r\n".encode()
    whole = message_from_bytes(head + asked.body)
    assert whole.get_content_type() == "multipart/related"
    assert whole.get_param("type") == "application/dicom"
    (part,) = whole.get_payload()
    assert part.get_content_type() == "application/dicom"
    boundary = whole.get_param("boundary")
    start = asked.body.index(b"\r\n\r\n") + 4
    assert asked.body[start:] == data + f"\r\n--{boundary}--\r\n".encode()


@pytest.mark.parametrize(
    ("reply", "state", "reason"),
    [
        (lambda uid: (202, JSON, told([uid], warning=0xB000)), "delivered", "0xB000"),
        (lambda uid: (202, JSON, told([], {uid: 0xA700})), "pending", "out of resources"),
        (lambda uid: (200, JSON, told([uid], {uid: 0xA700})), "pending", "out of resources"),
        (lambda uid: (409, JSON, told([], {uid: 0xC000})), "failed", "cannot understand"),
        (lambda uid: (200, JSON, told(["1.2.3"])), "pending", "stored this one"),
        (lambda uid: (200, JSON, b""), "pending", "does not say"),
        (lambda uid: (200, JSON, b"{}"), "pending", "does not say"),
        (lambda uid: (200, {"Content-Type": "text/html"}, b"<html>Welcome</html>"), "pending", "does not say"),
        (lambda uid: (400, {}, b"no"), "failed", "HTTP 400"),
        (lambda uid: (413, {}, b""), "failed", "HTTP 413"),
        (lambda uid: (503, {}, b""), "pending", "HTTP 503"),
    ],
)
def test_what_the_answer_of_a_service_means(
    tmp_path: Path, reply: Callable[[str], Reply], state: str, reason: str
) -> None:
    uid, data = instance()
    with site(lambda asked: reply(uid)) as server:
        states, reasons = one_step(tmp_path, stow(server.port), [("sr", uid, data)])
    assert states == [state]
    assert reason in reasons[0]


def test_answers_in_xml_and_in_lists() -> None:
    xml = f"""<?xml version="1.0"?><NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">
      <DicomAttribute tag="00081199" vr="SQ"><Item number="1">
        <DicomAttribute tag="00081155" vr="UI"><Value number="1">1.2</Value></DicomAttribute></Item></DicomAttribute>
      <DicomAttribute tag="00081198" vr="SQ"><Item number="1">
        <DicomAttribute tag="00081155" vr="UI"><Value number="1">1.3</Value></DicomAttribute>
        <DicomAttribute tag="00081197" vr="US"><Value number="1">{0xA900}</Value></DicomAttribute></Item>
      </DicomAttribute></NativeDicomModel>""".encode()
    found = parse_stored(xml, "application/dicom+xml")
    assert (found.kept, found.failed) == ({"1.2": 0}, {"1.3": 0xA900})
    listed = parse_stored(b"[" + told(["1.2"]) + b"]", "application/dicom+json")
    assert listed.kept == {"1.2": 0}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"[" * 100_000, "json"),
        (b'{"00081199": 5}', "json"),
        (b'{"00081199": {"Value": [{"00081155": {"Value": []}}]}}', "json"),
        (b'{"00081199": {"Value": [{}]}}', "json"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "xml"),
        ('<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a><a/>'.encode("utf-16"), "xml"),
        (b"<a/>", "xml"),
        (b"<a", "xml"),
    ],
)
def test_answers_that_are_none(body: bytes, kind: str) -> None:
    with pytest.raises(Unreadable):
        parse_stored(body, f"application/dicom+{kind}")


def certificate(root: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate of localhost that signs itself."""
    from datetime import timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    from edgemed.serve.clock import utc

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(utc() - timedelta(days=1))
        .not_valid_after(utc() + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    public, private = root / "ca.pem", root / "key.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return public, context


@pytest.mark.parametrize("kind", ["webhook", "dicomweb"])
def test_a_server_that_asks_for_a_certificate_is_shown_ours(tmp_path: Path, kind: str) -> None:
    authority, (uid, data) = Authority(tmp_path), instance()
    certificate, key = authority.issue("localhost")
    asking = server_context(Tls(certificate=certificate, key=key, ca=authority.path))
    ours, secret = authority.issue("bedside")
    tls = {"certificate": ours, "key": secret, "ca": authority.path}
    with site(lambda asked: (200, JSON, told([uid])), asking) as server:
        place = {"kind": kind, "name": "web", "url": f"https://localhost:{server.port}/in", "retry": RETRY}
        result = ("json", "", RESULT) if kind == "webhook" else ("sr", uid, data)
        states, _ = one_step(tmp_path / "without", {**place, "ca": authority.path}, [result])
        assert (states, server.asked) == (["pending"], [])
        states, _ = one_step(tmp_path / "with", {**place, "tls": tls}, [result])
        assert (states, len(server.asked)) == (["delivered"], 1)


def test_an_archive_that_asks_for_a_certificate_is_shown_ours_in_queries(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("localhost")
    asking = server_context(Tls(certificate=certificate, key=key, ca=authority.path))
    ours, secret = authority.issue("bedside")
    tls = Tls(certificate=ours, key=secret, ca=authority.path)
    one = Delivered(1, "web", 1, 1, "sr", "1.2.3", "1.2", None)
    with site(lambda asked: (204, {}, b""), asking) as server:
        url = f"https://localhost:{server.port}/dicom-web"
        with closing(QidoClient(DicomWebDestination(name="web", url=url, tls=tls))) as client:
            assert not client.has(one)
        without = QidoClient(DicomWebDestination(name="web", url=url, ca=authority.path))
        with closing(without), pytest.raises(Unavailable):
            without.has(one)
    assert len(server.asked) == 1


def test_a_certificate_that_is_renewed_is_shown_by_the_next_request(tmp_path: Path) -> None:
    authority, seen = Authority(tmp_path), []
    certificate, key = authority.issue("localhost")
    asking = server_context(Tls(certificate=certificate, key=key, ca=authority.path))
    tls = Tls(**dict(zip(("certificate", "key"), authority.issue("bedside"), strict=True)), ca=authority.path)
    asking.sni_callback = lambda *_: seen.append(1)
    one = Delivered(1, "web", 1, 1, "sr", "1.2.3", "1.2", None)
    with site(lambda asked: (204, {}, b""), asking) as server:
        url = f"https://localhost:{server.port}/dicom-web"
        with closing(QidoClient(DicomWebDestination(name="web", url=url, tls=tls))) as client:
            client.has(one)
            client.has(one)
            assert len(seen) == 1  # the connection is kept
            authority.issue("bedside")
            client.has(one)
            assert len(seen) == 2


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ({"url": "http://localhost/"}, "is for https"),
        ({"url": "https://localhost/", "ca": "ca.pem"}, "its ca stands in tls"),
    ],
)
def test_tls_that_cannot_be_meant_is_refused(lines: dict[str, str], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        WebhookDestination(name="hook", tls={"certificate": "a", "key": "b"}, **lines)  # type: ignore[arg-type]
