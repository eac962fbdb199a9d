"""`edgemed profile --sweep-power`: every power mode, and a table of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgemed.base.errors import DeviceStateError, GateError, InconclusiveError, UsageError
from edgemed.base.text import printable
from edgemed.bundle.read import open_bundle
from edgemed.cli.console import print_json, show
from edgemed.profile.modes.record import Sweep, SweepRow
from edgemed.profile.modes.sweep import SweepPlan, sweep
from edgemed.profile.modes.tools import PowerTools
from edgemed.profile.slo import load_slo
from edgemed.profile.text import NA, ms

if TYPE_CHECKING:
    from edgemed.cli.profiling import Request

HEADS = ("mode", "clocks", "p50 ms", "p99 at most", "p99.9 at most", "mJ", "hottest", "verdict", "note")


def sweep_power(request: Request, cool_to_c: float | None, tell: Callable[[str], None]) -> Sweep:
    """Measure all modes of this board.

    Raises:
        UsageError: there is nowhere to keep the results.
        DeviceStateError: this is no board, or its state could not be restored.
    """
    from edgemed.cli.profiling import results_folder

    if request.output is None:
        raise UsageError("A sweep keeps a result for each mode.", "Give --output DIR.")
    if request.slo is not None:
        load_slo(request.slo)
    request.plan(None)
    open_bundle(request.bundle)
    tools = PowerTools.find(request.around.root)
    output = results_folder(request.output)
    plan = SweepPlan(
        bundle=request.bundle,
        arguments=arguments_of(request),
        output=output,
        seed=request.seed,
        cool_to_mc=None if cool_to_c is None else round(cool_to_c * 1000),
    )
    return sweep(plan, tools, tell)


def arguments_of(request: Request) -> list[str]:
    """The command line of one run of the sweep."""
    around = request.around
    valued = {
        "--precision": request.precision,
        "--runner": request.runner,
        "--dla-core": request.dla_core,
        "--load": request.load,
        "--duration": request.duration,
        "--frames": request.frames,
        "--warmup": request.warmup,
        "--seed": request.seed,
        "--policy": request.policy,
        "--deadline": request.deadline,
        "--slo": request.slo,
        "--ambient": request.ambient_c,
        "--samples": request.samples,
        "--rail": around.rail,
        "--meter": around.meter,
        "--interference": around.interference,
        "--cold-start": request.cold_starts,
        "--page-cache": request.page_cache,
        "--trigger": None if around.trigger_ns is None else f"{around.trigger_ns}ns",
        "--root": around.root,
    }
    flags = {"--soak": request.soak, "--energy": around.energy, "--no-telemetry": not around.telemetry}
    given = [word for name, value in valued.items() if value is not None for word in (name, str(value))]
    return [*given, *(name for name, on in flags.items() if on)]


def sweep_rows(record: Sweep) -> list[tuple[str, ...]]:
    """Rows of the table: modes by name, those that keep the objectives marked."""
    return [_row(row) for row in sorted(record.rows, key=lambda row: (row.mode, row.clocks))]


def _row(row: SweepRow) -> tuple[str, ...]:
    energy = NA if row.energy_mj is None else f"{row.energy_mj:.3g}"
    heat = NA if row.hottest_mc is None else f"{row.hottest_mc / 1000:.1f} °C"
    marks = {"pass": "* pass", None: ""}
    note = "; ".join(filter(None, [row.why, "throttled" if row.throttled else None]))
    if row.outcome != "measured":
        note = f"{row.outcome}: {note}" if note else row.outcome
    verdict = marks.get(row.verdict, row.verdict or "")
    bounds = (ms(row.p50_ns), ms(row.p99_upper_ns), ms(row.p99_9_upper_ns))
    return (f"{row.mode} {row.name}", row.clocks, *bounds, energy, heat, verdict, note)


def print_sweep(record: Sweep, *, json: bool) -> None:
    """Show it, and raise what it is; see `enforce_sweep`."""
    from rich.table import Table

    if json:
        print_json(record.model_dump(mode="json", by_alias=True))
    else:
        table = Table(*HEADS, box=None, pad_edge=False, padding=(0, 3, 0, 0))
        for row in sweep_rows(record):
            table.add_row(*map(printable, row))
        show(table)
    enforce_sweep(record)


def enforce_sweep(record: Sweep) -> None:
    """Raise what a sweep is that did not go to its end, or in which no mode keeps the objectives.

    Raises:
        DeviceStateError: a mode or clocks that were asked for were not reached.
        GateError: every mode that was measured misses an objective.
        InconclusiveError: no mode is shown to keep them.
    """
    astray = [row for row in record.rows if row.outcome in ("not-reached", "failed")]
    if astray:
        first = astray[0]
        where = f"mode {first.mode} ({first.name}), clocks {first.clocks}"
        why = (first.why or NA).rstrip(".")
        raise DeviceStateError(
            f"{len(astray)} of {record.runs} measurements did not come to pass, first {where}: {why}.",
            "See to it, and sweep again.",
        )
    verdicts = {row.verdict for row in record.rows if row.verdict is not None}
    if not verdicts or "pass" in verdicts:
        return
    if verdicts == {"fail"}:
        raise GateError("No power mode keeps the objectives.", "Use a smaller model or another board.")
    raise InconclusiveError("No power mode is shown to keep the objectives.", "Measure longer.")
