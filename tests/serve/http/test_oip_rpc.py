"""The Open Inference Protocol over gRPC, against a running daemon."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest

from edgemed.base.runner import TensorSpec
from edgemed.serve.http.oip.messages import _FIELDS, most_message
from edgemed.serve.http.oip.tensors import datatype
from edgemed.serve.http.proto import SERVICE, Proto
from tests.serve import kit
from tests.serve.http.client import Client, silent
from tests.serve.http.conftest import served
from tests.waiting import wait_for

BRIGHT = np.full((1, 4, 4, 1), 0.9, np.float32)
SCORE = pytest.approx([1 / (1 + np.exp(-20 * (0.9 - 0.5)))], rel=1e-5)  # one float32 sigmoid against a float64 one


@pytest.fixture(scope="module")
def rpc(running: Any) -> Iterator[Client]:
    with grpc.insecure_channel(f"127.0.0.1:{running[1].grpc_port}") as channel:
        yield Client(channel)


def image(**others: Any) -> dict[str, Any]:
    return {"name": "image", "datatype": "FP32", "shape": [1, 4, 4, 1], **others}


def test_health_and_metadata(rpc: Client) -> None:
    assert rpc.call("ServerLive").live
    assert rpc.call("ServerReady").ready
    assert rpc.call("ModelReady", name="chest").ready
    assert rpc.call("ServerMetadata").name == "edgemed"
    model = rpc.call("ModelMetadata", name="chest", version="1")
    assert (model.name, list(model.versions), model.platform) == ("chest", ["1"], "onnx_onnxv1")
    assert [(i.name, i.datatype, list(i.shape)) for i in model.inputs] == [("image", "FP32", [1, 4, 4, 1])]


def test_raw_contents(rpc: Client) -> None:
    answer = rpc.call("ModelInfer", model_name="chest", id="7", inputs=[image()], raw_input_contents=[BRIGHT.tobytes()])
    assert (answer.model_name, answer.model_version, answer.id) == ("chest", "1", "7")
    assert np.frombuffer(answer.raw_output_contents[0], "<f4").tolist() == SCORE
    assert answer.parameters["backend"].string_param == "onnxruntime"


def test_typed_contents(rpc: Client) -> None:
    answer = rpc.call("ModelInfer", model_name="chest", inputs=[image(contents={"fp32_contents": [0.9] * 16})])
    assert not answer.raw_output_contents
    assert list(answer.outputs[0].contents.fp32_contents) == SCORE


REFUSED: dict[str, dict[str, Any]] = {
    "no input": {},
    "no contents": {"inputs": [image()]},
    "too few": {"inputs": [image(contents={"fp32_contents": [0.9] * 15})]},
    "another field": {"inputs": [image(contents={"int_contents": [1] * 16})]},
    "raw too short": {"inputs": [image()], "raw_input_contents": [b"x"]},
    "raw for none": {"inputs": [image()], "raw_input_contents": [BRIGHT.tobytes()] * 2},
    "raw and typed": {
        "inputs": [image(contents={"fp32_contents": [0.9] * 16})],
        "raw_input_contents": [BRIGHT.tobytes()],
    },
    "another shape": {"inputs": [image(shape=[16])], "raw_input_contents": [BRIGHT.tobytes()]},
    "a negative shape": {"inputs": [image(shape=[-1, 4, 4, 1])], "raw_input_contents": [BRIGHT.tobytes()]},
    "another type": {"inputs": [image(datatype="FP16")], "raw_input_contents": [BRIGHT.tobytes()]},
    "another name": {"inputs": [image(name="other")], "raw_input_contents": [BRIGHT.tobytes()]},
    "another output": {
        "inputs": [image()],
        "raw_input_contents": [BRIGHT.tobytes()],
        "outputs": [{"name": "other"}],
    },
    "NaN": {"inputs": [image()], "raw_input_contents": [np.full(16, np.nan, np.float32).tobytes()]},
}


@pytest.mark.parametrize("fields", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_as_it_must_be(rpc: Client, fields: dict[str, Any]) -> None:
    assert rpc.refused("ModelInfer", model_name="chest", **fields) == grpc.StatusCode.INVALID_ARGUMENT


def test_what_there_is_not(rpc: Client) -> None:
    assert rpc.refused("ModelInfer", model_name="other") == grpc.StatusCode.NOT_FOUND
    assert rpc.refused("ModelReady", name="chest", version="9") == grpc.StatusCode.NOT_FOUND


def test_a_message_that_is_too_long(rpc: Client) -> None:
    """The configuration allows 4 MiB, no request for this model needs so much."""
    for length, code in ((2 << 20, grpc.StatusCode.RESOURCE_EXHAUSTED), (1 << 19, grpc.StatusCode.INVALID_ARGUMENT)):
        body = bytes(length)
        assert rpc.refused("ModelInfer", model_name="chest", inputs=[image()], raw_input_contents=[body]) is code


EXTREMES: dict[str, Any] = {"float32": 1.5, "float64": 1.5, "bool": True}


@pytest.mark.parametrize("dtype", _FIELDS)
def test_the_longest_message_is_that_of_the_longest_values(dtype: str) -> None:
    info = None if dtype in EXTREMES else np.iinfo(dtype)
    value = EXTREMES.get(dtype) if info is None else int(info.min or info.max)
    request = Proto().methods["ModelInfer"][0](model_name="chest")
    tensor = request.inputs.add(name="image", datatype=datatype(dtype), shape=[1000, 3])
    getattr(tensor.contents, _FIELDS[dtype]).extend([value] * 3000)
    manifest = SimpleNamespace(profiles=lambda: {"image": ((1, 3), (1, 3), (1000, 3))})
    specs = SimpleNamespace(inputs=(TensorSpec("image", dtype, (None, 3)),))
    model: Any = SimpleNamespace(bundle=SimpleNamespace(manifest=manifest), specs=specs)
    most = most_message(model)
    assert most is not None
    assert 0 < most - request.ByteSize() <= 1 << 20
    manifest.profiles = dict
    assert most_message(model) is None


def test_a_version_that_takes_more_is_served_without_a_restart(tmp_path: Path) -> None:
    small = kit.write_segmenter(tmp_path / "small.edgemed")
    large = kit.write_segmenter(tmp_path / "large.edgemed", shape=(1, 768, 768, 1))
    models = [{"name": "chest", "bundle": small, "runner": "onnxruntime", "trial": {"inputs": 0, "watch": "1s"}}]
    with (
        served(tmp_path, models=models) as (daemon, server, _),
        grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        client = Client(channel)
        fields = {
            "model_name": "chest",
            "inputs": [image(shape=[1, 768, 768, 1])],
            "raw_input_contents": [bytes(4 * 768 * 768)],
        }
        assert client.refused("ModelInfer", **fields) is grpc.StatusCode.RESOURCE_EXHAUSTED
        daemon.services.models.propose("chest", large)

        def taken() -> Any:
            try:
                return client.call("ModelInfer", **fields)
            except grpc.RpcError:
                return None

        assert wait_for(taken).model_version == "2"


@pytest.mark.parametrize("name", ["ModelInfer", "ModelReady"])
def test_what_is_no_message(running: Any, name: str) -> None:
    """It is the client's fault, and called so."""
    with grpc.insecure_channel(f"127.0.0.1:{running[1].grpc_port}") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(f"/{SERVICE}/{name}")(b"\xff\xff\xff", timeout=30)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "is no " in str(caught.value.details())


def test_no_message_at_all(running: Any) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{running[1].grpc_port}") as channel:
        call = channel.stream_unary(f"/{SERVICE}/ModelInfer").future(iter(()), timeout=30)
        assert call.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_who_needs_to_say_nothing_is_answered_before_his_message(running: Any) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{running[1].grpc_port}") as channel, silent(channel, "ServerLive") as call:
        assert call.code() is grpc.StatusCode.OK


def test_messages_that_do_not_come_hold_no_places(tmp_path: Path) -> None:
    with (
        served(tmp_path, ready=False, http={"request": "500ms", "max_requests": 8}) as (_, server, __),
        grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
        ExitStack() as held,
    ):
        calls = [held.enter_context(silent(channel, "ModelInfer")) for _ in range(8)]
        for call in calls:
            assert call.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
        assert Client(channel).call("ModelMetadata", name="chest").name == "chest"
