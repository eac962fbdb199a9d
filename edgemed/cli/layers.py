"""`edgemed layers`: what an engine became, layer by layer, from files of trtexec; and two engines side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemed.cli.console import print_json, say, show
from edgemed.cli.options import JsonOption

if TYPE_CHECKING:
    from edgemed.profile.layers import Difference, Engine


def layers(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Of --exportLayerInfo, --exportProfile, --exportTimes; in any order."),
    ],
    *,
    against: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="The same files of a second engine.", show_default=False),
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Rows to print.")] = 40,
    json: JsonOption = False,
) -> None:
    """Show the layers of a TensorRT engine with their times, or what differs between two engines.

    No GPU is needed. Layers that are timed are slower than the engine: the gap is printed where --exportTimes is given.
    """
    from edgemed.profile.layers import differences, load_engine

    engine = load_engine(files)
    if not against:
        if json:
            print_json(engine.model_dump(mode="json", by_alias=True))
            return
        _print_engine(engine, most)
        return
    other = load_engine(against)
    found = differences(engine, other)
    if json:
        sides = {"a": engine.model_dump(mode="json", by_alias=True), "b": other.model_dump(mode="json", by_alias=True)}
        print_json({**sides, "differences": [each.model_dump(mode="json") for each in found]})
        return
    _print_differences(engine, other, found, most)


def _print_engine(engine: Engine, most: int) -> None:
    from edgemed.profile.layers import engine_rows, layer_rows

    _print_rows(engine_rows(engine))
    _print_table(("layer", "kind", "types", "ms", "share"), layer_rows(engine, most))
    if len(engine.layers) > most:
        say(f"{len(engine.layers) - most} more layers: --most")
    for note in engine.notes:
        say(f"note: {note}")


def _print_differences(a: Engine, b: Engine, found: Sequence[Difference], most: int) -> None:
    from edgemed.profile.layers import engine_rows

    for name, engine in (("A", a), ("B", b)):
        _print_rows([(f"{name} {label}", text) for label, text in engine_rows(engine)])
    changed = [each for each in found if each.remark or each.change_ms]
    shown = changed[:most]
    rows = [(each.name, _ms(each.a_ms), _ms(each.b_ms), _ms(each.change_ms, "+"), each.remark) for each in shown]
    _print_table(("layer", "A ms", "B ms", "change", "what changed"), rows)
    if len(changed) > most:
        say(f"{len(changed) - most} more: --most")
    for note in dict.fromkeys((*a.notes, *b.notes)):
        say(f"note: {note}")


def _ms(value: float | None, sign: str = "") -> str:
    return "n/a" if value is None else f"{value:{sign}.4f}"


def _print_rows(rows: Sequence[tuple[str, str]]) -> None:
    for label, text in rows:
        say((f"{label:<18}", "dim"), text)


def _print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from edgemed.base.text import printable

    table = Table(*heads, box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for row in rows:
        table.add_row(*(Text(printable(cell), overflow="fold") for cell in row))
    show(table)
