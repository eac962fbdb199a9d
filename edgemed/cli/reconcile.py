"""`edgemed reconcile`: the proof that the daemon has lost nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemed.base.errors import GateError, IntegrityError, UsageError
from edgemed.cli.console import ConsoleProgress, print_json, say, show

if TYPE_CHECKING:
    from edgemed.serve.reconcile import Account

_SHOWN = 20


def reconcile(
    state: Annotated[Path, typer.Argument(metavar="CONFIG", help="bedside.toml, or the daemon's state directory.")],
    *,
    retry: Annotated[
        str | None,
        typer.Option(metavar="TASK", help="Try a failed task again; 'all-failed': all of them.", show_default=False),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Hold spool, journal and deliveries against each other: every input is open or has exactly one end.

    It works beside a daemon that runs. The code is 1 where something is unaccounted for, 5 where bytes changed.
    """
    from edgemed.serve.config import load_config
    from edgemed.serve.reconcile import failed, reconcile, route_again
    from edgemed.serve.reconcile import retry as try_again

    root = state if state.is_dir() else load_config(state).daemon.state
    task = None if retry is None else _task(retry)
    retried = [] if retry is None else try_again(root, task)
    routed = [] if retry is None or task is not None else route_again(root)
    with ConsoleProgress().stage("files") as stage:
        account = reconcile(root, stage.advance)
        stage.note(f"{account.files} read, {account.size} bytes")
    if json:
        print_json(_document(root, account, retried, routed))
    else:
        _print(account, retried, routed, failed(root))
    if account.bytes_differ:
        raise IntegrityError("The bytes of files are not those that were kept.", "Mend the disk; see docs.")
    if account.troubles:
        count = "1 thing is" if len(account.troubles) == 1 else f"{len(account.troubles)} things are"
        raise GateError(f"{count} not accounted for.", "Start the daemon, and reconcile again.")


def _task(text: str) -> int | None:
    if text == "all-failed":
        return None
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"{text} is no number of a task.", "Give a number, or all-failed.")
    return int(text)


def _document(root: Path, account: Account, retried: list[int], routed: list[int]) -> dict[str, object]:
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
        "unaccounted": [{"code": t.code, "what": t.what, "text": t.text} for t in account.troubles],
    }


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
    for trouble in account.troubles[:_SHOWN]:
        say((f"{trouble.code:12}", "red"), f" {trouble.what}: {trouble.text}")
    if not account.troubles:
        say(
            ("✓", "green"),
            f" {account.open} on the way, {account.ended} with exactly one end; nothing is lost.",
        )
