"""Files that `trtexec` exports, and what TensorRT's engine inspector prints: read without TensorRT.

Three kinds, told apart by what they hold:

- layers: `--exportLayerInfo`, or `IEngineInspector` as JSON. Layers are objects, or bare names where the engine was
  built without detailed verbosity; inputs and outputs of the engine are `Bindings`, or I/O tensors since TensorRT 10.
- layer times: `--exportProfile`. The first entry counts the iterations; medians came with TensorRT 8.4.
- query times: `--exportTimes`. Old files say `startInMs`, `startOutMs`; newer ones `startH2dMs`, `startD2hMs`.

trtexec writes names as they are, without JSON's escapes, and `nan` where it divides by 0; both are understood.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError, from_os_error
from edgemed.base.text import printable

_MAX_BYTES: Final = 256 << 20
_LONGEST: Final = 2000  # characters of a name
_MAX_LAYERS: Final = 1_000_000
_NOT_A_NUMBER = re.compile(r"(:\s*)-?(?:nan|inf)(?=\s*[,}\]])")
_ONNX_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_TYPES: Final = (
    ("INT8", re.compile(r"int8", re.IGNORECASE)),
    ("FP8", re.compile(r"fp8", re.IGNORECASE)),
    ("BF16", re.compile(r"bf16|bfloat16", re.IGNORECASE)),
    ("FP16", re.compile(r"half|fp16|float16", re.IGNORECASE)),
    ("INT32", re.compile(r"int32", re.IGNORECASE)),
    ("INT64", re.compile(r"int64", re.IGNORECASE)),
    ("BOOL", re.compile(r"bool", re.IGNORECASE)),
    ("FP32", re.compile(r"float|fp32", re.IGNORECASE)),
)
# stage → the keys of each generation, the newest first
_GENERATIONS: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "h2d": {
        "copy-in": ("startH2dMs", "endH2dMs"),
        "compute": ("startComputeMs", "endComputeMs"),
        "copy-out": ("startD2hMs", "endD2hMs"),
    },
    "in": {
        "copy-in": ("startInMs", "endInMs"),
        "compute": ("startComputeMs", "endComputeMs"),
        "copy-out": ("startOutMs", "endOutMs"),
    },
}


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine.

    Attributes:
        name: TensorRT's own, which names what was fused into it.
        kind: e.g. `"CaskConvolution"`; `None` where only names were written.
        reads, writes: types of its inputs and outputs, e.g. `"INT8"`; empty where they are not told.
        weights: type of its weights.
        tactic: the kernel that was chosen.
        nodes: ONNX nodes in it, where the engine tells; else empty.
    """

    name: str
    kind: str | None = None
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    weights: str | None = None
    tactic: str | None = None
    nodes: tuple[str, ...] = ()

    @property
    def reformat(self) -> bool:
        """Whether it only changes a type or a layout."""
        return self.kind == "Reformat" or self.name.startswith("Reformatting CopyNode")


@dataclass(frozen=True)
class EngineLayers:
    """The layers of an engine in the order of their execution, and the names of its inputs and outputs."""

    layers: tuple[EngineLayer, ...]
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class LayerTime:
    """Time of a layer: mean of all iterations, and their median where it was written; ms."""

    name: str
    mean_ms: float
    median_ms: float | None


@dataclass(frozen=True)
class LayerTimes:
    """What `--exportProfile` wrote: iterations, and the layers in order."""

    iterations: int
    layers: tuple[LayerTime, ...]


@dataclass(frozen=True)
class QueryTimes:
    """What `--exportTimes` wrote: (n,) milliseconds each, as float32 stamps allow.

    Attributes:
        generation: of the keys.
        stages: durations by stage; trtexec's latency is their sum: waits between stages are not in it.
        enqueue: host time of the enqueue; `None` in old files.
        starts: when each query's copy began, since trtexec's start.
    """

    generation: str
    stages: Mapping[str, NDArray[np.float64]]
    enqueue: NDArray[np.float64] | None
    starts: NDArray[np.float64]

    @property
    def latency(self) -> NDArray[np.float64]:
        total: NDArray[np.float64] = sum(self.stages.values(), np.zeros(len(self.starts)))
        return total


Export = EngineLayers | LayerTimes | QueryTimes


