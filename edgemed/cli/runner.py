"""`--runner`, `--dla-core`: what a command runs a bundle on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgemed.cli.console import err, say

if TYPE_CHECKING:
    from edgemed.base.runner import Runner
    from edgemed.bundle.model import RunPrecision
    from edgemed.bundle.read import Bundle

RunnerName = Literal["auto", "tensorrt", "onnxruntime"]
RunnerOption = Annotated[
    RunnerName,
    typer.Option(help="auto takes the TensorRT engine that is kept for this device, else ONNX Runtime."),
]
DlaCoreOption = Annotated[
    int | None, typer.Option(min=0, help="DLA core to run on; the engine must be built for one.", show_default=False)
]


def choose(bundle: Bundle, runner: RunnerName, precision: RunPrecision | None, dla_core: int | None) -> Runner:
    """The Runner, not entered yet; where it is not TensorRT though it might have been, stderr says why."""
    from edgemed.runtime.open import open_runner

    opened = open_runner(bundle, runner=runner, precision=precision, dla_core=dla_core)
    if opened.why is not None:
        say(("On ONNX Runtime. ", "yellow"), opened.why, console=err)
    return opened.runner
