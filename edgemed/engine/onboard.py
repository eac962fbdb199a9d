"""`edgemed build NAME.edgemed` on the device: a verified bundle becomes an engine that is kept beside it.

Needs no TensorFlow and no ONNX package: the bundle brings every graph. Written against the real bindings and held to
their names by the conformance test; it cannot run where there is no GPU.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from edgemed import __version__
from edgemed.base.errors import (
    DeviceStateError,
    InputError,
    IntegrityError,
    MissingSoftwareError,
    os_errors_as_resource,
)
from edgemed.base.hashing import sha256_bytes
from edgemed.base.progress import Stage
from edgemed.base.state import state_dir
from edgemed.base.store import staged_directory, write_atomic
from edgemed.bundle.manifest import GraphName, GraphRef
from edgemed.bundle.read import Bundle
from edgemed.device.here import Here, detect_here
from edgemed.device.profile import supports_int8
from edgemed.engine.bridge import Bridge, Flavour, installed_flavours, load_bridge
from edgemed.engine.build import BuildRequest, BuiltPlan, Precision, build_plan
from edgemed.engine.eras import Typing
from edgemed.engine.plans import Plan, ahead_plan, kept_plan
from edgemed.engine.record import PLAN, RECORD, SCHEMA, EngineKey, EngineRecord, Tensor, read_engine


@dataclass(frozen=True)
class DeviceEngine:
    """An engine kept on this device. `reused` says that it was there already and verified."""

    folder: Path
    record: EngineRecord
    reused: bool


def build_on_device(
    bundle: Bundle,
    stage: Stage,
    *,
    precision: Precision | None = None,
    dla_core: int | None = None,
    rebuild: bool = False,
    here: Here | None = None,
) -> DeviceEngine:
    """Build the engine of a verified bundle for this machine, or reuse the one that is kept and verifies.

    Args:
        bundle: from `open_bundle`, which has verified it.
        stage: progress.
        precision: None takes the bundle's own.
        dla_core: DLA core to build for.
        rebuild: build even where a good engine is kept.
        here: this machine; None looks.

    Raises:
        DeviceStateError: no GPU, no such DLA core, or INT8 on a GPU that has none.
        MissingSoftwareError: no TensorRT is installed.
        InputError: the bundle has no graph for this precision and TensorRT, or TensorRT refuses it.
        ResourceError: disk full, out of memory, and the like; nothing half-written is left.
        KeyboardInterrupt: Ctrl-C; the build was cancelled.
    """
    here = here if here is not None else detect_here()
    precision = precision or bundle.manifest.precision
    check_precision(here.compute_capability, precision, dla_core)
    bridge = load_bridge(_choose_flavour(here))
    graphs = bundle.manifest.graphs
    name, strong = choose_graph(graphs, precision, bridge)
    ref = graphs[name]
    key = _key(bundle, bridge, here, precision, dla_core)
    folder = state_dir() / "engines" / bundle.digest / key_slug(key)
    if not rebuild and (kept := _kept(folder, key, ref)) is not None:
        stage.note(f"{folder.name} (kept)")
        return DeviceEngine(folder, kept, reused=True)
    request = BuildRequest(
        bundle.graph_source(name), precision, strong, profiles=bundle.manifest.profiles(), dla_core=dla_core
    )
    built = build_plan(bridge, request, stage)
    record = _record(key, ref, built)
    _write(folder, built.plan, record)
    stage.note(folder.name)
    return DeviceEngine(folder, record, reused=False)


def find_plan(
    bundle: Bundle,
    *,
    precision: Precision | None = None,
    dla_core: int | None = None,
    here: Here | None = None,
) -> Plan:
    """The plan of a verified bundle for this very machine: the kept engine, else one compiled ahead into the bundle.

    Args:
        bundle: from `open_bundle`.
        precision: None takes the bundle's own.
        dla_core: DLA core that the engine was built for.
        here: this machine; None looks.

    Raises:
        DeviceStateError: no GPU, none that does this precision, or no engine is kept for it.
        MissingSoftwareError: no TensorRT is installed.
        InputError: the bundle has no graph for this precision and TensorRT.
        IntegrityError: an engine is kept, and its record is damaged.
    """
    here = here if here is not None else detect_here()
    precision = precision or bundle.manifest.precision
    check_precision(here.compute_capability, precision, dla_core)
    bridge = load_bridge(_choose_flavour(here))
    choose_graph(bundle.manifest.graphs, precision, bridge)  # one that cannot be built is not asked for
    key = _key(bundle, bridge, here, precision, dla_core)
    folder = state_dir() / "engines" / bundle.digest / key_slug(key)
    if folder.exists():
        kept = kept_plan(folder)
        if kept.key == key:
            return kept
    ahead = ahead_plan(bundle, here, bridge, precision) if dla_core is None else None
    if ahead is None:
        options = "" if precision == bundle.manifest.precision else f" --{precision}"
        options += "" if dla_core is None else f" --dla-core {dla_core}"
        raise DeviceStateError(
            f"No {precision} engine of {bundle.path.name} is kept for {key_slug(key)}.",
            f"Build it on this device: edgemed build {bundle.path}{options}",
        )
    return ahead


def check_precision(compute_capability: str, precision: Precision, dla_core: int | None = None) -> None:
    """Refuse what this GPU or DLA cannot do before minutes are spent on it.

    Raises:
        DeviceStateError: INT8 on a GPU without it, or a Q/DQ graph for the DLA.
    """
    if precision == "int8" and not supports_int8(compute_capability):
        raise DeviceStateError(
            f"TensorRT has no INT8 kernels for compute capability {compute_capability} (Jetson Nano and TX2).",
            "Build for FP16: --fp16",
        )
    if precision == "int8" and dla_core is not None:
        raise DeviceStateError(
            "The DLA takes INT8 from a calibration cache, not from the Q/DQ graph that this builds from.",
            "Build for the GPU, or for FP16 on the DLA: --fp16",
        )


def choose_graph(graphs: Collection[str], precision: Precision, typing: Typing) -> tuple[GraphName, bool]:
    """Which of the bundle's graphs to build from, and whether its types are taken as they stand.

    A strongly typed build takes FP16 from the graph, so it wants one that is written in FP16 where it is not INT8.
    Where the bundle has none, a TensorRT that still allows weak typing (to 10.16) gets the FP32 graph and flags.
    What is left is INT8 on TensorRT 11, whose other layers then stay in FP32.

    Returns:
        Name of the graph, and whether the build is strongly typed.

    Raises:
        InputError: the bundle has no graph that fits.
    """
    choices: dict[Precision, tuple[GraphName, GraphName]] = {
        "fp32": ("float", "float"),
        "fp16": ("fp16", "float"),
        "int8": ("int8_fp16", "int8"),
    }
    typed, plain = choices[precision]
    if typing.strongly_typed and typed in graphs:
        return typed, True
    if plain in graphs and (typing.allows_weak_typing or precision == "int8"):
        return plain, not typing.allows_weak_typing
    raise InputError(
        f"The bundle has no graph for {precision} on {typing.flavour} {typing.version}.",
        f"It has {', '.join(graphs)}: ask for another precision, or build the bundle anew.",
    )


def key_slug(key: EngineKey) -> str:
    """Readable name of the engine's folder, e.g. `tensorrt-10.3.0-sm87-orin-nano-8gb-jp6.2-int8`."""
    parts = [key.flavour, key.version, f"sm{key.compute_capability.replace('.', '')}", key.board]
    if key.jetpack is not None:
        parts.append(key.jetpack if key.jetpack.startswith("l4t") else f"jp{key.jetpack}")
    parts.append(key.precision)
    if key.dla_core is not None:
        parts.append(f"dla{key.dla_core}")
    return re.sub(r"[^A-Za-z0-9.+_]+", "-", "-".join(parts)).strip("-.").lower()


