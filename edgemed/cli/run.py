"""`edgemed run`: a bundle on files or on a stream, here and now."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgemed.base.errors import UsageError
from edgemed.cli.console import print_json, say
from edgemed.cli.runner import Chosen, DlaCoreOption, PrecisionOption, RunnerOption, choose

_STREAMS = "Streams"


def run(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="NAME.edgemed")],
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUTS",
            help="Images, or NPY/NPZ arrays. As a stream: a video, a camera (/dev/video0), rtsp://…, gst:PIPELINE.",
        ),
    ],
    *,
    precision: PrecisionOption = None,
    runner: RunnerOption = "auto",
    dla_core: DlaCoreOption = None,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write each input's outputs there, as NPZ.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="lossless|latest|every-N|deadline:T",
            help="What happens to frames that come too fast; default latest of cameras, lossless of files.",
            show_default=False,
            rich_help_panel=_STREAMS,
        ),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="End after so many.", show_default=False, rich_help_panel=_STREAMS)
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="End after this time.", show_default=False, rich_help_panel=_STREAMS)
    ] = None,
    slots: Annotated[
        int | None,
        typer.Option(
            min=1, help="Frames under way at a time; default 4.", show_default=False, rich_help_panel=_STREAMS
        ),
    ] = None,
    live: Annotated[
        bool,
        typer.Option("--live", help="Play files in their own time, as a camera would.", rich_help_panel=_STREAMS),
    ] = False,
    fps: Annotated[
        float | None,
        typer.Option(
            help="Frames per second, of a camera or with --live.", show_default=False, rich_help_panel=_STREAMS
        ),
    ] = None,
    preprocess: Annotated[
        Literal["auto", "gpu", "cpu"],
        typer.Option(help="auto prepares frames on the GPU where the recipe allows it.", rich_help_panel=_STREAMS),
    ] = "auto",
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write when each stage of each frame ran, for chrome://tracing.",
            show_default=False,
            rich_help_panel=_STREAMS,
        ),
    ] = None,
) -> None:
    """Run BUNDLE on INPUTS and print how its outputs read."""
    from edgemed.bundle.read import open_bundle
    from edgemed.cli.stream import StreamOptions, addresses_of, run_stream
    from edgemed.evaluate.execute import iter_answers

    chosen = Chosen(runner, precision, dla_core)
    options = StreamOptions(policy, frames, seconds, slots, live, fps, preprocess, trace)
    addresses = addresses_of(inputs, options)
    if addresses is not None:
        if save is not None:
            raise UsageError(
                "--save keeps the outputs of files.", "Leave it out, or give files without stream options."
            )
        run_stream(open_bundle(bundle), addresses, options, chosen, as_json=json)
        return
    files = [Path(text) for text in inputs]
    opened = open_bundle(bundle)
    answers = iter_answers(opened, files, save=save, runner=choose(opened, chosen))
    # of each answer only what is printed is kept, and nothing is printed before all are there
    if json:
        print_json({"bundle": str(bundle), "results": [answer.to_json() for answer in answers]})
        return
    for line in [answer.line() for answer in answers]:
        say(line)
