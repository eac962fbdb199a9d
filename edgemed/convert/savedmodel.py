"""Read what a SavedModel would execute, from the bytes of `saved_model.pb`, without TensorFlow.

Only the protobuf wire format is needed: field numbers are those of TensorFlow's `saved_model.proto`,
`meta_graph.proto`, `graph.proto`, `function.proto`, `node_def.proto` and `attr_value.proto`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgemed.base.errors import InputError, UnsafeModelError, from_os_error
from edgemed.convert.types import LayerInfo

_MAX_BYTES = 1 << 31  # protobuf's own limit for one message

_FORBIDDEN = re.compile(
    r"""^_?(
        .*(File|PyFunc|Reader|Dataset|Summary|Rpc|Socket|Checkpoint|Debug|Iterator).*   # files, Python, network
        | Print(V2)? | Assert(Next|Cardinality).* | Save(V2|Slices)? | Restore(V2|Slice)? | ImmutableConst
        | Distributed(Save|Restore).* | DTensorRestore.* | LoadAndRemapMatrix | Load.*Library | ImportEvent
        | GenerateVocabRemapping | FixedUnigramCandidateSampler | Skipgram | RecordInput       # attributes name files
        | (Decode|Encode)Proto.* | DumpTensor | CalibrationStatisticsSaver
        | (Host)?(Send|Recv) | Collective.* | Nccl.* | Remote.* | Xla(Host|Send|Recv).* | (In|Out)feed.*  # others
        | .*(TPU|DistributedSystem).* | WorkerHeartbeat | .*Session(Handle|Tensor).*
        | .*(Queue|Barrier|Mutex).* | Sleep.*                                               # may never return
    )$""",
    re.VERBOSE,
)
_HARMLESS = frozenset({"Print"})  # writes to the log; PrintV2 can write to a file
_SAVER_OPS = frozenset({"SaveV2", "RestoreV2", "ShardedFilename", "MergeV2Checkpoints"})
_SAVER_FUNCTION = re.compile(r"^__inference__traced_(save|restore)_\d+$")


def forbidden_operation(name: str) -> bool:
    """Whether a TensorFlow operation can touch files, Python, other machines, or wait for ever."""
    return bool(_FORBIDDEN.match(name)) and name not in _HARMLESS


class _Malformed(Exception):
    pass


@dataclass(frozen=True)
class _Node:
    name: str
    op: str
    calls: frozenset[str]


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise _Malformed
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Length-delimited fields of one message, in order; other wire types are stepped over."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            _, at = _varint(data, at)
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise _Malformed
        if at + size > len(data):
            raise _Malformed
        if wire == 2:
            yield key >> 3, data[at : at + size]
        at += size


def _sub(data: memoryview, *path: int) -> Iterator[memoryview]:
    """All submessages that lie at a path of field numbers."""
    for number, value in _fields(data):
        if number == path[0]:
            if len(path) == 1:
                yield value
            else:
                yield from _sub(value, *path[1:])


def _text(data: memoryview, number: int) -> str:
    return next((bytes(v).decode("utf-8", "replace") for n, v in _fields(data) if n == number), "")


def _node(data: memoryview) -> _Node:
    calls = {_text(func, 1) for attr in _sub(data, 5, 2) for path in ((10,), (1, 9)) for func in _sub(attr, *path)}
    op = _text(data, 2)
    return _Node(_text(data, 1), op, frozenset(calls | {op}))


def _functions(meta: memoryview) -> dict[str, list[_Node]]:
    """Nodes of each library function, by the function's name; the empty name is the main graph."""
    nodes = {"": [_node(n) for n in _sub(meta, 2, 1)]}
    for function in _sub(meta, 2, 2, 1):
        name = next((_text(signature, 1) for signature in _sub(function, 1)), "")
        nodes.setdefault(name or "?", []).extend(_node(n) for n in _sub(function, 3))
    return nodes


def check_saved_model(directory: Path) -> str | None:
    """Refuse a SavedModel whose graph touches files, Python or the network; return its TensorFlow version.

    Raises:
        InputError: `saved_model.pb` is cut, or was written by TensorFlow 1.
        UnsafeModelError: an operation outside the checkpoint functions is forbidden, or something calls those.
        ResourceError: the file cannot be read.
    """
    path = directory / "saved_model.pb"
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} is larger than 2 GiB.", "Export the model with its weights in variables.")
        data = memoryview(path.read_bytes())
    except OSError as error:
        raise from_os_error(error, path) from error
    try:
        metas = list(_sub(data, 2))
        for meta in metas:
            _check_nodes(_functions(meta), directory)
        version = next((_text(info, 5) for meta in metas for info in _sub(meta, 1)), None)
        objects = any(True for meta in metas for _ in _sub(meta, 7))
    except _Malformed:
        raise InputError(f"{path} is damaged or cut.", "Copy or export the SavedModel again.") from None
    if not metas:
        raise InputError(f"{path} is not a SavedModel.", "Give the directory that model.export() wrote.")
    if not objects:
        raise InputError(f"{directory} was written by TensorFlow 1.", "Export it again with TensorFlow 2 or Keras 3.")
    if not any((directory / "variables").glob("variables.index")):
        raise InputError(f"{directory} has no variables/variables.index.", "Copy the whole SavedModel directory.")
    return version or None


def keras_layers(directory: Path) -> tuple[LayerInfo, ...]:
    """Layers of a SavedModel that Keras 2 wrote, from its `keras_metadata.pb`; empty where there is none."""
    path = directory / "keras_metadata.pb"
    layers = []
    try:
        for node in _sub(memoryview(path.read_bytes()), 1):
            metadata = json.loads(_text(node, 5) or "{}")
            if _text(node, 4).endswith("layer") and metadata.get("class_name") != "InputLayer":
                layers.append(LayerInfo(str(metadata["name"]), str(metadata["class_name"])))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, _Malformed):
        pass  # they only serve messages
    return tuple(layers)


def _check_nodes(functions: dict[str, list[_Node]], directory: Path) -> None:
    saver = {name for name in functions if _SAVER_FUNCTION.match(name)}
    for function, nodes in functions.items():
        for node in nodes:
            inside = function in saver
            op = node.op
            forbidden = forbidden_operation(op) and not (inside and op in _SAVER_OPS)
            # Only the main graph may hold calls of the checkpoint functions: a signature that reaches one writes files.
            reaches = not inside and function != "" and bool(node.calls & saver)
            if forbidden or reaches:
                what = op if forbidden else f"a call of {sorted(node.calls & saver)[0]}"
                raise UnsafeModelError(
                    f"{directory.name} has {what} (node '{node.name}'), which can touch files, Python or a network.",
                    "Export the model without it; edgemed never runs such a graph.",
                )
