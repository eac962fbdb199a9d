"""The `edgemed` command: wires the commands together and turns errors into sentences and exit codes."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated

import typer

from edgemed import __version__
from edgemed.base.errors import EXIT_BUG, EXIT_INTERRUPTED, EXIT_TERMINATED, EdgemedError, ResourceError, Terminated
from edgemed.cli.build import build
from edgemed.cli.console import err, out
from edgemed.cli.devices import devices
from edgemed.cli.evaluate import evaluate
from edgemed.cli.inspect import inspect
from edgemed.cli.run import run
from edgemed.cli.verify import verify

app = typer.Typer(
    name="edgemed",
    help="Trained Keras imaging models as verified INT8 TensorRT bundles for the bedside.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for command in (build, evaluate, run, inspect, verify, devices):
    app.command()(command)

_debug = False


def _version(show: bool) -> None:
    if show:
        out.print(f"edgemed {__version__}")
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
    global _debug
    _debug = debug
    if debug:
        os.environ["EDGEMED_DEBUG"] = "1"  # child processes keep their logs on stderr then
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)


def main() -> None:
    """Run the command line and exit with a code of the contract."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except EdgemedError as error:
        _explain(error)
        sys.exit(error.exit_code)
    except Terminated:
        err.print("Terminated.")
        sys.exit(EXIT_TERMINATED)
    except KeyboardInterrupt:
        err.print("Interrupted.")
        sys.exit(EXIT_INTERRUPTED)
    except MemoryError:
        _explain(ResourceError("Out of memory.", "Close other programs or add swap, then try again."))
        sys.exit(ResourceError.exit_code)
    except Exception as error:
        _explain_bug(error)
        sys.exit(EXIT_BUG)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the cleaning up
    raise Terminated


def _explain(error: EdgemedError) -> None:
    if _debug:
        traceback.print_exception(error)
    err.print(f"[bold red]error:[/] {_plain(error.what)}", soft_wrap=True)
    if error.hint:
        err.print(f"[bold]what to do:[/] {_plain(error.hint)}", soft_wrap=True)


def _explain_bug(error: Exception) -> None:
    if _debug:
        traceback.print_exception(error)
    err.print(f"[bold red]bug in edgemed:[/] {type(error).__name__}: {_plain(str(error))}", soft_wrap=True)
    err.print("[bold]what to do:[/] Run it again with `edgemed --debug ...` and report what it prints.", soft_wrap=True)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


if __name__ == "__main__":
    main()
