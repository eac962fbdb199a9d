"""What the doctor says: one line for each check. Also the schema of `edgemed doctor --json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from edgemed.base.text import printable

SCHEMA: Final = "edgemed/doctor/1"

Status = Literal["ok", "note", "wrong", "unknown"]
Fact = str | int | float | bool | None | tuple[str, ...]
Facts = Mapping[str, Fact]

_LONGEST: Final = 600  # characters of a sentence: what a hostile file holds is cut


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


class Line(_Strict):
    """One check. Its text comes partly from files: controls are written out, and it is cut at a length."""

    check: str
    status: Status = Field(
        description="ok; note: works, and could be better; wrong: edgemed will not work, or not as it should; "
        "unknown: cannot be told here, or does not apply"
    )
    found: str = Field(description="what was found, in a sentence")
    remedy: str = Field("", description="what to do; empty where there is nothing to do")
    facts: dict[str, Fact] = Field(default_factory=dict, description="the values behind it; units are in the names")

    @field_validator("found", "remedy")
    @classmethod
    def _is_safe_to_show(cls, text: str) -> str:
        safe = printable(" ".join(text.split()))
        return safe if len(safe) <= _LONGEST else safe[: _LONGEST - 1] + "…"

    @field_validator("facts")
    @classmethod
    def _facts_are_safe_to_show(cls, facts: dict[str, Fact]) -> dict[str, Fact]:
        return {printable(key)[:_LONGEST]: _safe(value) for key, value in facts.items()}  # rails name themselves


class Diagnosis(_Strict):
    """All lines, in the order of the checks."""

    schema_: Literal["edgemed/doctor/1"] = Field(alias="schema")
    edgemed: str = Field(description="version of edgemed")
    machine: str = Field(description="id of the device profile, the module, or the GPU; `unknown` without any")
    lines: tuple[Line, ...] = Field(min_length=1)

    @field_validator("machine")
    @classmethod
    def _is_safe_to_show(cls, text: str) -> str:
        return printable(text)[:_LONGEST]

    def having(self, status: Status) -> tuple[Line, ...]:
        """The lines of one status."""
        return tuple(line for line in self.lines if line.status == status)


def ok(check: str, found: str, facts: Facts | None = None) -> Line:
    """All is well."""
    return Line(check=check, status="ok", found=found, facts=dict(facts or {}))


def note(check: str, found: str, remedy: str, facts: Facts | None = None) -> Line:
    """It works; someone may want to know, or do better."""
    return Line(check=check, status="note", found=found, remedy=remedy, facts=dict(facts or {}))


def wrong(check: str, found: str, remedy: str, facts: Facts | None = None) -> Line:
    """edgemed will not work, or not as it should."""
    return Line(check=check, status="wrong", found=found, remedy=remedy, facts=dict(facts or {}))


def unknown(check: str, found: str, remedy: str = "", facts: Facts | None = None) -> Line:
    """It cannot be told here, or does not apply to this machine."""
    return Line(check=check, status="unknown", found=found, remedy=remedy, facts=dict(facts or {}))


def _safe(value: Fact) -> Fact:
    if isinstance(value, tuple):
        return tuple(printable(text)[:_LONGEST] for text in value)
    return printable(value)[:_LONGEST] if isinstance(value, str) else value
