"""The options of `edgemed profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Study = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="With bedside.toml: replay its DICOM files to the daemon.", show_default=False),
]
Repeat = Annotated[int, typer.Option(min=1, max=1_000_000, help="With --study: how often.")]
Pace = Annotated[str, typer.Option(metavar="TIME", help="With --study: from one to the next.")]
Load = Annotated[str, typer.Option(metavar="LOAD", help="closed, rate:30, poisson:30, duty:1/60s or replay:FILE.")]
Duration = Annotated[
    str | None, typer.Option(metavar="TIME", help="How long, e.g. 10s; default 10s.", show_default=False)
]
Frames = Annotated[int | None, typer.Option(min=1, help="How many frames instead.", show_default=False)]
Warmup = Annotated[str, typer.Option(metavar="TIME", help="Frames this early are kept, and marked.")]
Seed = Annotated[int, typer.Option(min=0, help="Of random arrivals.")]
Policy = Annotated[
    str | None,
    typer.Option(
        metavar="POLICY",
        help="Go through the ring, as a stream does: lossless, latest, every-3, deadline:50ms.",
        show_default=False,
    ),
]
Deadline = Annotated[
    str | None, typer.Option(metavar="TIME", help="An answer later than this is a miss.", show_default=False)
]
Slo = Annotated[Path | None, typer.Option(metavar="FILE", help="Objectives to judge by, in TOML.", show_default=False)]
Soak = Annotated[bool, typer.Option("--soak", help="Stop once it is steady over five minutes; --duration is the cap.")]
Ambient = Annotated[float | None, typer.Option(metavar="CELSIUS", help="Temperature of the room; --soak asks for it.")]
Energy = Annotated[
    bool, typer.Option("--energy", help="Energy per inference, over the rail that carries all power; from 10 s on.")
]
Rail = Annotated[str | None, typer.Option(metavar="NAME", help="Energy over this rail instead.", show_default=False)]
Meter = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Energy by an external meter: its CSV with the columns time and watts, read after the run.",
        show_default=False,
    ),
]
Trigger = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="With --output: write down what went on around every frame slower than this.",
        show_default=False,
    ),
]
Telemetry = Annotated[bool, typer.Option(help="Sample rails, heat and clocks in a process beside the run.")]
Interference = Annotated[
    str | None,
    typer.Option(
        metavar="LOADS",
        help="Measure quiet, then under load: cpu:4,memory:2GiB/s,disk,network.",
        show_default=False,
    ),
]
SweepPower = Annotated[
    bool, typer.Option("--sweep-power", help="Measure in every power mode, clocks locked and free; needs root.")
]
CoolTo = Annotated[
    float | None,
    typer.Option(
        metavar="CELSIUS", help="Before each run of a sweep; default as before the first.", show_default=False
    ),
]
ColdStart = Annotated[
    int | None,
    typer.Option(min=1, max=1000, metavar="N", help="First time N starts of fresh processes.", show_default=False),
]
PageCache = Annotated[
    Literal["kept", "bundle-dropped", "dropped"],
    typer.Option(help="Before each cold start; `dropped` needs root."),
]
Output = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Keep result, report and all samples there.", show_default=False)
]
Samples = Annotated[
    Literal["npy", "npz", "csv"], typer.Option(help="With --output: a copy of the samples in this form too.")
]
Trace = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A trace of every frame, for ui.perfetto.dev.", show_default=False),
]
Estimate = Annotated[
    bool, typer.Option("--estimate", help="Measure nothing: bound it from the data sheets of --device.")
]
Device = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME,...", help="With --estimate; see `edgemed devices`.", show_default=False),
]
Root = Annotated[Path, typer.Option(hidden=True, help="Read sensors of a file system mounted there.")]
