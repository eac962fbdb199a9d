"""`edgemed doctor`: is this machine in order for edgemed, and what to do where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from edgemed.base.errors import DeviceStateError
from edgemed.cli.options import JsonOption

if TYPE_CHECKING:
    from rich.text import Text

    from edgemed.device.doctor.diagnosis import Diagnosis, Line, Status
    from edgemed.device.doctor.scene import BundleNeeds

_STYLES: Final[dict[Status, str]] = {"ok": "green", "note": "yellow", "wrong": "bold red", "unknown": "dim"}
_FOR_PRECISION: Final[dict[str, tuple[str, ...]]] = {
    "int8": ("int8", "int8_fp16"),
    "fp16": ("fp16", "float"),
    "fp32": ("float",),
}


def doctor(
    bundle: Annotated[
        Path | None,
        typer.Argument(metavar="BUNDLE", help="NAME.edgemed: also say whether it will run here.", show_default=False),
    ] = None,
    *,
    json: JsonOption = False,
    root: Annotated[Path, typer.Option(hidden=True, help="Look at a file system that is mounted there.")] = Path("/"),
) -> None:
    """Check this machine, from its JetPack to the engines that are kept on it, and say what to do."""
    from edgemed.cli.console import print_json
    from edgemed.device.doctor.checks import examine
    from edgemed.device.doctor.scene import look

    diagnosis = examine(look(root.resolve(), None if bundle is None else _needs(bundle)))
    if json:
        print_json(diagnosis.model_dump(mode="json", by_alias=True))
    else:
        _print(diagnosis)
    if found := diagnosis.having("wrong"):
        names = ", ".join(line.check for line in found)
        are = "are" if len(found) > 1 else "is"
        raise DeviceStateError(
            f"{len(found)} of {len(diagnosis.lines)} checks {are} wrong: {names}.",
            "Do what stands beside each, then run `edgemed doctor` again.",
        )


def _needs(path: Path) -> BundleNeeds:
    from edgemed.bundle.read import open_bundle
    from edgemed.device.doctor.scene import BundleNeeds

    opened = open_bundle(path)
    manifest = opened.manifest
    graphs: dict[str, tuple[int, int]] = {
        name: (ref.opset, sum(manifest.files[part].size for part in (ref.path, *ref.data)))
        for name, ref in manifest.graphs.items()
        if name in _FOR_PRECISION[manifest.precision]
    }
    return BundleNeeds(path.name, opened.digest, manifest.precision, graphs)


def _print(diagnosis: Diagnosis) -> None:
    from rich.table import Table
    from rich.text import Text

    from edgemed.cli.console import say, show

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for line in diagnosis.lines:
        table.add_row(Text(line.status, _STYLES[line.status]), Text(line.check), _sentences(line))
    show(table)
    counts = {status: len(diagnosis.having(status)) for status in _STYLES}
    say(", ".join(f"{count} {status}" for status, count in counts.items() if count))


def _sentences(line: Line) -> Text:
    from rich.text import Text

    return Text(line.found) if not line.remedy else Text.assemble(line.found, "\n", ("→ " + line.remedy, "dim"))
