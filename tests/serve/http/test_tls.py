"""HTTP and gRPC over TLS, mutual where an authority is named; a changed certificate is shown at once."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import httpx
import pytest

from tests.serve import kit
from tests.serve.dicom.certificates import Authority
from tests.serve.http.client import Client
from tests.serve.http.conftest import server_of
from tests.serve.process import free_port, started
from tests.waiting import wait_for


def context(authority: Authority, own: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(authority.path))
    if own is not None:
        made.load_cert_chain(*own)
    return made


def test_mutual_tls_and_renewal(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    certificate, key = ours.issue("server")
    tls = {"certificate": certificate, "key": key, "ca": theirs.path}
    own = theirs.issue("client")
    http = {"host": "127.0.0.1", "port": 0, "grpc_port": 0, "tls": tls}
    with kit.running(kit.bedside(tmp_path, http=http)) as daemon:
        server = server_of(daemon)
        url = f"https://localhost:{server.port}/v2"
        with httpx.Client(verify=context(ours, own), trust_env=False) as client:
            assert client.get(url).status_code == 200
            assert server.addresses()[0].startswith("https://")
            long = b'{"inputs": [],' + b" " * 300_000 + b'"outputs": [{"name": "none"}]}'
            assert "input image is missing" in client.post(f"{url}/models/chest/infer", content=long).json()["error"]
        for refused in (context(ours), context(ours, ours.issue("stranger"))):
            with httpx.Client(verify=refused, trust_env=False) as client, pytest.raises(httpx.TransportError):
                client.get(url)
        old = context(ours, own)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is deprecated is why it is refused
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with httpx.Client(verify=old, trust_env=False) as client, pytest.raises(httpx.TransportError):
            client.get(url)

        other = Authority(tmp_path, "other")
        with rpc(server.grpc_port, ours, own) as before:
            assert before.call("ServerLive").live
            for new, place in zip(other.issue("renewed"), (certificate, key), strict=True):
                shutil.copy(new, place)
            with httpx.Client(verify=context(other, own), trust_env=False) as client:
                assert client.get(url).status_code == 200
            with rpc(server.grpc_port, other, own) as after:
                assert after.call("ServerLive").live
            assert before.call("ServerLive").live  # who is connected stays so
        with rpc(server.grpc_port, ours, own) as old, pytest.raises(grpc.RpcError) as caught:
            old.call("ServerLive")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

        key.write_bytes(b"no key")  # what cannot be used leaves the last one in force
        with rpc(server.grpc_port, other, own) as after:
            assert after.call("ServerLive").live
        assert daemon.services.alarms.stands("config-failed", "certificate of http")
        with rpc(server.grpc_port, other, other.issue("stranger")) as stranger, pytest.raises(grpc.RpcError):
            stranger.call("ServerLive")


def test_who_listens_anew_shows_the_last_certificate_that_could_be_used(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    certificate, key = ours.issue("server")
    tls = {"certificate": certificate, "key": key, "ca": theirs.path}
    own = theirs.issue("client")
    http = {"host": "127.0.0.1", "port": 0, "grpc_port": 0, "tls": tls}
    with kit.running(kit.bedside(tmp_path, http=http)) as daemon:
        server = server_of(daemon)
        assert server._rpc is not None
        assert server.grpc_port is not None
        first = server._rpc._server
        assert first is not None
        key.write_bytes(b"no key")
        first.stop(0).wait()
        wait_for(lambda: server._rpc._server not in (None, first), "gRPC listens anew")
        with rpc(server.grpc_port, ours, own) as client:
            assert client.call("ServerLive").live


def test_who_knocks_without_tls_leaves_no_line(tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path, "ours").issue("server")
    ports = free_port(), free_port()
    tls = {"certificate": str(certificate), "key": str(key)}
    with started(tmp_path, http={"host": "127.0.0.1", "port": ports[0], "grpc_port": ports[1], "tls": tls}) as daemon:
        wait_for(lambda: "grpc listens" in daemon.log, "gRPC")
        for port in (*ports, *ports):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as stranger:
                stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
                with suppress(ConnectionError):
                    while stranger.recv(1024):
                        pass
        assert daemon.stop() == 0
    lines = [json.loads(line) for line in daemon.log.splitlines()]
    assert lines
    assert not [line["text"] for line in lines if "andshake" in line["text"]]


@contextmanager
def rpc(port: int | None, authority: Authority, own: tuple[Path, Path]) -> Iterator[Client]:
    """A client on a connection of its own."""
    credentials = grpc.ssl_channel_credentials(authority.path.read_bytes(), own[1].read_bytes(), own[0].read_bytes())
    with grpc.secure_channel(f"localhost:{port}", credentials, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield Client(channel)
