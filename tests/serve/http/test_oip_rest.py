"""The Open Inference Protocol over HTTP, against a running daemon."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

import httpx
import numpy as np
import pytest

from edgemed.runtime.contained.link import Link
from tests.waiting import wait_for

BRIGHT = np.full((1, 4, 4, 1), 0.9, np.float32)
INPUT = {"name": "image", "shape": [1, 4, 4, 1], "datatype": "FP32"}


def ask(client: httpx.Client, body: Any, path: str = "/v2/models/chest/infer", **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(path, content=content, headers=headers)


def in_json(**others: Any) -> dict[str, Any]:
    return {"inputs": [{**INPUT, "data": BRIGHT.ravel().tolist()}], **others}


def binary(data: bytes, **others: Any) -> tuple[bytes, dict[str, str]]:
    head = json.dumps({"inputs": [{**INPUT, "parameters": {"binary_data_size": 64}}], **others}).encode()
    return head + data, {"Inference-Header-Content-Length": str(len(head))}


def expected() -> float:
    return 1 / (1 + np.exp(-20 * (0.9 - 0.5)))


def test_health_and_metadata(client: httpx.Client) -> None:
    live, ready = client.get("/v2/health/live"), client.get("/v2/health/ready")
    assert (live.status_code, live.json()) == (200, {"live": True, "reasons": []})
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "live": True, "reasons": []})
    server = client.get("/v2").json()
    assert server["name"] == "edgemed"
    assert "binary_tensor_data" in server["extensions"]
    for path in ("/v2/models/chest", "/v2/models/chest/versions/1"):
        model = client.get(path).json()
        assert model["name"] == "chest"
        assert model["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [1, 4, 4, 1]}]
        assert client.get(path + "/ready").json() == {"name": "chest", "ready": True, "reasons": []}
    assert client.get("/v2/models/chest/config").json()["input"][0]["data_type"] == "TYPE_FP32"
    assert client.post("/v2/repository/index").json() == [{"name": "chest", "version": "1", "state": "READY"}]


@pytest.mark.parametrize("path", ["/v2/models/none", "/v2/models/chest/versions/9", "/v2/models/none/ready"])
def test_what_there_is_not(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "chest" in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/models/chest/load"),
        ("GET", "/v2/trace/setting"),
        ("GET", "/v2/systemsharedmemory/status"),
    ],
)
def test_extensions_that_are_not_offered(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 501
    assert answer.json()["error"]


@pytest.mark.parametrize("path", ["/v2/models/chest/infer", "/v2/models/chest/versions/1/infer"])
def test_json(client: httpx.Client, path: str) -> None:
    answer = ask(client, in_json(id="42"), path)
    assert answer.status_code == 200
    body = answer.json()
    assert (body["model_name"], body["model_version"], body["id"]) == ("chest", "1", "42")
    assert body["parameters"]["backend"] == "onnxruntime"
    assert len(body["parameters"]["bundle"]) == 64
    (output,) = body["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("score", "FP32", [1, 1])
    assert output["data"] == pytest.approx([expected()], rel=1e-5)  # one float32 sigmoid against a float64 one


def test_nested_json(client: httpx.Client) -> None:
    body = {"inputs": [{**INPUT, "data": BRIGHT.tolist()}]}
    assert ask(client, body).json()["outputs"][0]["data"] == pytest.approx([expected()], rel=1e-5)


def test_binary_in_and_out(client: httpx.Client) -> None:
    content, headers = binary(BRIGHT.tobytes(), outputs=[{"name": "score", "parameters": {"binary_data": True}}])
    answer = ask(client, content, **headers)
    assert answer.status_code == 200
    length = int(answer.headers["Inference-Header-Content-Length"])
    head = json.loads(answer.content[:length])
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 4}
    assert "data" not in head["outputs"][0]
    assert struct.unpack("<f", answer.content[length:])[0] == pytest.approx(expected(), rel=1e-5)


def free_berths(running: Any) -> int:
    return len(running[0].services.models.get("chest")._runner._berths._free)


def test_raw_inputs_come_straight_to_where_the_worker_reads_them(running: Any) -> None:
    """More at a time than there is room for, in an order of their own; each is answered for itself."""
    server = running[1]
    brightness = [0.3 + 0.04 * number for number in range(10)]
    asked = []
    for value in brightness:
        content, headers = binary(np.full((1, 4, 4, 1), value, np.float32).tobytes())
        lines = "".join(f"{name}: {text}\r\n" for name, text in headers.items())
        head = (
            f"POST /v2/models/chest/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n{lines}\r\n"
        )
        one = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        one.sendall(head.encode() + content[:-40])
        asked.append((one, content[-40:]))
    wait_for(lambda: free_berths(running) == 0)
    for number in (*range(0, 10, 2), *range(9, 0, -2)):
        one, rest = asked[number]
        one.sendall(rest)
        data = json.loads(one.recv(65536).partition(b"\r\n\r\n")[2])["outputs"][0]["data"]
        assert data == pytest.approx([1 / (1 + np.exp(-20 * (brightness[number] - 0.5)))], rel=1e-5)
        one.close()
    wait_for(lambda: free_berths(running) == 4)


def test_a_raw_input_is_not_copied(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[int] = []
    monkeypatch.setattr(Link, "fill", lambda _, slot, __: copies.append(slot))
    content, headers = binary(BRIGHT.tobytes())
    for body, own in ((content, headers), (BRIGHT.tobytes(), {"Inference-Header-Content-Length": "0"})):
        answer = ask(client, body, **own)
        assert (answer.status_code, copies) == (200, [])
    assert json.loads(ask(client, content, **headers).content)["outputs"][0]["data"] == pytest.approx(
        [expected()], rel=1e-5
    )


def test_however_a_request_ends_its_place_is_free_again(running: Any) -> None:
    _, server, client = running
    content, headers = binary(np.full((1, 4, 4, 1), np.nan, np.float32).tobytes())
    for _ in range(5):
        assert ask(client, content, **headers).status_code == 400
        assert ask(client, content, "/v2/models/chest/infer", **headers, Origin="http://elsewhere").status_code == 403
        assert ask(client, content.replace(b"FP32", b"FP64"), **headers).status_code == 400
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as gone:
            lines = f"Content-Length: {len(content)}\r\nInference-Header-Content-Length: {len(content) - 64}\r\n\r\n"
            gone.sendall(f"POST /v2/models/chest/infer HTTP/1.1\r\nHost: localhost\r\n{lines}".encode() + content[:-1])
        wait_for(lambda: free_berths(running) == 4)


def test_binary_for_all_outputs_but_one(client: httpx.Client) -> None:
    answer = ask(client, in_json(parameters={"binary_data_output": True}))
    assert answer.headers["content-type"] == "application/octet-stream"
    own = [{"name": "score", "parameters": {"binary_data": False}}]
    answer = ask(client, in_json(parameters={"binary_data_output": True}, outputs=own))
    assert "inference-header-content-length" not in answer.headers
    assert answer.json()["outputs"][0]["data"]


def test_a_body_that_is_the_input(client: httpx.Client) -> None:
    answer = ask(client, BRIGHT.tobytes(), **{"Inference-Header-Content-Length": "0"})
    assert answer.status_code == 200
    assert struct.unpack("<f", answer.content[-4:])[0] == pytest.approx(expected(), rel=1e-5)
    assert ask(client, BRIGHT.tobytes()[:-4], **{"Inference-Header-Content-Length": "0"}).status_code == 400


REFUSED: dict[str, Any] = {
    "not json": b"{",
    "not utf-8": b'{"inputs": "\xff"}',
    "no object": [],
    "deep": b"[" * 100_000,
    "no inputs": {},
    "inputs no list": {"inputs": {}},
    "an input that is no object": {"inputs": [1]},
    "no name": {"inputs": [{"shape": [1, 4, 4, 1], "datatype": "FP32", "data": []}]},
    "another name": {"inputs": [{**INPUT, "name": "other", "data": []}]},
    "twice": {"inputs": [{**INPUT, "data": BRIGHT.tolist()}] * 2},
    "another type": {"inputs": [{**INPUT, "datatype": "INT8", "data": [0] * 16}]},
    "another shape": {"inputs": [{**INPUT, "shape": [1, 16], "data": [0] * 16}]},
    "a huge shape": {"inputs": [{**INPUT, "shape": [2**62, 4, 4, 1], "data": [0]}]},
    "too few": {"inputs": [{**INPUT, "data": [0.5] * 15}]},
    "no data": {"inputs": [INPUT]},
    "NaN": json.dumps(in_json()).replace("0.8", "NaN ", 1).encode(),
    "another output": {**in_json(), "outputs": [{"name": "other"}]},
    "an output twice": {**in_json(), "outputs": [{"name": "score"}] * 2},
    "an id that is no text": in_json(id=1),
    "a timeout that is no number": in_json(parameters={"timeout": "1s"}),
    "a negative timeout": in_json(parameters={"timeout": -1}),
    "a priority that is no number": in_json(parameters={"priority": 0.5}),
    "parameters that are no object": in_json(parameters=[]),
    "size without bytes": {"inputs": [{**INPUT, "parameters": {"binary_data_size": 64}}]},
    "a size that is no number": {"inputs": [{**INPUT, "parameters": {"binary_data_size": True}}]},
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_as_it_must_be(client: httpx.Client, body: Any) -> None:
    answer = ask(client, body)
    assert answer.status_code == 400
    assert answer.json()["error"].endswith(".")


def test_binary_sizes_must_agree(client: httpx.Client) -> None:
    for data in (b"", BRIGHT.tobytes()[:-1], BRIGHT.tobytes() + b"x"):
        content, headers = binary(data)
        assert ask(client, content, **headers).status_code == 400
    content, _ = binary(BRIGHT.tobytes())
    for length in ("999999", "x", "-1", "1" * 30):
        assert ask(client, content, **{"Inference-Header-Content-Length": length}).status_code == 400


def test_unsupported_extensions_are_refused_not_ignored(client: httpx.Client) -> None:
    assert ask(client, in_json(parameters={"sequence_id": 7})).status_code == 501
    outputs = [{"name": "score", "parameters": {"classification": 3}}]
    assert ask(client, in_json(outputs=outputs)).status_code == 501
    answer = client.post("/v2/models/chest/infer", content=b"x", headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415


def test_infinity_in_is_the_clients_fault(client: httpx.Client) -> None:
    content, headers = binary(np.full((1, 4, 4, 1), np.nan, np.float32).tobytes())
    answer = ask(client, content, **headers)
    assert (answer.status_code, "NaN" in answer.json()["error"]) == (400, True)


def test_a_deadline_that_passes(client: httpx.Client) -> None:
    answer = ask(client, in_json(parameters={"timeout": 1}))  # a microsecond
    assert answer.status_code == 504
    assert answer.json()["error"]


def test_json_longer_than_the_model_can_need(client: httpx.Client) -> None:
    answer = ask(client, in_json(id="x" * (2 << 20)))
    assert (answer.status_code, "more than" in answer.json()["error"]) == (400, True)


def test_it_is_counted(running: Any, client: httpx.Client) -> None:
    daemon = running[0]

    def count(outcome: str) -> float:
        value = daemon.services.metrics.registry.get_sample_value(
            "edgemed_requests_total", {"model": "chest", "protocol": "http", "outcome": outcome}
        )
        return value or 0.0

    answered, refused = count("answered"), count("refused")
    ask(client, in_json())
    ask(client, {})
    assert (count("answered"), count("refused")) == (answered + 1, refused + 1)
    assert client.get("/v2/models/chest/stats").json()["model_stats"][0]["inference_count"] >= answered + 1