def _choose_flavour(here: Here) -> Flavour:
    """`tensorrt`, or TensorRT-RTX where only that is installed; RTX knows no Jetson."""
    found = installed_flavours()
    if here.board is not None or "tensorrt" in found:
        return "tensorrt"
    if found:
        return found[0]
    raise MissingSoftwareError(
        "Neither tensorrt nor tensorrt_rtx is installed.",
        "Install one with: pip install 'edgemed[tensorrt]' or pip install 'edgemed[rtx]'",
    )


def _key(bundle: Bundle, bridge: Bridge, here: Here, precision: Precision, dla_core: int | None) -> EngineKey:
    return EngineKey(
        bundle=bundle.digest,
        flavour=bridge.flavour,
        version=bridge.version,
        compute_capability=here.compute_capability,
        board=here.name,
        jetpack=here.release,
        precision=precision,
        dla_core=dla_core,
    )


def _record(key: EngineKey, ref: GraphRef, built: BuiltPlan) -> EngineRecord:
    return EngineRecord(
        schema_=SCHEMA,
        key=key,
        plan_sha256=sha256_bytes(built.plan),
        plan_bytes=len(built.plan),
        graph=ref.path,
        graph_sha256=ref.sha256,
        strongly_typed=built.strongly_typed,
        inputs=tuple(Tensor.of(spec) for spec in built.inputs),
        outputs=tuple(Tensor.of(spec) for spec in built.outputs),
        layer_count=built.layer_count,
        build_seconds=built.seconds,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        edgemed=__version__,
    )


def _kept(folder: Path, key: EngineKey, ref: GraphRef) -> EngineRecord | None:
    """The record of an engine that is there, whole, and of this very key; a broken one is built anew."""
    try:
        record, _ = read_engine(folder)
    except IntegrityError:
        return None
    return record if record.key == key and record.graph_sha256 == ref.sha256 else None


def _write(folder: Path, plan: bytes, record: EngineRecord) -> None:
    with os_errors_as_resource(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with staged_directory(folder, replaceable=lambda _: True) as staging:
        write_atomic(staging / PLAN, plan)
        write_atomic(staging / RECORD, record.model_dump_json(by_alias=True, indent=2).encode() + b"\n")
