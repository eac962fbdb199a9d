"""`edgemed drift`: what has changed at the bedside this week."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemed.base.errors import GateError, InconclusiveError, UsageError
from edgemed.cli.console import print_json, say, show

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from edgemed.serve.weekly import Compared, ModelWeek, Share, Verdict

_STYLES = {"shifted": "red", "no shift seen": "green", "too few": "yellow"}
_BARS = " ▁▂▃▄▅▆▇█"


def drift(
    state: Annotated[Path, typer.Argument(metavar="CONFIG", help="bedside.toml, or the daemon's state directory.")],
    *,
    weeks: Annotated[int, typer.Option(metavar="N", min=1, max=59, help="Weeks before that it is held against.")] = 4,
    week: Annotated[
        str | None, typer.Option(metavar="WEEK", help="As 2026-W48; else each model's newest.", show_default=False)
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with pictures, too.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Hold a week of each model against its bundle's images and the weeks before: scores, inputs, kinds of images.

    It works beside a daemon that runs. The code is 1 where something has shifted, 3 where there is too little to tell
    of any model.
    """
    from edgemed.base.store import write_atomic
    from edgemed.report.drift import render_drift
    from edgemed.serve.config import load_config
    from edgemed.serve.weekly import report, to_document

    if week is not None and not re.fullmatch(r"[0-9]{4}-W(0[1-9]|[1-4][0-9]|5[0-3])", week):
        raise UsageError(f"{week} is no week.", "Write it as 2026-W48.")
    root = state if state.is_dir() else load_config(state).daemon.state
    found = report(root, weeks=weeks, week=week)
    document = to_document(root, found)
    if html is not None:
        write_atomic(html, render_drift(document).encode())
    if json:
        print_json(document)
    else:
        for one in found:
            _print(one)
    if shifted := sorted({one.model for one in found if one.verdict == "shifted"}):
        raise GateError(
            f"What comes in for {', '.join(shifted)}, or is answered, has shifted.",
            "Look at the lines that say so: see docs/serve-analysis.md.",
        )
    if all(one.verdict == "too few" for one in found):
        needed = max(one.needed for one in found)
        raise InconclusiveError(
            "There are too few tasks to tell of any model.", f"{needed} in this week and before are enough."
        )


def _print(one: ModelWeek) -> None:
    ends = ", ".join(f"{count} {end}" for end, count in one.ends.items())
    before = f"{len(one.weeks_before)} before" if one.weeks_before else "none before"
    say(f"{one.model} {one.digest[:12]}, {one.week}, {before}: {one.tasks} tasks here; of the model {ends}")
    if one.numbers:
        _print_numbers(one)
    if one.shares:
        _print_shares(one.shares)


def _print_numbers(one: ModelWeek) -> None:
    table = _table("number", "this week", "against", "", "tasks", "distance", "true distance", "verdict")
    for line in one.numbers:
        counts = one.histograms[line.number]["counts"]
        table.add_row(
            line.number,
            _bars(counts["week"]),
            line.against,
            _bars(counts[line.against]),
            f"{line.tasks} / {line.others}",
            f"{line.distance:.1%}",
            f"{line.low:.1%} to {line.high:.1%}",
            _said(line),
        )
    show(table)


def _print_shares(shares: Sequence[Share]) -> None:
    table = _table("share", "this week", "", "before", "", "verdict")
    for line in shares:
        table.add_row(
            line.name, *_share(line), *(("", "") if line.before is None else _share(line.before)), _said(line)
        )
    show(table)


def _table(*names: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name)
    return table


def _share(line: Share) -> tuple[str, str]:
    return f"{line.count} / {line.of}", f"{line.low:.1%} to {line.high:.1%}"


def _said(line: Compared | Share) -> Text:
    from rich.text import Text

    verdict: Verdict = line.verdict
    return Text(verdict, style=_STYLES[verdict])


def _bars(counts: Sequence[int]) -> str:
    most = max(counts)
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // most)] for count in counts)
