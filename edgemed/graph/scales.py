"""The scale table (`scales.json`): amax and scale of every tensor, the single source of all INT8 artefacts."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA: Final = "edgemed/scales/1"
Method = Literal["minmax", "percentile", "entropy"]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

INT8_MAX = 127
SMALLEST_SCALE = 2.0**-100  # a tensor that is always zero still needs a positive, normal FP32 scale


class TensorScale(BaseModel):
    """Range of one activation tensor. `scale = amax / 127`; `seen` is the largest magnitude ever observed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    amax: NonNegative
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    seen: NonNegative


class ScaleTable(BaseModel):
    """Ranges of all floating-point tensors of a graph, with how and from what they were taken."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_: Literal["edgemed/scales/1"] = Field(alias="schema")
    method: Method
    percentile: Annotated[float, Field(gt=0, le=100)] | None = None
    images: Annotated[int, Field(ge=1)]
    data_digest: Digest
    recipe_digest: Digest
    graph_digest: Digest
    tensors: dict[str, TensorScale]


def scale_of(amax: float) -> float:
    """`amax / 127`, kept positive for a tensor that is always zero."""
    return max(amax / INT8_MAX, SMALLEST_SCALE)
