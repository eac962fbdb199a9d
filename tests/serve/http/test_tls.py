"""HTTP and gRPC over TLS, mutual where an authority is named; a changed certificate is shown at once."""

from __future__ import annotations

import shutil
import ssl
import warnings
from pathlib import Path

import grpc
import httpx
import pytest

from tests.serve import kit
from tests.serve.dicom.certificates import Authority
from tests.serve.http.conftest import server_of
from tests.serve.http.test_oip_rpc import Client


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
        credentials = grpc.ssl_channel_credentials(ours.path.read_bytes(), own[1].read_bytes(), own[0].read_bytes())
        with grpc.secure_channel(f"localhost:{server.grpc_port}", credentials) as channel:
            assert Client(channel).call("ServerLive").live

        other = Authority(tmp_path, "other")
        for new, place in zip(other.issue("renewed"), (certificate, key), strict=True):
            shutil.copy(new, place)
        with httpx.Client(verify=context(other, own), trust_env=False) as client:
            assert client.get(url).status_code == 200
