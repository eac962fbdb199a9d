"""What `edgemed run` is told of a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

_STREAMS = "Streams"

Policy = Annotated[
    str | None,
    typer.Option(
        metavar="lossless|latest|every-N|deadline:T",
        help="What happens to frames that come too fast; default latest of cameras, lossless of files.",
        show_default=False,
        rich_help_panel=_STREAMS,
    ),
]
Frames = Annotated[
    int | None, typer.Option(min=1, help="End after so many.", show_default=False, rich_help_panel=_STREAMS)
]
Seconds = Annotated[
    float | None, typer.Option(help="End after this time.", show_default=False, rich_help_panel=_STREAMS)
]
Slots = Annotated[
    int | None,
    typer.Option(min=1, help="Frames under way at a time; default 4.", show_default=False, rich_help_panel=_STREAMS),
]
Live = Annotated[
    bool,
    typer.Option("--live", help="Play files in their own time, as a camera would.", rich_help_panel=_STREAMS),
]
Fps = Annotated[
    float | None,
    typer.Option(help="Frames per second, of a camera or with --live.", show_default=False, rich_help_panel=_STREAMS),
]
Preprocess = Annotated[
    Literal["auto", "gpu", "cpu"],
    typer.Option(help="auto prepares frames on the GPU where the recipe allows it.", rich_help_panel=_STREAMS),
]
Trace = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write when each stage of each frame ran, for chrome://tracing.",
        show_default=False,
        rich_help_panel=_STREAMS,
    ),
]
