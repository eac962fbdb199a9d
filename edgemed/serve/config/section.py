"""What every section of `bedside.toml` is made of.

Durations and sizes are written with their unit; in Python their names carry it (`deadline = "5s"` is `deadline_ns`,
`max_object = "512MiB"` is `max_object_bytes`).
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from edgemed.base.errors import UsageError
from edgemed.base.quantity import SECOND, parse_duration, parse_size
from edgemed.base.text import PRINTABLE

MINUTE = 60 * SECOND
HOUR = 60 * MINUTE


def _alias(name: str) -> str:
    return name.removesuffix("_ns").removesuffix("_bytes")


class Section(BaseModel):
    """Unknown keys are refused: a misspelt limit must not be no limit."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, alias_generator=_alias, populate_by_name=True
    )


def _quantity(parse: Any) -> BeforeValidator:
    def read(value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return parse(value)
        except UsageError as error:
            raise ValueError(str(error)) from error

    return BeforeValidator(read)


Nanoseconds = Annotated[int, Field(ge=1), _quantity(parse_duration)]
Bytes = Annotated[int, Field(ge=1), _quantity(parse_size)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Text = Annotated[str, Field(max_length=255, pattern=PRINTABLE)]
