"""`edgemed verify`: every hash of a bundle, then its golden vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgemed.base.errors import GateError, UsageError
from edgemed.cli.console import ConsoleProgress, print_json, say
from edgemed.cli.runner import Chosen, DlaCoreOption, choose


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="NAME.edgemed")],
    *,
    runner: Annotated[
        Literal["tensorrt", "onnxruntime"],
        typer.Option(help="What runs the golden vectors: the engine kept for this device, or every graph."),
    ] = "onnxruntime",
    precision: Annotated[
        Literal["int8", "fp16", "fp32"] | None,
        typer.Option(help="Of the engine; default the bundle's own.", show_default=False),
    ] = None,
    dla_core: DlaCoreOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Hash every file of BUNDLE again and run its golden vectors, on ONNX Runtime or on this device's engine."""
    if runner == "onnxruntime" and (precision is not None or dla_core is not None):
        raise UsageError("--precision and --dla-core are the engine's.", "Leave them out, or take --runner tensorrt.")
    from edgemed.bundle.read import open_bundle
    from edgemed.evaluate.bundled import check_bundle

    progress = ConsoleProgress()
    with progress.stage("hashes") as stage:
        opened = open_bundle(bundle)
        stage.note(f"{len(opened.manifest.files)} files match")
    chosen = None if runner == "onnxruntime" else choose(opened, Chosen(runner, precision, dla_core))
    results = check_bundle(opened, progress, chosen)
    if json:
        print_json(
            {
                "bundle": opened.manifest.name,
                "digest": opened.digest,
                "files": len(opened.manifest.files),
                "signed": False,
                "runner": runner,
                "golden": {
                    name: {o.output: {"difference": o.difference, "tolerance": o.tolerance} for o in r.outputs}
                    for name, r in results.items()
                },
                "passed": all(result.passed for result in results.values()),
            }
        )
    for name, result in results.items():
        for output in result.outputs:
            if not output.passed:
                raise GateError(
                    f"Golden vectors: {name} output {output.output} differs by {output.difference:.3g} "
                    f"(tolerance {output.tolerance:.3g}).",
                    "This backend does not compute what the bundle was built to compute: do not use it.",
                )
    if not json:
        say(f"{bundle} is whole: sha256 {opened.digest}. It is not signed: hashes protect against accident only.")
