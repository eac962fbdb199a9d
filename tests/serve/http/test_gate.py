"""Who is let through, and what every answer carries."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from edgemed.base.errors import InputError
from edgemed.serve.audit.trail import AuditEvent
from edgemed.serve.config import load_config
from edgemed.serve.config.inlets import HttpSection
from edgemed.serve.http import access, tokens
from edgemed.serve.http.answers import HttpError
from edgemed.serve.http.oip.infer import Desk
from edgemed.serve.http.oip.rpc import RpcServer
from tests.serve.http.client import Client, silent
from tests.serve.http.conftest import served
from tests.waiting import wait_for

SECRETS = {"gateway": "g" * 43, "modality": "m" * 43, "screen": "s" * 43, "it": "a" * 43}
ROLES = {"gateway": "infer", "modality": "store", "screen": "read", "it": "admin"}


def lines(secrets: dict[str, str]) -> str:
    rows = [f"{name} {ROLES[name]} {hashlib.sha256(secret.encode()).hexdigest()}" for name, secret in secrets.items()]
    return "# name role sha256\n\n" + "\n".join(rows) + "\n"


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {SECRETS[name]}"}


@dataclass
class Trail:
    """An audit trail in memory."""

    events: list[AuditEvent] = field(default_factory=list)

    def record(self, event: AuditEvent) -> None:
        self.events.append(event)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    root = tmp_path_factory.mktemp("secured")
    (root / "tokens").write_text(lines(SECRETS))
    with served(root, http={"tokens": root / "tokens", "max_requests": 4}) as three:
        yield three


# -- tokens ------------------------------------------------------------------------------------------------------------

TABLE = {
    ("GET", "/v2/health/live"): set(ROLES),
    ("GET", "/v2/models/chest"): {"gateway", "it"},
    ("POST", "/v2/models/chest/infer"): {"gateway", "it"},
    ("POST", "/v2/repository/index"): {"gateway", "it"},
    ("POST", "/v2/repository/models/chest/load"): {"it"},
    ("POST", "/dicom-web/studies"): {"modality", "it"},
    ("GET", "/metrics"): {"screen", "it"},
    ("GET", "/openapi.json"): {"screen", "it"},
    ("GET", "/audit"): {"it"},
    ("GET", "/api/audit"): {"it"},
    ("GET", "/nothing"): {"screen", "it"},
    ("POST", "/nothing"): {"it"},
}


@pytest.mark.parametrize(("method", "path"), TABLE)
def test_each_role_opens_what_it_is_for(secured: Any, method: str, path: str) -> None:
    client = secured[2]
    for name in ROLES:
        status = client.request(method, path, headers=bearer(name)).status_code
        assert (status != 403) is (name in TABLE[method, path]), (name, status)
        assert status != 401
    if path.startswith("/v2/health/"):
        assert client.request(method, path).status_code == 200
    else:
        answer = client.request(method, path)
        assert (answer.status_code, "Bearer" in answer.headers["www-authenticate"]) == (401, True)
        assert answer.json()["error"]


def test_browsers_send_basic(secured: Any) -> None:
    pair = base64.b64encode(f"anybody:{SECRETS['gateway']}".encode()).decode()
    assert secured[2].get("/v2", headers={"Authorization": f"Basic {pair}"}).status_code == 200
    for broken in ("Basic !", "Basic", "Digest x", "Bearer", ""):
        assert secured[2].get("/v2", headers={"Authorization": broken}).status_code in (401, 429)


def test_grpc_receives_nothing_from_who_has_no_token(secured: Any) -> None:
    """A message may be long: who asks is known before it is in memory."""
    with grpc.insecure_channel(f"127.0.0.1:{secured[1].grpc_port}") as channel, silent(channel, "ModelInfer") as call:
        assert call.code() is grpc.StatusCode.UNAUTHENTICATED


def test_grpc_wants_a_token_too(secured: Any) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{secured[1].grpc_port}") as channel:
        client = Client(channel)
        assert client.call("ServerLive").live
        assert client.refused("ServerMetadata") == grpc.StatusCode.UNAUTHENTICATED
        request, response = client.proto.methods["ServerMetadata"]
        method = channel.unary_unary(
            "/inference.GRPCInferenceService/ServerMetadata", request.SerializeToString, response.FromString
        )
        assert method(request(), metadata=[("authorization", f"Bearer {SECRETS['gateway']}")]).name == "edgemed"
        with pytest.raises(grpc.RpcError) as caught:
            method(request(), metadata=[("authorization", f"Bearer {SECRETS['screen']}")])
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED


def test_wrong_tokens_are_counted_and_told_to_the_trail() -> None:
    trail = Trail()

    class None_:
        def of(self, secret: bytes) -> None:
            return None

    logins = access.Logins(None_(), trail)  # type: ignore[arg-type]
    statuses = []
    for _ in range(12):
        with pytest.raises(HttpError) as caught:
            logins.check("read", "10.0.0.1", b"Bearer wrong")
        statuses.append(caught.value.status)
    assert statuses == [401] * 10 + [429] * 2
    assert dict(caught.value.headers)[b"retry-after"].isdigit()
    assert [(event.kind, event.result) for event in trail.events] == [("login", "serious")] * 2  # not one for each
    with pytest.raises(HttpError) as caught:
        logins.check("read", "10.0.0.2", b"Bearer wrong")
    assert caught.value.status == 401  # another address


def test_a_changed_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_LOOK_NS", 0)
    path = tmp_path / "tokens"
    path.write_text(lines({"gateway": "one"}))
    said: list[bool] = []
    known = tokens.Tokens(path, lambda error: said.append(error is None))
    assert known.of(b"one") is not None
    path.write_text(lines({"gateway": "another"}))
    assert known.of(b"one") is None
    assert known.of(b"another") is not None
    path.write_text("half a li")  # somebody is writing it
    assert known.of(b"another") is not None
    assert said == [True, False]  # once each; what was right and is so still is not told
    path.unlink()
    assert known.of(b"another") is not None
    path.write_text(lines({"gateway": "one"}))
    assert known.of(b"one") is not None
    assert said == [True, False, False, True]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "name read",
        "name boss " + "0" * 64,
        "name read " + "0" * 63,
        "a read {0}\na read {0}".format("0" * 64),
    ],
)
def test_files_that_are_no_tokens(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(InputError):
        tokens.read_tokens(path)


def test_without_tokens_only_loopback(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3"):
        assert HttpSection(host=host).tokens is None
    for host in ("0.0.0.0", "::", "192.168.1.2", "bedside.hospital"):
        with pytest.raises(ValueError, match="open to the network"):
            HttpSection(host=host)
        assert HttpSection(host=host, tokens=tmp_path / "tokens").host == host
    text = '[daemon]\nstate = "s"\n[http]\nhost = "0.0.0.0"\n[[models]]\nname = "m"\nbundle = "b"\n'
    (tmp_path / "bedside.toml").write_text(text)
    with pytest.raises(InputError, match="tokens") as caught:
        load_config(tmp_path / "bedside.toml")
    assert caught.value.exit_code == 2


# -- hosts and origins -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("192.0.2.7", 200),  # an address cannot be pointed elsewhere by whoever owns a name
        ("bedside.hospital", 200),
        ("BEDSIDE.hospital:80", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("evil.example:127.0.0.1", 421),
        ("", 400),
    ],
)
def test_hosts(host: str, status: int) -> None:
    hosts = access.Hosts(HttpSection(names=("bedside.hospital",)))
    if status == 200:
        hosts.check(host.encode())
        return
    with pytest.raises(HttpError) as caught:
        hosts.check(host.encode())
    assert caught.value.status == status


def test_a_name_that_was_pointed_here_is_refused(client: httpx.Client) -> None:
    assert client.get("/v2/health/live", headers={"Host": "evil.example"}).status_code == 421


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost:1"}, 200),
        ({"Origin": "http://localhost:2"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:1"}, 200),
    ],
)
def test_pages_of_other_sites_change_nothing(client: httpx.Client, headers: dict[str, str], status: int) -> None:
    answer = client.post("/v2/repository/index", headers={"Host": "localhost:1", **headers})
    assert answer.status_code == status


# -- what every answer carries -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v2", "/nothing", "/v2/models/none", "/../../etc/passwd", "/static/"])
def test_headers(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert "server" not in answer.headers
    assert answer.status_code in (200, 404)
    assert "root:" not in answer.text


def test_inference_carries_them_too(client: httpx.Client) -> None:
    answer = client.post("/v2/models/chest/infer", content=bytes(64), headers={"Inference-Header-Content-Length": "0"})
    assert (answer.status_code, answer.headers["x-content-type-options"]) == (200, "nosniff")


def test_bodies_that_are_too_long(client: httpx.Client) -> None:
    for path in ("/v2/models/chest/infer", "/v2/repository/index"):
        assert client.post(path, content=bytes(5 << 20)).status_code == 413
    pieces = (bytes(1 << 16) for _ in range(80))
    assert client.post("/v2/models/chest/infer", content=pieces).status_code == 413  # its length is not told


def test_a_bug_tells_nothing(client: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    name = "^".join(("Doe", "Jane"))

    def fail(self: object) -> list[str]:
        raise RuntimeError(name)

    monkeypatch.setattr(Desk, "names", fail)  # of requests alone: loops ask the models themselves
    answer = client.post("/v2/repository/index")
    assert answer.status_code == 500
    wait_for(lambda: "a request failed" in caplog.text)  # it is written when the client has its answer already
    assert name not in answer.text + caplog.text


def test_a_bug_beside_the_requests_ends_nothing(
    running: Any, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What looks after certificates and gRPC each second fails, and goes on when it can."""
    alarms = running[0].services.alarms
    looked = threading.Event()

    def fail(self: object) -> None:
        looked.set()
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(RpcServer, "look", fail)
        assert looked.wait(30)
        wait_for(lambda: alarms.stands("loop-failed", "http look"))
        assert client.get("/v2/health/live").status_code == 200
    looks = threading.Event()
    look = RpcServer.look

    def seen(self: RpcServer) -> None:
        look(self)
        looks.set()

    monkeypatch.setattr(RpcServer, "look", seen)
    assert looks.wait(60)
    assert client.get("/v2/health/live").status_code == 200


def test_too_many_at_a_time(tmp_path: Path) -> None:
    """Places are taken by requests that do not come to their end; health is asked all the same."""
    with served(tmp_path, http={"max_requests": 2}) as (_, server, client):
        head = b"POST /v2/models/chest/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf"
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2)]
        try:
            for each in held:
                each.sendall(head)
            answer = client.get("/v2")
            while answer.status_code == 200:  # they are on their way
                answer = client.get("/v2")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert client.get("/v2/health/live").status_code == 200
        finally:
            for each in held:
                each.close()
        while client.get("/v2").status_code == 503:  # they went away, and gave back their places
            pass
        assert client.get("/v2").status_code == 200
