"""Plans whose bytes are verified: the kept ones, and those that a bundle brings. No TensorRT is needed to find them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgemed.base.errors import DeviceStateError
from edgemed.base.runner import RunnerSpecs
from edgemed.bundle.model import specs_of
from edgemed.bundle.read import Bundle
from edgemed.device.here import Here
from edgemed.engine.eras import Typing
from edgemed.engine.record import EngineKey, EngineRecord, read_engine

_BUILD_HERE = "Build the engine for this machine: edgemed build NAME.edgemed"


@dataclass(frozen=True)
class Plan:
    """A plan whose hash was right, and what is known of it. `data` is code: the very bytes that were hashed.

    Attributes:
        key: what it was built for.
        specs: what it was said to take and give, in the model's own order.
        data: the plan.
        place: where it came from, for messages.
    """

    key: EngineKey
    specs: RunnerSpecs
    data: bytes
    place: str


def kept_plan(folder: Path) -> Plan:
    """The plan of an engine folder.

    Raises:
        IntegrityError: missing, unreadable, or not what its record says.
    """
    return recorded_plan(*read_engine(folder), place=str(folder))


def recorded_plan(record: EngineRecord, data: bytes, place: str = "the engine") -> Plan:
    """A plan and the record that `read_engine` verified it against."""
    specs = RunnerSpecs(tuple(t.spec() for t in record.inputs), tuple(t.spec() for t in record.outputs))
    return Plan(record.key, specs, data, place)


def ahead_plan(bundle: Bundle, here: Here, tensorrt: Typing, precision: str) -> Plan | None:
    """The plan that was compiled ahead of time into a bundle, where it holds one for this GPU and this TensorRT.

    Raises:
        IntegrityError: it was changed since the bundle was opened.
    """
    for ref in bundle.manifest.engines:
        fits = (ref.flavour, ref.version, ref.precision) == (tensorrt.flavour, tensorrt.version, precision)
        if fits and here.compute_capability in ref.compute_capabilities:
            key = EngineKey(
                bundle=bundle.digest,
                flavour=ref.flavour,
                version=ref.version,
                compute_capability=here.compute_capability,
                board=here.name,
                jetpack=here.release,
                precision=ref.precision,
            )
            return Plan(key, specs_of(bundle), bundle.read(ref.path), f"{bundle.path.name}/{ref.path}")
    return None


def require_key(plan: Plan, tensorrt: Typing, here: Here) -> None:
    """Refuse an engine of another machine, and say what differs.

    Raises:
        DeviceStateError: TensorRT, compute capability, board or JetPack are others.
    """
    key = plan.key
    pairs = (
        ("flavour", key.flavour, tensorrt.flavour),
        ("TensorRT", key.version, tensorrt.version),
        ("compute capability", key.compute_capability, here.compute_capability),
        ("board", key.board, here.name),
        ("JetPack", key.jetpack or "none", here.release or "none"),
    )
    differing = [f"{name} {theirs} (here: {ours})" for name, theirs, ours in pairs if theirs != ours]
    if differing:
        raise DeviceStateError(f"{plan.place} was built for {', '.join(differing)}.", _BUILD_HERE)
