"""`--runner`, `--precision`, `--dla-core`: what a command runs a bundle on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgemed.cli.console import err, say

if TYPE_CHECKING:
    from edgemed.base.runner import Runner
    from edgemed.bundle.model import RunPrecision
    from edgemed.bundle.read import Bundle
    from edgemed.runtime.open import OpenedLane
    from edgemed.runtime.prepare import Choice

RunnerName = Literal["auto", "tensorrt", "onnxruntime"]
RunnerOption = Annotated[
    RunnerName,
    typer.Option(help="auto takes the TensorRT engine that is kept for this device, else ONNX Runtime."),
]
PrecisionOption = Annotated[
    Literal["int8", "fp16", "fp32"] | None,
    typer.Option(help="Graph or engine to run; default the bundle's own.", show_default=False),
]
DlaCoreOption = Annotated[
    int | None, typer.Option(min=0, help="DLA core to run on; the engine must be built for one.", show_default=False)
]


@dataclass(frozen=True)
class Chosen:
    """What the command line says of the Runner."""

    runner: RunnerName = "auto"
    precision: RunPrecision | None = None
    dla_core: int | None = None


def choose(bundle: Bundle, chosen: Chosen) -> Runner:
    """The Runner, not entered yet; where it is not TensorRT though it might have been, stderr says why."""
    from edgemed.runtime.open import open_runner

    opened = open_runner(bundle, **vars(chosen))
    _tell(opened.why)
    return opened.runner


def choose_lane(bundle: Bundle, chosen: Chosen, slots: int, prepare: Choice) -> OpenedLane:
    """The same as a lane of so many slots."""
    from edgemed.runtime.open import open_lane

    opened = open_lane(bundle, slots=slots, prepare=prepare, **vars(chosen))
    _tell(opened.why)
    return opened


def _tell(why: str | None) -> None:
    if why is not None:
        say(("On ONNX Runtime. ", "yellow"), why, console=err)
