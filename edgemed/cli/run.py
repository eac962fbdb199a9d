"""`edgemed run`: a bundle on files or on a stream, here and now."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgemed.base.errors import UsageError
from edgemed.cli import stream_options as stream
from edgemed.cli.console import print_json, say
from edgemed.cli.options import BundleArgument, JsonOption
from edgemed.cli.runner import Chosen, DlaCoreOption, PrecisionOption, RunnerOption, choose


def run(
    bundle: BundleArgument,
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
    json: JsonOption = False,
    policy: stream.Policy = None,
    frames: stream.Frames = None,
    seconds: stream.Seconds = None,
    slots: stream.Slots = None,
    live: stream.Live = False,
    fps: stream.Fps = None,
    preprocess: stream.Preprocess = "auto",
    trace: stream.Trace = None,
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
