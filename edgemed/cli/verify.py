"""`edgemed verify`: who signed a bundle, every hash of it, then its golden vectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgemed.base.errors import GateError, UsageError
from edgemed.cli.console import ConsoleProgress, print_json, say
from edgemed.cli.options import BundleArgument, JsonOption
from edgemed.cli.runner import Chosen, DlaCoreOption, choose

if TYPE_CHECKING:
    from edgemed.bundle.read import Bundle
    from edgemed.bundle.trust import Signed


def verify(
    bundle: BundleArgument,
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
    trust: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="KEY", help="Public key that may sign; it has to be signed by one of them.", show_default=False
        ),
    ] = None,
    revoked: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Digests and key ids that run no more, one a line.", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check who signed BUNDLE, hash every file again, run its golden vectors, also on this device's engine."""
    if runner == "onnxruntime" and (precision is not None or dla_core is not None):
        raise UsageError("--precision and --dla-core are the engine's.", "Leave them out, or take --runner tensorrt.")
    from edgemed.evaluate.bundled import check_bundle

    progress = ConsoleProgress()
    with progress.stage("hashes") as stage:
        opened, signed = _open(bundle, trust or [], revoked)
        stage.note(f"{len(opened.manifest.files)} files match")
    chosen = None if runner == "onnxruntime" else choose(opened, Chosen(runner, precision, dla_core))
    results = check_bundle(opened, progress, chosen)
    if json:
        print_json(
            {
                "bundle": opened.manifest.name,
                "digest": opened.digest,
                "files": len(opened.manifest.files),
                "signed": signed is not None,
                **({} if signed is None else {"key": signed.key, "sequence": signed.release.sequence}),
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
        say(f"{bundle} is whole: sha256 {opened.digest}. {_who(opened, signed)}")


def _open(bundle: Path, keys: list[Path], revoked: Path | None) -> tuple[Bundle, Signed | None]:
    """Opened without keys where none is given: then nothing is said of who signed it."""
    from edgemed.bundle.trust import Trust, open_trusted

    return open_trusted(bundle, Trust.read(keys, revoked, allow_unsigned=not keys))


def _who(opened: Bundle, signed: Signed | None) -> str:
    from edgemed.bundle.manifest import SIGNATURE

    if signed is not None:
        return f"It is signed: sequence {signed.release.sequence}, {signed.release.created}, key {signed.key}."
    if (opened.path / SIGNATURE).exists():
        return "It has a signature, which was not checked: name the keys that you trust (--trust)."
    return "It is not signed: hashes protect against accident only."
