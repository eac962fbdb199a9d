"""The options of `edgemed build`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Int8 = Annotated[bool, typer.Option("--int8", help="Explicit INT8 quantization (the default).")]
Fp32 = Annotated[bool, typer.Option("--fp32", help="Keep floating point.")]
Fp16 = Annotated[bool, typer.Option("--fp16", help="FP16; images serve to find overflow.")]
Calibration = Annotated[
    Path | None, typer.Option(help="Folder of calibration images; default ./calibration.", show_default=False)
]
Method = Annotated[
    Literal["entropy", "percentile", "minmax"], typer.Option(help="How ranges are read off the histograms.")
]
Recipe = Annotated[
    str | None, typer.Option(help="Recipe: a .toml file or the name of a shipped one.", show_default=False)
]
Device = Annotated[list[str] | None, typer.Option(help="Board to build for, NAME\\[@JETPACK]; see `edgemed devices`.")]
DynamicBatch = Annotated[
    str | None,
    typer.Option(metavar="MIN:OPT:MAX", help="Let the batch vary, e.g. 1:4:8; default 1.", show_default=False),
]
Signature = Annotated[
    str | None, typer.Option(help="Signature of a SavedModel; default serving_default.", show_default=False)
]
FoldPreprocessing = Annotated[
    bool, typer.Option("--fold-preprocessing", help="Put what the recipe does last into the graph.")
]
Output = Annotated[
    Path | None, typer.Option(help="Where the bundle goes; default ./MODEL.edgemed.", show_default=False)
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing bundle, or a kept engine.")]
DlaCore = Annotated[int | None, typer.Option(min=0, help="DLA core that a bundle's engine is for.", show_default=False)]
