"""The schema of `sweep.json`: every mode, clocks locked and free, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from edgemed.base.store import write_atomic
from edgemed.profile.records import Count, Positive, Record, Text
from edgemed.profile.result import SWEEP, Result
from edgemed.profile.verdict import Outcome

SCHEMA: Final = "edgemed/sweep/1"


class SweepRow(Record):
    """One mode with one state of the clocks."""

    mode: Count
    name: Text
    clocks: Literal["locked", "free"]
    outcome: Literal["measured", "needs-reboot", "not-reached", "failed", "not-tried"]
    why: Text | None = Field(description="what happened instead; or a doubt about the measurement")
    start_mc: int | None = Field(None, description="temperature when it was started; null: no sensor")
    folder: Text | None = Field(None, description="of the result, beside sweep.json")
    n: Count | None = None
    p50_ns: int | None = None
    p99_upper_ns: int | None = Field(None, description="null: too few samples for a bound")
    p99_9_upper_ns: int | None = None
    energy_mj: float | None = Field(None, description="per inference, gross")
    rail: Text | None = None
    hottest_mc: int | None = None
    throttled: bool | None = None
    verdict: Outcome | None = Field(None, description="null without objectives")


class Sweep(Record):
    """All modes of a board."""

    schema_: Literal["edgemed/sweep/1"] = Field(alias="schema")
    created: Text
    name: Text = Field(description="of the bundle")
    board: Text | None
    seed: Count = Field(description="of the order")
    cool_to_mc: int | None = Field(description="each run begins at this temperature or below; null: no sensor")
    found_mode: Count = Field(description="that was on before, and is restored")
    found_clocks: Literal["locked", "free"] | None
    runs: Positive
    rows: tuple[SweepRow, ...] = Field(description="in the order of measuring")


def filled(row: SweepRow, result: Result, folder: str) -> SweepRow:
    """A row with what its result says."""
    latency, energy = result.latency, result.energy[0] if result.energy else None
    heat = [
        channel.max
        for telemetry in result.telemetry
        for channel in telemetry.channels
        if channel.kind == "temperature" and channel.name == telemetry.junction
    ]
    told = [telemetry.throttled for telemetry in result.telemetry if telemetry.throttled is not None]
    return row.model_copy(
        update={
            "outcome": "measured",
            "folder": folder,
            "n": result.counts.answered,
            "p50_ns": None if latency is None else latency.median_ns,
            "p99_upper_ns": None if latency is None else latency.percentile("99").upper_ns,
            "p99_9_upper_ns": None if latency is None else latency.percentile("99.9").upper_ns,
            "energy_mj": None if energy is None else energy.gross_mj,
            "rail": None if energy is None else energy.rail,
            "hottest_mc": max(heat, default=None),
            "throttled": any(told) if told else None,
            "verdict": None if result.verdict is None else result.verdict.outcome,
        }
    )


def write_sweep(sweep: Sweep, folder: Path) -> None:
    """Write `sweep.json`, whole or not at all.

    Raises:
        ResourceError: it may not be written, or the disk is full.
    """
    write_atomic(folder / SWEEP, sweep.model_dump_json(by_alias=True, indent=1).encode() + b"\n")