def read_export(path: Path) -> Export:
    """Read a file, whatever of the three it is.

    Raises:
        InputError: it is none of them, or too large.
        ResourceError: it cannot be read.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} is larger than {_MAX_BYTES >> 20} MiB.", "Export fewer queries.")
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise from_os_error(error, path) from error
    try:
        return parse_export(text)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is no export of trtexec or of TensorRT's inspector: {error}.",
            "Give the file of --exportLayerInfo, --exportProfile or --exportTimes.",
        ) from error


def parse_export(text: str) -> Export:
    """Read the text of such a file.

    Raises:
        ValueError: it is none.
    """
    # not strict: names may hold control characters (TensorRT 8.6 separates nodes by them)
    data = json.loads(_NOT_A_NUMBER.sub(r"\1null", text), strict=False)
    if isinstance(data, Mapping) and "Layers" in data:
        return _layers(data)
    if not isinstance(data, Sequence) or isinstance(data, str) or not data:
        raise ValueError("neither a list nor layers")
    first = data[0]
    if isinstance(first, Mapping) and set(first) == {"count"}:
        return _layer_times(first, data[1:])
    for generation, keys in _GENERATIONS.items():
        if isinstance(first, Mapping) and all(key in first for pair in keys.values() for key in pair):
            return _query_times(generation, data)
    if isinstance(first, str) or (isinstance(first, Mapping) and "Name" in first):
        return _layers({"Layers": data})
    raise ValueError("its entries have none of the known keys")


def _layers(data: Mapping[str, Any]) -> EngineLayers:
    found = data["Layers"]
    if not isinstance(found, list) or len(found) > _MAX_LAYERS:
        raise ValueError("'Layers' is no list of layers")
    tensors = next((data[key] for key in ("Bindings", "I/O Tensors", "IOTensors", "IO Tensors") if key in data), ())
    names = tuple(_clean(str(each.get("Name", "?") if isinstance(each, Mapping) else each)) for each in tensors)
    return EngineLayers(tuple(_layer(each) for each in found), names)


def _layer(entry: Any) -> EngineLayer:
    if isinstance(entry, str):
        return EngineLayer(_clean(entry))
    weights = entry.get("Weights") or {}
    kind = entry.get("ParameterType") if entry.get("ParameterType") == "Reformat" else entry.get("LayerType")
    return EngineLayer(
        name=_clean(str(entry["Name"])),
        kind=None if kind is None else _clean(str(kind)),
        reads=_types(entry.get("Inputs", ())),
        writes=_types(entry.get("Outputs", ())),
        weights=_type_of(str(weights.get("Type", "")))
        if isinstance(weights, Mapping) and weights.get("Count")
        else None,
        tactic=_clean(str(entry["TacticName"])) if entry.get("TacticName") else None,
        nodes=tuple(dict.fromkeys(map(_clean, _ONNX_NODE.findall(str(entry.get("Metadata", "")))))),
    )


def _clean(name: str) -> str:
    """Separators of 8.6 and 10 between fused nodes read as elsewhere; names of subgraphs are cut in the middle."""
    text = printable(re.sub(r"[\x1e\x1f]", " + ", name)) or "?"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"


def _types(tensors: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    found = (
        _type_of(str(next((each[key] for key in ("Datatype", "DataType", "Format/Datatype") if key in each), "")))
        for each in tensors
    )
    return tuple(dict.fromkeys(each for each in found if each is not None))


def _type_of(text: str) -> str | None:
    return next((name for name, pattern in _TYPES if pattern.search(text)), None)


def _layer_times(head: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> LayerTimes:
    layers = []
    for entry in entries:
        median = entry.get("medianMs")
        layers.append(
            LayerTime(
                name=_clean(str(entry["name"])),
                mean_ms=_time(entry["averageMs"]),
                median_ms=None if median is None else _time(median),
            )
        )
    return LayerTimes(int(head["count"]), tuple(layers))


def _time(value: Any) -> float:
    number = math.nan if value is None else float(value)
    if not 0 <= number < 1e9:
        raise ValueError(f"{value} is no time of a layer")
    return number


def _query_times(generation: str, entries: Sequence[Mapping[str, Any]]) -> QueryTimes:
    keys = _GENERATIONS[generation]
    stages = {}
    for stage, (start, end) in keys.items():
        taken = np.array([[float(entry[start]), float(entry[end])] for entry in entries])
        stages[stage] = taken[:, 1] - taken[:, 0]
        if not np.isfinite(taken).all() or (stages[stage] < 0).any():
            raise ValueError(f"'{stage}' ends before it starts")
    enqueue = None
    if all("startEnqMs" in entry and "endEnqMs" in entry for entry in entries):
        enqueue = np.array([float(entry["endEnqMs"]) - float(entry["startEnqMs"]) for entry in entries])
    starts = np.array([float(entry[keys["copy-in"][0]]) for entry in entries])
    return QueryTimes(generation, stages, enqueue, starts)
