"""The protocol's own description of its messages, as its authors publish it (Apache-2.0), and compiled.

`open_inference_grpc.proto` is kserve/open-inference-protocol, specification/protocol, unchanged; `make proto` compiles
it. Messages are made of the compiled description when they are needed: no generated code, which would be bound to the
release of protobuf that generated it.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

SERVICE: Final = "inference.GRPCInferenceService"
COMPILED: Final = "open_inference_grpc.binpb"


class Proto:
    """Messages and methods of the service, by name; in a pool of their own, where no other client's can clash."""

    def __init__(self) -> None:
        described = FileDescriptorSet.FromString(files(__package__).joinpath(COMPILED).read_bytes())
        self._pool = DescriptorPool()
        for file in described.file:
            self._pool.Add(file)
        self.methods: dict[str, tuple[Any, Any]] = {
            method.name: (GetMessageClass(method.input_type), GetMessageClass(method.output_type))
            for method in self._pool.FindServiceByName(SERVICE).methods
        }

    def message(self, name: str) -> Any:
        """The class of a message, e.g. `InferParameter`."""
        return GetMessageClass(self._pool.FindMessageTypeByName(f"inference.{name}"))
