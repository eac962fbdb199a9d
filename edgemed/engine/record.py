"""Schema of `engine.json`: what stands beside a plan that was built on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgemed.base.errors import IntegrityError
from edgemed.base.hashing import sha256_bytes
from edgemed.base.runner import TensorSpec

SCHEMA: Final = "edgemed/engine/1"
PLAN = "plan"
RECORD = "engine.json"
_REBUILD = "Build it anew: edgemed build NAME.edgemed"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


class Tensor(_Strict):
    """One input or output; `None` marks a dimension that may vary."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    @classmethod
    def of(cls, spec: TensorSpec) -> Tensor:
        """The record of a spec."""
        return cls(name=spec.name, dtype=spec.dtype, shape=spec.shape)

    def spec(self) -> TensorSpec:
        """The spec that Runners speak of."""
        return TensorSpec(self.name, self.dtype, self.shape)


class EngineKey(_Strict):
    """Everything a plan depends on: with another value in any field it is another engine."""

    bundle: Digest
    flavour: Literal["tensorrt", "tensorrt_rtx"]
    version: str = Field(description="of TensorRT")
    compute_capability: str
    board: str = Field(description="device profile, module number, or name of the GPU")
    jetpack: str | None = None
    precision: Literal["fp32", "fp16", "int8"]
    dla_core: Annotated[int, Field(ge=0)] | None = None


class EngineRecord(_Strict):
    """`engine.json`. Its hash of the plan protects against accident, not against someone who rewrites both files."""

    schema_: Literal["edgemed/engine/1"] = Field(alias="schema")
    key: EngineKey
    plan_sha256: Digest
    plan_bytes: Annotated[int, Field(ge=1)]
    graph: str = Field(description="path in the bundle of the graph it was built from")
    graph_sha256: Digest
    strongly_typed: bool
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    layer_count: Annotated[int, Field(ge=1)]
    build_seconds: Annotated[float, Field(ge=0)]
    created: str = Field(description="UTC, ISO 8601")
    edgemed: str = Field(description="version of edgemed that built it")


def read_record(folder: Path) -> EngineRecord:
    """Read the record of a kept engine; its plan is not looked at.

    Raises:
        IntegrityError: missing, unreadable, or not by the schema.
    """
    try:
        return EngineRecord.model_validate_json((folder / RECORD).read_bytes())
    except OSError as error:
        raise IntegrityError(f"{folder} holds no whole engine: {error.strerror}.", _REBUILD) from error
    except ValidationError as error:
        raise IntegrityError(f"{folder / RECORD} does not follow its schema.", _REBUILD) from error


def read_engine(folder: Path) -> tuple[EngineRecord, bytes]:
    """Read a kept engine and verify its plan against its record.

    Returns:
        The record, and the very bytes that were hashed: load these, not the file again.

    Raises:
        IntegrityError: missing, unreadable, not by the schema, or changed.
    """
    record = read_record(folder)
    try:
        plan = (folder / PLAN).read_bytes()
    except OSError as error:
        raise IntegrityError(f"{folder} holds no whole engine: {error.strerror}.", _REBUILD) from error
    if sha256_bytes(plan) != record.plan_sha256:
        raise IntegrityError(f"{folder / PLAN} does not match its hash in {RECORD}.", _REBUILD)
    return record, plan
