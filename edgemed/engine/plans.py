"""Plans whose bytes are verified: the kept ones, and those that a bundle brings. No TensorRT is needed to find them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgemed.base.errors import DeviceStateError, IntegrityError
from edgemed.base.runner import RunnerSpecs
from edgemed.bundle.model import specs_of
from edgemed.bundle.read import Bundle
from edgemed.device.here import Here
from edgemed.engine.eras import Typing
from edgemed.engine.record import EngineKey, read_engine, read_record

_BUILD_HERE = "Build the engine for this machine: edgemed build NAME.edgemed"


@dataclass(frozen=True)
class Plan:
    """A plan, and what is known of it. It may be as large as the model: it is read when it is loaded, and not kept.

    Attributes:
        key: what it was built for.
        specs: what it was said to take and give, in the model's own order.
        read: its bytes, verified in the moment they are read. They are code: load these, not the file again.
        place: where it lies, for messages.
        sha256: of its bytes, as its record or the bundle says; reading verifies it.
    """

    key: EngineKey
    specs: RunnerSpecs
    read: Callable[[], bytes]
    place: str
    sha256: str | None = None


def kept_plan(folder: Path) -> Plan:
    """The plan of an engine folder.

    Raises:
        IntegrityError: there is no record, or it does not follow its schema; on reading: the plan does not match it.
    """
    record = read_record(folder)
    specs = RunnerSpecs(tuple(t.spec() for t in record.inputs), tuple(t.spec() for t in record.outputs))

    def read() -> bytes:
        now, data = read_engine(folder)
        if now != record:
            raise IntegrityError(f"{folder} was replaced after it was chosen.", "Start again: the new one is taken.")
        return data

    return Plan(record.key, specs, read, str(folder), record.plan_sha256)


def ahead_plan(bundle: Bundle, here: Here, tensorrt: Typing, precision: str) -> Plan | None:
    """The plan that was compiled ahead of time into a bundle, where it holds one for this GPU and this TensorRT."""
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
            place = f"{bundle.path.name}/{ref.path}"
            return Plan(key, specs_of(bundle), partial(bundle.read, ref.path), place, ref.sha256)
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
