"""Where commands print: results on stdout, everything else on stderr; progress bars only on a terminal."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from edgemed.base.progress import Stage
from edgemed.base.text import printable

_PIPE_WIDTH = 120  # of tables, where there is no terminal to ask


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_WIDTH
    return console


out = _console(stderr=False)
err = _console(stderr=True)

_NAME_WIDTH = 12


def print_json(document: Any) -> None:
    """Print one JSON document on stdout, and nothing else."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


class ConsoleProgress:
    """One line per stage on stderr; a bar while it runs, on a terminal only."""

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        """A stage: `✓ name  note  1.2 s` when done, `✗ name` when the block raises."""
        start_ns = time.monotonic_ns()
        line = _Line(name, total)
        try:
            with line:
                yield line
        except BaseException:
            err.print(f"[red]✗[/] {name:<{_NAME_WIDTH}}")
            raise
        seconds = (time.monotonic_ns() - start_ns) / 1e9
        err.print(f"[green]✓[/] {name:<{_NAME_WIDTH}} {line.text}  [dim]{seconds:.1f} s[/]", soft_wrap=True)


class _Line:
    def __init__(self, name: str, total: int | None) -> None:
        self.text = ""
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )
        self._task = self._bars.add_task(f"{name:<{_NAME_WIDTH}}", total=total)

    def total(self, steps: int | None) -> None:
        self._bars.update(self._task, total=steps)

    def advance(self, steps: int = 1) -> None:
        self._bars.advance(self._task, steps)

    def note(self, text: str) -> None:
        self.text = escape(printable(text))

    def __enter__(self) -> _Line:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
