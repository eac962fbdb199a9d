"""Where commands print: results on stdout, everything else on stderr; progress bars only on a terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from edgemed.base.progress import Stage
from edgemed.base.text import printable

_NAME_WIDTH = 12
_ENDLESS = 100_000  # columns where there is no terminal, and so no edge to wrap at

Part = str | tuple[str, str]
"""Text, or text and its style."""


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = _ENDLESS
    return console


out = _console(stderr=False)
err = _console(stderr=True)


def say(*parts: Part, console: Console = out) -> None:
    """Print a line. Its parts are never read as markup, and nothing in them can steer the terminal."""
    texts = [(part, "") if isinstance(part, str) else part for part in parts]
    console.print(Text.assemble(*((printable(text), style) for text, style in texts)), soft_wrap=True)


def show(table: Table) -> None:
    """Print a table; a pipe gets it without the blanks that fill its last column."""
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as captured:
        out.print(table)
    sys.stdout.write("\n".join(line.rstrip() for line in captured.get().split("\n")))


def print_json(document: Any) -> None:
    """Print one JSON document on stdout, and nothing else. It is ASCII: names of files may be no UTF-8."""
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
            say(("✗", "red"), f" {name:<{_NAME_WIDTH}}", console=err)
            raise
        seconds = (time.monotonic_ns() - start_ns) / 1e9
        say(("✓", "green"), f" {name:<{_NAME_WIDTH}} {line.text}  ", (f"{seconds:.1f} s", "dim"), console=err)


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
        self.text = text

    def __enter__(self) -> _Line:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
