"""`edgemed run`: a bundle on some inputs, here and now, on ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgemed.cli.console import print_json, say


def run(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="NAME.edgemed")],
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUTS", help="Images, or NPY/NPZ arrays.")],
    *,
    precision: Annotated[
        Literal["int8", "fp16", "fp32"] | None,
        typer.Option(help="Graph to run; default the bundle's own.", show_default=False),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write each input's outputs there, as NPZ.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Run BUNDLE on INPUTS and print how its outputs read."""
    from edgemed.bundle.read import open_bundle
    from edgemed.evaluate.execute import run_bundle

    results = run_bundle(open_bundle(bundle), inputs, precision=precision, save=save)
    if json:
        print_json({"bundle": str(bundle), "results": [result.to_json() for result in results]})
        return
    for result in results:
        say(result.line())
