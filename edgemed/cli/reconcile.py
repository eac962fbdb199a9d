"""`edgemed reconcile`: the proof that the daemon has lost nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemed.base.errors import GateError, IntegrityError, UsageError
from edgemed.cli.console import ConsoleProgress, print_json, say, show
from edgemed.cli.options import JsonOption

if TYPE_CHECKING:
    from edgemed.serve.against import Comparison
    from edgemed.serve.reconcile import Account

_SHOWN = 20
_NAMED = 3  # UIDs of a series; all of them are in the JSON document


def reconcile(
    state: Annotated[Path, typer.Argument(metavar="CONFIG", help="bedside.toml, or the daemon's state directory.")],
    *,
    retry: Annotated[
        str | None,
        typer.Option(metavar="TASK", help="Try a failed task again; 'all-failed': all of them.", show_default=False),
    ] = None,
    against_pacs: Annotated[
        bool, typer.Option("--against-pacs", help="Ask the archives, too, for all that was delivered to them.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Hold spool, journal and deliveries against each other: every input is open or has exactly one end.

    It works beside a daemon that runs. The code is 1 where something is unaccounted for, 5 where bytes changed, 6 where
    an archive cannot be asked.
    """
    from edgemed.base.lazy import needing
    from edgemed.serve.again import failed, route_again
    from edgemed.serve.again import retry as try_again
    from edgemed.serve.against import hold_against
    from edgemed.serve.config import load_config
    from edgemed.serve.reconcile import reconcile

    config = None if state.is_dir() else load_config(state)
    if against_pacs and config is None:
        raise UsageError("A state alone does not say where archives are.", "Name the bedside.toml.")
    root = state if config is None else config.daemon.state
    task = None if retry is None else _task(retry)
    retried = [] if retry is None else try_again(root, task)
    routed = [] if retry is None or task is not None else route_again(root)
    with ConsoleProgress().stage("files") as stage:
        account = reconcile(root, stage.advance)
        stage.note(f"{account.files} read, {account.size} bytes")
    held = None
    if against_pacs and config is not None:
        with needing("serve", purpose="ask archives"), ConsoleProgress().stage("archives") as stage:
            held = hold_against(config, stage.advance)
            stage.note(f"{sum(held.asked.values())} asked for")
    if json:
        print_json(_document(root, account, retried, routed, held))
    else:
        _print(account, retried, routed, failed(root))
        if held is not None:
            _print_held(held)
    if account.bytes_differ:
        raise IntegrityError("The bytes of files are not those that were kept.", "Mend the disk; see docs.")
    if account.troubles:
        count = "1 thing is" if len(account.troubles) == 1 else f"{len(account.troubles)} things are"
        raise GateError(f"{count} not accounted for.", "Start the daemon, and reconcile again.")
    if held is not None and held.missing:
        count = "1 result is" if len(held.missing) == 1 else f"{len(held.missing)} results are"
        raise GateError(
            f"{count} called delivered, and not in the archive.",
            "Find out why it has none; see docs/serve-durability.md.",
        )


def _task(text: str) -> int | None:
    if text == "all-failed":
        return None
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"{text} is no number of a task.", "Give a number, or all-failed.")
    return int(text)


def _document(
    root: Path, account: Account, retried: list[int], routed: list[int], held: Comparison | None
) -> dict[str, object]:
    archives: dict[str, object] = {}
    if held is not None:
        named = ("destination", "delivery", "result", "task", "kind", "sop_instance")
        missing = [{name: getattr(one, name) for name in named} for one in held.missing]
        archives = {"asked": held.asked, "missing": missing}
    return {
        "state": str(root),
        "served": account.served,
        "clean": not account.troubles,
        "open": account.open,
        "ended": account.ended,
        "objects": account.objects,
        "tasks": account.tasks,
        "deliveries": account.deliveries,
        "files": account.files,
        "bytes": account.size,
        "retried": retried,
        "routed_again": routed,
        "awaited": [asdict(one) for one in account.unfinished],
        "unaccounted": [asdict(trouble) for trouble in account.troubles],
        **archives,
    }


def _print_held(held: Comparison) -> None:
    missing = Counter(one.destination for one in held.missing)
    for one in held.missing[:_SHOWN]:
        what = f" {one.kind} {one.sop_instance} (result {one.result} of task {one.task}) is not in {one.destination}."
        say(("missing     ", "red"), what)
    for name, count in held.asked.items():
        if not missing[name]:
            say(("✓", "green"), f" {name} has all {count} that were delivered to it.")


def _few(uids: Sequence[str]) -> str:
    return ", ".join(uids[:_NAMED]) + (f" and {len(uids) - _NAMED} more" if len(uids) > _NAMED else "")


def _print(account: Account, retried: list[int], routed: list[int], failed: list[tuple[int, str, str]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("", "state", "count"):
        table.add_column(name, justify="right" if name == "count" else "left")
    for name in ("objects", "tasks", "deliveries"):
        for number, (state, count) in enumerate(getattr(account, name).items()):
            table.add_row("" if number else name, state, str(count))
    show(table)
    for number, model, reason in failed[:_SHOWN]:
        say(f"task {number} of {model} has failed: {reason}")
    if retried:
        say(f"To be tried again: {', '.join(map(str, retried))}.")
    if routed:
        say(f"Objects that the router looks at again: {', '.join(map(str, routed))}.")
    for series in [one for one in account.unfinished if one.came][:_SHOWN]:
        some = f" {series.peer}: {len(series.missing)} of {series.came + len(series.missing)} images of series"
        say(("awaited     ", "yellow"), f"{some} {series.series} have not come: {_few(series.missing)}.")
    for trouble in account.troubles[:_SHOWN]:
        say((f"{trouble.code:12}", "red"), f" {trouble.what}: {trouble.text}")
    if not account.troubles:
        say(
            ("✓", "green"),
            f" {account.open} on the way, {account.ended} with exactly one end; nothing is lost.",
        )
