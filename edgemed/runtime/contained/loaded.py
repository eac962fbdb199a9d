"""What a worker says when its model is loaded: tensors and who answers. The parent believes only what can be."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from edgemed.base.runner import RunnerInfo, RunnerSpecs, TensorSpec
from edgemed.runtime.contained.protocol import ProtocolError

_MAX_TENSORS = 256
_MAX_NAME = 255
_MAX_DIMS = 16
_MAX_LENGTH = 1 << 31


@dataclass(frozen=True)
class Loaded:
    """A Runner in a worker."""

    specs: RunnerSpecs
    info: RunnerInfo

    def to_body(self) -> bytes:
        """Body of a `LOADED` message."""
        info = self.info
        return json.dumps(
            {
                "inputs": [[t.name, t.dtype, t.shape] for t in self.specs.inputs],
                "outputs": [[t.name, t.dtype, t.shape] for t in self.specs.outputs],
                "info": [info.backend, info.precision, info.device, info.bundle_digest],
            }
        ).encode()

    @staticmethod
    def from_json(described: dict[str, Any]) -> Loaded:
        """Read what `to_body` wrote.

        Raises:
            ProtocolError: it is not that, or no model can be such.
        """
        info = described.get("info")
        if not (isinstance(info, list) and len(info) == 4 and all(_is_text(text) for text in info[:3])):
            raise ProtocolError("a Runner without a name")
        if not (info[3] is None or _is_text(info[3])):
            raise ProtocolError("a digest that is none")
        specs = RunnerSpecs(_tensors(described.get("inputs")), _tensors(described.get("outputs")))
        return Loaded(specs, RunnerInfo(*info))


def _tensors(described: Any) -> tuple[TensorSpec, ...]:
    if not isinstance(described, list) or not 1 <= len(described) <= _MAX_TENSORS:
        raise ProtocolError("a model without tensors, or with too many")
    tensors = tuple(_tensor(one) for one in described)
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise ProtocolError("two tensors of one name")
    return tensors


def _tensor(described: Any) -> TensorSpec:
    if not isinstance(described, list) or len(described) != 3:
        raise ProtocolError("a tensor that is none")
    name, dtype, shape = described
    if not _is_text(name) or not _is_text(dtype) or not isinstance(shape, list) or len(shape) > _MAX_DIMS:
        raise ProtocolError("a tensor that is none")
    if not all(d is None or (type(d) is int and 0 <= d <= _MAX_LENGTH) for d in shape):
        raise ProtocolError("a shape that cannot be")
    return TensorSpec(name, dtype, tuple(shape))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_NAME and value.isprintable()
