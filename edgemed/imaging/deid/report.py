"""What was done to each tag, and why. Old values are never in it."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA: Final = "edgemed/deid-report/1"

Done = Literal["removed", "emptied", "replaced", "new-uid", "kept", "shifted", "cleaned", "added"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TagReport(_Strict):
    """One attribute at one place; a sequence's items are counted together."""

    path: str = Field(description="keywords from the top, joined by '/'; a tag where there is no keyword")
    tag: Annotated[str, Field(pattern=r"^[0-9A-F]{4},[0-9A-F]{4}$")]
    vr: str
    action: Done
    why: str = Field(description="the row of the profile, the option, or the rule")
    count: Annotated[int, Field(ge=1)]


class DeidReport(_Strict):
    """The record of one de-identification."""

    schema_: Literal["edgemed/deid-report/1"] = Field(alias="schema")
    profile: str
    codes: tuple[str, ...] = Field(description="De-identification Method Code Sequence, DCM")
    tags: tuple[TagReport, ...]
    pixels: str = Field(description="what was done to the pixels")
    notes: tuple[str, ...] = Field((), description="what a person should look at")

    def text(self) -> str:
        """A few lines for people."""
        counts: Counter[str] = Counter()
        for tag in self.tags:
            counts[tag.action] += tag.count
        done = ", ".join(f"{count} {action}" for action, count in sorted(counts.items()))
        lines = [self.profile, f"attributes: {done}", f"pixels: {self.pixels}"]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


class Recorder:
    """Collects what is done to tags."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str, Done, str]] = Counter()

    def add(self, path: str, tag: int, vr: str, action: Done, why: str) -> None:
        """Note one attribute."""
        self._counts[path, f"{tag >> 16:04X},{tag & 0xFFFF:04X}", vr, action, why] += 1

    def tags(self) -> tuple[TagReport, ...]:
        """All of them, in the order they were met."""
        return tuple(
            TagReport(path=path, tag=tag, vr=vr, action=action, why=why, count=count)
            for (path, tag, vr, action, why), count in self._counts.items()
        )
