"""What all records of a profile are made of: strict, frozen, without NaN, and integers for times."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from edgemed.base.text import PRINTABLE

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Nanoseconds = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Confidence = Annotated[float, Field(gt=0.5, lt=1)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(pattern=PRINTABLE, max_length=4096)]


class Record(BaseModel):
    """Base of everything that stands in `result.json`. Unknown keys are refused: the schema has a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)
