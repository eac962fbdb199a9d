"""`edgemed run`: a bundle on some inputs, here and now."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgemed.cli.console import print_json, say
from edgemed.cli.runner import DlaCoreOption, RunnerOption, choose


def run(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="NAME.edgemed")],
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUTS", help="Images, or NPY/NPZ arrays.")],
    *,
    precision: Annotated[
        Literal["int8", "fp16", "fp32"] | None,
        typer.Option(help="Graph or engine to run; default the bundle's own.", show_default=False),
    ] = None,
    runner: RunnerOption = "auto",
    dla_core: DlaCoreOption = None,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write each input's outputs there, as NPZ.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Run BUNDLE on INPUTS and print how its outputs read."""
    from edgemed.bundle.read import open_bundle
    from edgemed.evaluate.execute import iter_answers

    opened = open_bundle(bundle)
    chosen = choose(opened, runner, precision, dla_core)
    answers = iter_answers(opened, inputs, save=save, runner=chosen)
    # of each answer only what is printed is kept, and nothing is printed before all are there
    if json:
        print_json({"bundle": str(bundle), "results": [answer.to_json() for answer in answers]})
        return
    for line in [answer.line() for answer in answers]:
        say(line)
