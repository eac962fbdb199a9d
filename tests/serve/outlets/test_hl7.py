"""HL7 over MLLP: against the hl7 library's server, and against servers that acknowledge badly."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edgemed.imaging.results import make_results
from edgemed.imaging.results.content import Author, Content, Reading, Score
from edgemed.serve.outlets.lane import Lane
from edgemed.serve.outlets.mllp import END, START, Hl7Courier, acknowledged, control_id
from edgemed.serve.outlets.outlets import make_lane
from tests.serve import kit
from tests.serve.dicom.certificates import Authority
from tests.serve.outlets import bench
from tests.serve.outlets.bench import always
from tests.serve.outlets.servers import mllp

RETRY = {"first": "10s", "cap": "20s", "timeout": "2s"}


def render(result: Any) -> bytes:
    return (
        f"MSH|^~\\&|EDGEMED||RIS||20260105102030||ORU^R01^ORU_R01|{result['id']}|P|2.5.1\r"
        f"PID|1||4711\rOBX|1|ST|X||{result['text']}||||||F\r"
    ).encode()


def deliver(root: Path, port: int, *results: dict[str, str], **more: Any) -> tuple[list[str], list[str]]:
    place = {"kind": "hl7", "name": "ris", "host": "127.0.0.1", "port": port, "retry": RETRY, **more}
    with bench.services(root, place) as services:
        for result in results:
            bench.add_task(services, [("json", "", json.dumps(result).encode())])
        destination = services.config.destinations[0]
        assert destination.kind == "hl7"
        Lane(services, "ris", destination.retry, Hl7Courier(destination, render)).step(always)
        return bench.states(services), bench.reasons(services)


def test_messages_arrive_whole_and_are_acknowledged(tmp_path: Path) -> None:
    with mllp(lambda message: None) as (port, messages):
        states, _ = deliver(tmp_path, port, {"id": "1", "text": "Grüße 日本"}, {"id": "2", "text": "x" * 100_000})
    assert states == ["delivered"] * 2
    assert [message.encode() for message in messages] == [
        render({"id": "1", "text": "Grüße 日本"}),
        render({"id": "2", "text": "x" * 100_000}),
    ]


def test_over_tls_to_who_the_site_trusts(tmp_path: Path) -> None:
    site, other = Authority(tmp_path, "site"), Authority(tmp_path, "other")
    ours, theirs = site.issue("ours"), site.issue("theirs")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*theirs)
    server.load_verify_locations(site.path)
    server.verify_mode = ssl.CERT_REQUIRED
    tls = {"certificate": ours[0], "key": ours[1], "ca": site.path}
    result = {"id": "1", "text": "x" * 100_000}
    with mllp(lambda message: None, tls=server) as (port, messages):
        said = deliver(tmp_path / "a", port, result, result, host="localhost", tls=tls)
        assert said[0] == ["delivered"] * 2
        assert [message.encode() for message in messages] == [render(result)] * 2
        for name, place in (
            ("b", {"host": "localhost", "tls": {**tls, "ca": other.path}}),
            ("c", {"host": "127.0.0.1", "tls": tls}),  # its certificate does not name it
        ):
            states, reasons = deliver(tmp_path / name, port, result, **place)
            assert (states, "certificate is not trusted" in reasons[0]) == (["pending"], True)
        assert deliver(tmp_path / "d", port, result)[0] == ["pending"]
        assert len(messages) == 2
    with mllp(lambda message: None) as (port, messages):
        states, reasons = deliver(tmp_path / "e", port, result, host="localhost", tls=tls)
        assert (states, messages) == (["pending"], [])


def ack(code: str, control: str = "1", *more: str) -> bytes:
    segments = [f"MSH|^~\\&|RIS||EDGEMED||20260105||ACK|9|P|2.5.1\rMSA|{code}|{control}", *more]
    return START + "\r".join(segments).encode() + b"\r" + END


@pytest.mark.parametrize(
    ("answer", "state", "reason"),
    [
        (lambda _: ack("AA"), "delivered", ""),
        (lambda _: ack("CA"), "delivered", ""),
        (lambda _: ack("AE"), "pending", "AE"),
        (lambda _: ack("AE", "1", "ERR||PID^1^3|101^Required field missing^HL70357|E"), "failed", "AE (101)"),
        (lambda _: ack("AE", "1", "ERR||| 207^Doe^HL70357|E"), "pending", "AE"),
        (lambda _: ack("AR"), "failed", "AR"),
        (lambda _: ack("AR", "1", "ERR|||207^Application error^HL70357|E"), "pending", "AR (207)"),
        (lambda _: ack("AR", "1", "ERR|PID^1^3^102&Type&HL70357"), "failed", "AR"),
        (lambda _: ack("AA", "2"), "pending", "another message"),
        (lambda _: ack("ZZ"), "pending", "another message"),
        (lambda _: ack("AA")[:-2], "pending", "in time"),
        (lambda _: b"", "pending", "no acknowledgement"),
        (lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n", "pending", "no acknowledgement"),
        (lambda _: ack("AA", "2") + ack("AA"), "pending", "no acknowledgement"),
        (lambda _: START + b"MSA|AA|1" + END, "pending", "another message"),
    ],
)
def test_what_an_acknowledgement_means(tmp_path: Path, answer: Callable[[str], bytes], state: str, reason: str) -> None:
    with mllp(answer) as (port, _):
        states, reasons = deliver(tmp_path, port, {"id": "1", "text": "x"})
    assert states == [state]
    assert reason in reasons[0]
    assert "Doe" not in reasons[0]


def test_a_message_without_a_control_id_is_never_acknowledged() -> None:
    assert control_id(b"MSH|^~\\&|A") == b""
    assert acknowledged(b"MSH|^~\\&|A\rMSA|AA|", b"") is None
    assert acknowledged(b"MSH|^~\\&|A\nMSA|AA|7\n", b"7") is not None  # some end segments by line feeds


def a_result(path: Path) -> bytes:
    """The JSON form of an answer about a file."""
    author = Author("chest", "1", "0" * 64, "int8", "onnxruntime", "cpu", "bedside", "edgemed")
    scores = (Score("normal", 0.1, False), Score("pneumonia", 0.9, True))
    reading = Reading("output", "binary", source=0, scores=scores, threshold=0.5)
    content = Content(author, (path,), datetime(2026, 1, 5, 10, 20, 30, tzinfo=timezone.utc), (reading,))
    (made,) = make_results(content, ["json"])
    return made.data


def test_a_real_result_becomes_a_message(tmp_path: Path) -> None:
    dicom = kit.write(kit.image(), tmp_path / "image.dcm")
    picture = tmp_path / "picture.png"
    Image.new("L", (8, 8)).save(picture)
    place = {"kind": "hl7", "name": "ris", "host": "127.0.0.1", "retry": RETRY, "application": "OURS"}
    with (
        mllp(lambda message: None) as (port, messages),
        bench.services(tmp_path, {**place, "port": port}) as services,
    ):
        for path in (dicom, picture):
            bench.add_task(services, [("json", "", a_result(path))])
        make_lane(services, services.config.destinations[0]).step(always)
        assert bench.states(services) == ["delivered", "failed"]  # nobody's record takes what is about no patient
        assert "no DICOM file" in bench.reasons(services)[1]
    (message,) = messages
    assert message.startswith("MSH|^~\\&|OURS|bedside|")
    assert "|4711" in message
    assert "pneumonia" in message
