"""Arguments and options that several commands have: the text of each stands once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="NAME.edgemed")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
InputOption = Annotated[
    list[str] | None, typer.Option("--input", help="Shape of an input with open sizes: NAME=1x512x512x1.")
]
AllowCodeOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE.py", help="Trusted code that defines custom layers; also permits Lambda layers."),
]
