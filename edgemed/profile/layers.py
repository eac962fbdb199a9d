"""Layers of an engine with their times, and two engines side by side.

A run that times layers puts events between them, and so is slower than the engine: its sum is never a latency. Both
are told, with the gap between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydantic import Field

from edgemed.base.errors import InputError, UsageError
from edgemed.profile.records import Count, Record, Share, Text
from edgemed.profile.trtexec import EngineLayer, EngineLayers, Export, LayerTime, LayerTimes, QueryTimes, read_export

SCHEMA: Final = "edgemed/layers/1"
_REFORMAT = re.compile(r"^Reformatting CopyNode for (?:Input|Output) Tensor \d+ to ")
_UNNAMED = re.compile(r"\(Unnamed Layer\* \d+\) \[\w+\]")
_APART = re.compile(r"\s\+\s|\s\|\|\s|,\s|\.\.\.|\bPWN\(")
_ENQUEUE_BOUND: Final = 0.8  # of the computation, as trtexec itself warns


class LayerRow(Record):
    """One layer."""

    name: Text
    kind: Text | None
    types: Text | None = Field(description='what it reads, and what it writes where that differs: "INT8 → FP16"')
    reformat: bool
    ms: float | None = Field(description="median, or the mean where no median was written; null: not timed")
    share: Share | None = Field(description="of the sum of all layers")
    nodes: tuple[Text, ...] = Field((), description="ONNX nodes in it, where the engine tells")


class Engine(Record):
    """An engine as its exports show it."""

    schema_: Literal["edgemed/layers/1"] = Field(alias="schema")
    layers: tuple[LayerRow, ...]
    tensors: tuple[Text, ...]
    iterations: Count | None
    sum_ms: float | None = Field(description="of all layers; slower than the engine, since layers were timed")
    compute_ms: float | None = Field(description="median of the engine's own computation, from another run")
    gap_ms: float | None = Field(description="sum_ms - compute_ms")
    queries: Count | None
    stages_ms: dict[str, float] = Field({}, description="medians by stage, from the query times")
    reformats: Count
    reformat_ms: float | None
    types_ms: dict[str, float] = Field({}, description="time by the type that is read")
    notes: tuple[Text, ...] = ()


class Difference(Record):
    """Layers of two engines that share nodes of the graph."""

    name: Text
    a_ms: float | None
    b_ms: float | None
    change_ms: float | None = Field(description="B - A; above 0 is slower")
    a: tuple[Text, ...] = Field(description="its layers in A, with their types")
    b: tuple[Text, ...]
    remark: Text = Field(description="what became of it; empty: the same layers")


@dataclass(frozen=True)
class _Exports:
    layers: EngineLayers | None
    times: LayerTimes | None
    queries: QueryTimes | None


def load_engine(paths: Sequence[Path]) -> Engine:
    """Read the exports of one engine: layers, layer times and query times, in any order, at most one of each.

    Raises:
        InputError: a file is none of them.
        UsageError: two are of one kind, or neither holds layers.
    """
    found: dict[type[Export], tuple[Path, Export]] = {}
    for path in paths:
        export = read_export(path)
        if type(export) in found:
            other = found[type(export)][0]
            raise UsageError(f"{other} and {path} hold the same of one engine.", "Give the second engine by --against.")
        found[type(export)] = path, export
    exports = [each for _, each in found.values()]
    return engine_of(
        _Exports(
            next((each for each in exports if isinstance(each, EngineLayers)), None),
            next((each for each in exports if isinstance(each, LayerTimes)), None),
            next((each for each in exports if isinstance(each, QueryTimes)), None),
        )
    )


def engine_of(exports: _Exports) -> Engine:
    """Put the exports of one engine together.

    Raises:
        UsageError: there are only query times.
        InputError: layers and their times are of different engines.
    """
    if exports.layers is None and exports.times is None:
        raise UsageError("These files hold no layers.", "Give the file of --exportLayerInfo or --exportProfile.")
    pairs = _joined(exports.layers, exports.times)
    times = [time for _, time in pairs]
    known = [time for time in times if time is not None]
    total = sum(known) if known else None
    rows = tuple(
        LayerRow(
            name=layer.name,
            kind=layer.kind,
            types=_arrow(layer),
            reformat=layer.reformat,
            ms=time,
            share=None if time is None or not total else min(1.0, time / total),
            nodes=layer.nodes,
        )
        for layer, time in pairs
    )
    queries = exports.queries
    compute = None if queries is None else float(np.median(queries.stages["compute"]))
    return Engine(
        schema_=SCHEMA,
        layers=rows,
        tensors=() if exports.layers is None else exports.layers.tensors,
        iterations=None if exports.times is None else exports.times.iterations,
        sum_ms=total,
        compute_ms=compute,
        gap_ms=None if total is None or compute is None else total - compute,
        queries=None if queries is None else len(queries.starts),
        stages_ms={} if queries is None else {name: float(np.median(taken)) for name, taken in queries.stages.items()},
        reformats=sum(layer.reformat for layer, _ in pairs),
        reformat_ms=sum(time or 0.0 for layer, time in pairs if layer.reformat) if known else None,
        types_ms=_by_type(pairs),
        notes=tuple(_notes(exports)),
    )


def _joined(layers: EngineLayers | None, times: LayerTimes | None) -> list[tuple[EngineLayer, float | None]]:
    """Layers with their times: by name, and by order among those of one name."""
    if layers is None:
        assert times is not None
        return [(EngineLayer(each.name), _typical(each)) for each in times.layers]
    if times is None:
        return [(layer, None) for layer in layers.layers]
    left: dict[str, list[float]] = {}
    for each in times.layers:
        left.setdefault(each.name, []).append(_typical(each))
    if layers.layers and not any(layer.name in left for layer in layers.layers):
        raise InputError("The layers and their times are of different engines.", "Export both from one.")
    joined: list[tuple[EngineLayer, float | None]] = [
        (layer, left[layer.name].pop(0) if left.get(layer.name) else None) for layer in layers.layers
    ]
    return joined + [(EngineLayer(name), time) for name, rest in left.items() for time in rest]


def _typical(time: LayerTime) -> float:
    return time.mean_ms if time.median_ms is None else time.median_ms


def _arrow(layer: EngineLayer) -> str | None:
    reads = layer.weights or "/".join(layer.reads)
    writes = "/".join(layer.writes)
    if not reads or not writes or reads == writes:
        return reads or writes or None
    return f"{reads} → {writes}"


def _by_type(pairs: Sequence[tuple[EngineLayer, float | None]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for layer, time in pairs:
        kind = layer.weights or (layer.reads[0] if layer.reads else None)
        if time is not None and kind is not None:
            found[kind] = found.get(kind, 0.0) + time
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _notes(exports: _Exports) -> Iterator[str]:
    layers, queries = exports.layers, exports.queries
    if layers is not None and layers.layers and all(layer.kind is None for layer in layers.layers):
        yield "Only names: the engine was built without --profilingVerbosity=detailed."
    if queries is None:
        return
    yield "trtexec's latency is copies and computation; what a query waited between them is not in it."
    median = {name: float(np.median(taken)) for name, taken in queries.stages.items()}
    if queries.enqueue is not None and float(np.median(queries.enqueue)) > _ENQUEUE_BOUND * median["compute"]:
        yield "The host's enqueue takes longer than 0.8 of the computation: the GPU waits for it (a CUDA graph helps)."
    for stage in ("copy-in", "copy-out"):
        if median[stage] >= median["compute"]:
            yield f"{stage} takes as long as the computation."
    last = float(queries.starts[-1])
    if last > 60_000:
        yield f"Stamps are float32: after {last / 1000:.0f} s they are {np.spacing(np.float32(last)):.2g} ms apart."


def differences(a: Engine, b: Engine) -> tuple[Difference, ...]:
    """Both engines by the nodes of the graph that their layers share, the largest change first.

    TensorRT fuses otherwise in each engine: layers that share a node are held against each other together.
    """
    sides = [[(row, _nodes(row)) for row in engine.layers] for engine in (a, b)]
    groups = _Groups()
    for side in sides:
        for _, nodes in side:
            groups.join(nodes)
    gathered: dict[str, tuple[list[LayerRow], list[LayerRow]]] = {}
    for which, side in enumerate(sides):
        for row, nodes in side:
            gathered.setdefault(groups.find(nodes[0]), ([], []))[which].append(row)
    found = [_difference(left, right) for left, right in gathered.values()]
    return tuple(sorted(found, key=lambda each: -abs(each.change_ms or 0.0)))


def _difference(a: Sequence[LayerRow], b: Sequence[LayerRow]) -> Difference:
    times = [_sum(side) for side in (a, b)]
    change = None if times[0] is None and times[1] is None else (times[1] or 0.0) - (times[0] or 0.0)
    timed = all(row.ms is not None for row in (*a, *b))
    return Difference(
        name=_title(a or b),
        a_ms=times[0],
        b_ms=times[1],
        change_ms=change if timed else None,
        a=tuple(_shown(row) for row in a),
        b=tuple(_shown(row) for row in b),
        remark=_remark(a, b),
    )


def _sum(rows: Sequence[LayerRow]) -> float | None:
    known = [row.ms for row in rows if row.ms is not None]
    return sum(known) if known else None


def _title(rows: Sequence[LayerRow]) -> str:
    main = next((row for row in rows if not row.reformat), rows[0])
    return main.name


def _shown(row: LayerRow) -> str:
    return row.name if row.types is None else f"{row.name} ({row.types})"


def _remark(a: Sequence[LayerRow], b: Sequence[LayerRow]) -> str:
    if not a or not b:
        return "only in B" if not a else "only in A"
    found = []
    work = [[row for row in side if not row.reformat] for side in (a, b)]
    if len(work[0]) != len(work[1]):
        found.append(f"{len(work[0])} → {len(work[1])} layers")
    types = [sorted({row.types for row in side if row.types}) for side in work]
    if types[0] != types[1] and all(types):
        found.append(f"{', '.join(types[0])} became {', '.join(types[1])}")
    moved = sum(row.reformat for row in b) - sum(row.reformat for row in a)
    if moved:
        found.append(f"{abs(moved)} reformat{'s' if abs(moved) > 1 else ''} {'more' if moved > 0 else 'less'}")
    return "; ".join(found)


def _nodes(row: LayerRow) -> list[str]:
    """Names of the graph in a layer's name; of a reformat, of what it was made for."""
    bare = _UNNAMED.sub(" ", _REFORMAT.sub("", row.name)).replace("{ForeignNode[", " ").replace("]}", " ")
    parts = (part.strip(" ()").removesuffix(" copy") for part in _APART.split(bare))
    return [part for part in (*parts, *row.nodes) if part] or [row.name]


