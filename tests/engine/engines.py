"""Engines for tests: a plan with its record, loaded on the fake TensorRT, with memory that is only counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgemed.base.errors import GpuMemoryError
from edgemed.base.hashing import sha256_bytes
from edgemed.base.runner import RunnerSpecs, TensorSpec
from edgemed.device.here import Here
from edgemed.engine.bridge import Bridge, ErrorLog, Flavour
from edgemed.engine.load import LoadedEngine, load_engine
from edgemed.engine.output import DeviceCalls
from edgemed.engine.plans import Plan
from edgemed.engine.record import EngineKey, EngineRecord, Tensor
from tests.engine.fake_runtime import EngineScript
from tests.engine.fake_tensorrt import Script, make_fake
from tests.engine.test_onboard import orin_nano

NUMPY = {"FLOAT": "float32", "HALF": "float16", "INT32": "int32", "INT8": "int8", "BF16": "bfloat16", "FP8": "fp8"}
PLAN = b"a plan"


def bridge_to(script: EngineScript, version: str = "10.3.0", flavour: Flavour = "tensorrt") -> Bridge:
    return Bridge(make_fake(version, Script(), script, flavour), flavour, ErrorLog())


def key(**changes: Any) -> EngineKey:
    """Of the Orin Nano that `orin_nano()` is."""
    fields = {
        "bundle": "0" * 64,
        "flavour": "tensorrt",
        "version": "10.3.0",
        "compute_capability": "8.7",
        "board": "orin-nano-8gb",
        "jetpack": "6.2",
        "precision": "fp16",
    }
    return EngineKey.model_validate(fields | changes)


def specs_of(script: EngineScript) -> RunnerSpecs:
    """What a record of the script's engine would say."""

    def rows(mode: str) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(name, NUMPY[dtype], tuple(None if n < 0 else n for n in shape))
            for name, kind, dtype, shape in script.tensors
            if kind == mode
        )

    return RunnerSpecs(rows("INPUT"), rows("OUTPUT"))


def plan_of(script: EngineScript, **changes: Any) -> Plan:
    return Plan(key(**changes), specs_of(script), lambda: PLAN, "net/engine")


def write_engine(folder: Path, script: EngineScript, data: bytes = PLAN, **changes: Any) -> Path:
    """A kept engine, as `build_on_device` leaves it."""
    specs = specs_of(script)
    record = EngineRecord.model_validate(
        {
            "schema": "edgemed/engine/1",
            "key": key(**changes).model_dump(),
            "plan_sha256": sha256_bytes(data),
            "plan_bytes": len(data),
            "graph": "graphs/float.onnx",
            "graph_sha256": "1" * 64,
            "strongly_typed": False,
            "inputs": [Tensor.of(spec).model_dump() for spec in specs.inputs],
            "outputs": [Tensor.of(spec).model_dump() for spec in specs.outputs],
            "layer_count": 3,
            "build_seconds": 1.0,
            "created": "2026-01-01T00:00:00+00:00",
            "edgemed": "0.1.0",
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan").write_bytes(data)
    (folder / "engine.json").write_text(record.model_dump_json(by_alias=True))
    return folder


@dataclass
class Memory:
    """Device memory that is only counted."""

    limit: int = 1 << 30
    next: int = 0x1000
    held: dict[int, int] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def allocate(self, size: int) -> int:
        if sum(self.held.values()) + size > self.limit:
            raise GpuMemoryError("The GPU has no memory left.", "Close other programs.")
        address, self.next = self.next, self.next + 0x1000
        self.held[address] = size
        self.log.append(f"+{size}")
        return address

    def free(self, address: int) -> None:
        self.log.append(f"-{self.held.pop(address)}")

    def calls(self, **changes: Any) -> DeviceCalls:
        given: dict[str, Any] = {
            "stream": 77,
            "synchronize": lambda: self.log.append("synchronize"),
            "allocate": self.allocate,
            "free": self.free,
        }
        return DeviceCalls(**(given | changes))


@contextmanager
def loaded(
    script: EngineScript, version: str = "10.3.0", *, here: Callable[[], Here] = orin_nano, **changes: Any
) -> Iterator[LoadedEngine]:
    with load_engine(plan_of(script, version=version, **changes), bridge_to(script, version), here()) as engine:
        yield engine
    assert not script.alive


def asked(script: EngineScript, what: str) -> list[tuple[Any, ...]]:
    return [call[1:] for call in script.calls if call[0] == what]
