"""Fresh processes in the order A B B A, so that what drifts meanwhile (heat, other users) falls on both sides alike."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from edgemed.base.errors import ChildError, UsageError
from edgemed.profile.result import RESULT, Result, read_result

Side = Literal["a", "b"]


def order(runs: int) -> list[Side]:
    """`runs` of each side: A B B A A B B A …"""
    turn: list[Side] = []
    for index in range(runs):
        turn += ["a", "b"] if index % 2 == 0 else ["b", "a"]
    return turn


def run_interleaved(
    bundles: tuple[Path, Path], arguments: Sequence[str], runs: int, output: Path, tell: Callable[[str], None]
) -> None:
    """Profile two bundles by turns, each time in a process of its own; results go to `output/a/0`, `output/b/0`, …

    Args:
        bundles: A and B.
        arguments: of `edgemed profile`, e.g. `["--load", "rate:30"]`.
        runs: of each side.
        output: a folder, new or empty.
        tell: told what is going on.

    Raises:
        UsageError: the folder holds something.
        ChildError: a run ended without a result.
    """
    if output.exists() and any(output.iterdir()):
        raise UsageError(f"{output} is not empty.", "Choose another --output.")
    counts = {"a": 0, "b": 0}
    for number, side in enumerate(order(runs), start=1):
        folder = output / side / f"{counts[side]:03d}"
        counts[side] += 1
        folder.parent.mkdir(parents=True, exist_ok=True)
        tell(f"run {number} of {2 * runs}: {side.upper()}")
        run_once(bundles[0] if side == "a" else bundles[1], arguments, folder)


def run_once(bundle: Path, arguments: Sequence[str], folder: Path) -> Result:
    """Profile a bundle in a process of its own, which writes its result to `folder`.

    Raises:
        ChildError: it ended without a result.
    """
    command = [sys.executable, "-m", "edgemed", "profile", str(bundle), *arguments, "--output", str(folder), "--json"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    if not (folder / RESULT).is_file():
        last = next(
            (line for line in done.stderr.splitlines() if line.startswith("error:")), done.stderr.strip()[-200:]
        )
        raise ChildError(
            f"A run of {bundle.name} gave no result (exit code {done.returncode}): {last}", "Run it alone."
        )
    return read_result(folder)
