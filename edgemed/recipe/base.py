"""What every part of a recipe's schema shares."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MAX_SIDE = 65_536
MAX_PIXELS = 1 << 28

Positive = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Size = tuple[Positive, Positive] | tuple[Positive, Positive, Positive]
"""Rows and columns, or slices, rows and columns."""


class Strict(BaseModel):
    """Unknown keys, NaN and infinity are refused; a recipe does not change once it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def check_pixels(size: Size | None) -> None:
    """Raise `ValueError` for a size of more than 2²⁸ pixels."""
    count = 1
    for side in size or ():
        count *= side
    if count > MAX_PIXELS:
        raise ValueError(f"more than {MAX_PIXELS} pixels")
