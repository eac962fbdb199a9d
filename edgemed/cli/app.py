"""The commands wired together."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import typer.core

from edgemed import __version__
from edgemed.base.errors import UsageError
from edgemed.cli.audit import verify_audit
from edgemed.cli.build import build
from edgemed.cli.calibrate import calibrate
from edgemed.cli.compare import compare
from edgemed.cli.console import say
from edgemed.cli.devices import devices
from edgemed.cli.doctor import doctor
from edgemed.cli.drift import drift
from edgemed.cli.evaluate import evaluate
from edgemed.cli.inspect import inspect
from edgemed.cli.layers import layers
from edgemed.cli.profile import profile
from edgemed.cli.recipe import check
from edgemed.cli.reconcile import reconcile
from edgemed.cli.run import run
from edgemed.cli.serve import serve
from edgemed.cli.sign import sign
from edgemed.cli.verify import verify

app = typer.Typer(
    name="edgemed",
    help="Trained Keras imaging models as verified INT8 TensorRT bundles for the bedside.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


class _Command(typer.core.TyperCommand):
    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """`MODEL`, as every manual writes it, where typer writes `{MODEL}`."""
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]


for command in (
    build,
    calibrate,
    evaluate,
    run,
    serve,
    reconcile,
    drift,
    profile,
    compare,
    layers,
    inspect,
    verify,
    sign,
    devices,
    doctor,
):
    app.command(cls=_Command)(command)

recipe = typer.Typer(name="recipe", help="What a recipe makes of an image.")
recipe.callback()(lambda: None)  # a group, although it has one command
recipe.command(cls=_Command)(check)
app.add_typer(recipe)

audit = typer.Typer(name="audit", help="The bedside daemon's audit trail.")
audit.callback()(lambda: None)
audit.command("verify", cls=_Command)(verify_audit)
app.add_typer(audit)


def invoke(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code.

    Typer's own `main` is passed by: it ends a broken pipe with the code of a failed gate.

    Raises:
        UsageError: the arguments have no meaning.
        EdgemedError: what the command raises.
    """
    if empty := [text for text in arguments if _is_empty(text)]:
        raise UsageError(f"The argument '{empty[0]}' is empty.", "Give it a value, or leave it out.")  # not as '.'
    root: Any = typer.main.get_command(app)
    try:
        with root.make_context("edgemed", list(arguments) or ["--help"]) as context:
            root.invoke(context)
    except typer.Exit as done:
        return done.exit_code if arguments else UsageError.exit_code
    except Exception as error:
        if not hasattr(error, "format_message"):  # the class of typer's usage errors has no public name
            raise
        raise _usage_error(error) from error
    return 0


def _usage_error(error: Any) -> UsageError:
    context = getattr(error, "ctx", None)
    usage = " ".join(context.get_usage().split()) if context is not None else "Usage: edgemed COMMAND"
    return UsageError(f"{error.format_message().rstrip('.')}.", f"{usage}; see --help.")


def _is_empty(argument: str) -> bool:
    name, equals, value = argument.partition("=")
    return not argument or (name.startswith("--") and bool(equals) and not value)


def _version(show: bool) -> None:
    if show:
        say(f"edgemed {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and the logs of child processes.")] = False,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Trained Keras imaging models as verified INT8 TensorRT bundles for the bedside."""
    if debug:
        os.environ["EDGEMED_DEBUG"] = "1"  # child processes keep their logs on stderr then
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
