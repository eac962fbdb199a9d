"""`edgemed calibrate`: images become a calibration set that names nobody."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgemed.base.errors import UsageError
from edgemed.cli.console import ConsoleProgress, print_json, say, show
from edgemed.cli.options import JsonOption

if TYPE_CHECKING:
    from edgemed.calibrate.assemble import Assembled
    from edgemed.imaging.deid.regions import RegionRule


def calibrate(
    sources: Annotated[
        list[Path] | None, typer.Argument(metavar="SOURCE", help="Files and folders of images.", show_default=False)
    ] = None,
    *,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make.")] = Path("calibration"),
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Recipe whose contract is checked: a .toml file or a shipped one's name.", show_default=False
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Table that names the images: file,label[,patient].", show_default=False),
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=100_000, help="How many images to store at most.")] = 512,
    seed: Annotated[int, typer.Option(help="Of the choice.")] = 0,
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Key of the pseudonyms, made if it does not exist; default random.", show_default=False
        ),
    ] = None,
    regions: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE|ultrasound", help="Rules for burned-in text; may be repeated.", show_default=False),
    ] = None,
    dates: Annotated[
        Literal["remove", "shift", "keep"], typer.Option(help="'shift' moves all dates of a patient alike.")
    ] = "remove",
    retain_patient: Annotated[bool, typer.Option("--retain-patient", help="Keep age, sex, size and weight.")] = False,
    retain_device: Annotated[bool, typer.Option("--retain-device", help="Keep what names the device.")] = False,
    retain_institution: Annotated[bool, typer.Option("--retain-institution", help="Keep the institution.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a set that edgemed calibrate made.")] = False,
    json: JsonOption = False,
) -> None:
    """Choose images evenly over patients, check them, de-identify them, and store them for `edgemed build`."""
    if bool(sources) == (labels is not None):
        raise UsageError("Images are named by SOURCE or by --labels.", "Give one of the two.")
    from edgemed.base.resources import find_resource
    from edgemed.calibrate.assemble import Order, assemble
    from edgemed.imaging.deid.options import Options

    order = Order(
        sources=tuple(sources or ()),
        output=output,
        recipe=None if recipe is None else find_resource("calibration", recipe),
        labels=labels,
        count=count,
        seed=seed,
        key=key,
        options=Options(
            dates=dates,
            retain_patient=retain_patient,
            retain_device=retain_device,
            retain_institution=retain_institution,
            regions=_rules(regions or []),
        ),
        force=force,
    )
    made = assemble(order, ConsoleProgress())
    if json:
        print_json(_document(made))
    else:
        _print(made)


def _rules(given: list[str]) -> tuple[RegionRule, ...]:
    from edgemed.imaging.deid.regions import ULTRASOUND_REGIONS, load_rules

    rules: list[RegionRule] = []
    for name in given:
        rules += [ULTRASOUND_REGIONS] if name == "ultrasound" else load_rules(Path(name))
    return tuple(rules)


def _document(made: Assembled) -> dict[str, object]:
    return {
        "output": str(made.path),
        "manifest": made.manifest.model_dump(mode="json", by_alias=True),
        "refused": [refusal.__dict__ for refusal in made.refusals],
        "deid": made.report.model_dump(mode="json", by_alias=True),
    }


def _print(made: Assembled) -> None:
    from rich.table import Table
    from rich.text import Text

    from edgemed.base.text import printable

    manifest = made.manifest
    patients = {image.patient for image in manifest.images} - {None}
    people = f" of {len(patients)} patients" if patients else ""
    say((str(made.path), "bold"), f"  {len(manifest.images)} images{people}, {manifest.offered} offered")
    table = Table.grid(padding=(0, 2))
    for refusal in made.refusals:
        table.add_row(Text(str(refusal.count)), Text(refusal.kind, "yellow"), Text(printable(refusal.reason)))
    if made.refusals:
        show(table)
    notes = sorted({note for file in made.report.files for note in file.notes})
    for note in notes:
        say(("note:", "yellow"), f" {note}")
    if manifest.key == "random" and patients:
        say("The key of the pseudonyms was thrown away; with --key FILE later data fit to these.")
