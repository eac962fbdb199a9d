"""A gRPC client of the Open Inference Protocol."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from edgemed.serve.http.proto import SERVICE, Proto


class Client:
    """All methods by name."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.proto = Proto()
        self._channel = channel

    def call(self, name: str, /, **fields: Any) -> Any:
        request, response = self.proto.methods[name]
        method = self._channel.unary_unary(
            f"/{SERVICE}/{name}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return method(request(**fields), timeout=30)

    def refused(self, name: str, /, **fields: Any) -> grpc.StatusCode:
        with pytest.raises(grpc.RpcError) as caught:
            self.call(name, **fields)
        assert caught.value.details()
        code: grpc.StatusCode = caught.value.code()
        return code


@contextmanager
def silent(channel: grpc.Channel, name: str) -> Iterator[Any]:
    """A call whose message never comes."""
    end = threading.Event()

    def messages() -> Iterator[bytes]:
        end.wait(60)
        yield from ()

    call = channel.stream_unary(f"/{SERVICE}/{name}").future(messages(), timeout=60)
    try:
        yield call
    finally:
        end.set()
        call.cancel()
