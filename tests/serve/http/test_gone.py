"""Clients that go away before they are answered take their requests with them: no work for nobody."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import grpc
import numpy as np
import pytest

from edgemed.serve.http.proto import SERVICE, Proto
from tests.runtime.contained import kit as contained
from tests.runtime.contained.faulty import AT_INFER, answer
from tests.serve.http.conftest import served
from tests.serve.models.kit import MS, faulty_worker, write_faulty
from tests.waiting import wait_for

PATH = "/v2/models/chest/infer"


def asking(port: int, seed: int) -> socket.socket:
    """A client that has asked."""
    values = contained.frame(seed)["x"].ravel().tolist()
    data = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 16], "data": values}]}).encode()
    sock = socket.create_connection(("127.0.0.1", port), timeout=60)
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    sock.sendall(head.encode() + data)
    return sock


def test_what_waits_for_who_went_away_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control = faulty_worker(monkeypatch, tmp_path / "control", hang_ns=4000 * MS)
    bundle = write_faulty(tmp_path / "faulty.edgemed")
    with served(tmp_path, bundle=bundle) as (daemon, server, _):
        models = daemon.services.models
        scheduler = models.get("chest").scheduler

        def counted(protocol: str, outcome: str) -> float:
            labels = {"model": "chest", "protocol": protocol, "outcome": outcome}
            return daemon.services.metrics.registry.get_sample_value("edgemed_requests_total", labels) or 0.0

        control.tell("hang")  # the first one takes seconds: till its worker is killed and another one is there
        first = asking(server.port, 1)
        wait_for(lambda: control.words[AT_INFER] == 0)
        gone = [asking(server.port, seed) for seed in (2, 3)]
        stays = asking(server.port, 4)
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            request, _ = Proto().methods["ModelInfer"]
            tensor = {"name": "x", "datatype": "FP32", "shape": [1, 16]}
            message = request(
                model_name="chest", inputs=[tensor], raw_input_contents=[contained.frame(5)["x"].tobytes()]
            )
            call = channel.unary_unary(f"/{SERVICE}/ModelInfer").future(message.SerializeToString())
            wait_for(lambda: models.describe("chest")["waiting"] == 4)
            call.cancel()
            for sock in (*gone, first):
                sock.close()
            wait_for(lambda: models.describe("chest")["waiting"] == 1)
        assert scheduler.dropped["cancelled"] == 3
        wait_for(lambda: (counted("http", "gone"), counted("grpc", "gone")) == (3.0, 1.0))
        with stays:  # who waited is answered, rightly
            said = b""
            while piece := stays.recv(1 << 16):
                said += piece
        outputs = json.loads(said.partition(b"\r\n\r\n")[2])["outputs"]
        right = answer(contained.frame(4)["x"]).ravel()
        assert np.array_equal(np.float32(outputs[0]["data"]), right)
        assert counted("http", "answered") == 1.0
        told = {"model": "chest", "reason": "cancelled"}
        assert daemon.services.metrics.registry.get_sample_value("edgemed_inferences_dropped_total", told) == 3.0
        assert scheduler.dropped["cancelled"] == 3
