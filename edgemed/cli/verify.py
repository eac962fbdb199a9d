"""`edgemed verify`: every hash of a bundle, then its golden vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgemed.base.errors import GateError
from edgemed.cli.console import ConsoleProgress, print_json, say


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="NAME.edgemed")],
    *,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Hash every file of BUNDLE again and run its golden vectors on ONNX Runtime."""
    from edgemed.bundle.read import open_bundle
    from edgemed.evaluate.bundled import check_bundle

    progress = ConsoleProgress()
    with progress.stage("hashes") as stage:
        opened = open_bundle(bundle)
        stage.note(f"{len(opened.manifest.files)} files match")
    results = check_bundle(opened, progress)
    if json:
        print_json(
            {
                "bundle": opened.manifest.name,
                "digest": opened.digest,
                "files": len(opened.manifest.files),
                "signed": False,
                "golden": {
                    precision: {o.output: {"difference": o.difference, "tolerance": o.tolerance} for o in r.outputs}
                    for precision, r in results.items()
                },
                "passed": all(result.passed for result in results.values()),
            }
        )
    for precision, result in results.items():
        for output in result.outputs:
            if not output.passed:
                raise GateError(
                    f"Golden vectors: {precision} output {output.output} differs by {output.difference:.3g} "
                    f"(tolerance {output.tolerance:.3g}).",
                    "This backend does not compute what the bundle was built to compute: do not use it.",
                )
    if not json:
        say(f"{bundle} is whole: sha256 {opened.digest}. It is not signed: hashes protect against accident only.")