class _Groups:
    """Sets of names that were seen together."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        while (parent := self._parent.setdefault(name, name)) != name:
            self._parent[name] = self._parent[parent]
            name = parent
        return name

    def join(self, names: Sequence[str]) -> None:
        for other in names[1:]:
            self._parent[self.find(other)] = self.find(names[0])


def layer_rows(engine: Engine, most: int) -> list[tuple[str, ...]]:
    """Layer, kind, types, milliseconds, share: the slowest first where times are known."""
    rows = sorted(engine.layers, key=lambda row: -(row.ms or 0.0)) if engine.sum_ms is not None else engine.layers
    return [
        (
            row.name,
            row.kind or "n/a",
            row.types or "n/a",
            "n/a" if row.ms is None else f"{row.ms:.4f}",
            "n/a" if row.share is None else f"{row.share:.1%}",
        )
        for row in rows[:most]
    ]


def engine_rows(engine: Engine) -> list[tuple[str, str]]:
    """The engine in a few lines, the gap among them."""
    rows = [("layers", f"{len(engine.layers)}, {engine.reformats} of them only reformat")]
    if engine.tensors:
        rows.append(("inputs, outputs", ", ".join(engine.tensors)))
    if engine.types_ms:
        rows.append(("time by type", _shares(engine.types_ms)))
    if engine.sum_ms is not None:
        rows.append(("sum of layers", f"{engine.sum_ms:.4f} ms over {engine.iterations} iterations, layers timed"))
    if engine.compute_ms is not None:
        rows.append(("engine", f"{engine.compute_ms:.4f} ms, median of {engine.queries} queries, layers not timed"))
    if engine.gap_ms is not None and engine.compute_ms:
        rows.append(
            ("gap", f"{engine.gap_ms:+.4f} ms ({engine.gap_ms / engine.compute_ms:+.1%}): what timing layers adds")
        )
    return rows


def _shares(times: Mapping[str, float]) -> str:
    total = sum(times.values()) or 1.0
    return ", ".join(f"{name} {time / total:.0%}" for name, time in times.items())
