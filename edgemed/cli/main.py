"""The `edgemed` command: wires the commands together and turns errors into sentences and exit codes."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated

import typer
from rich.markup import escape

from edgemed import __version__
from edgemed.base.errors import (
    EXIT_BUG,
    EXIT_INTERRUPTED,
    EXIT_PIPE,
    EXIT_TERMINATED,
    EdgemedError,
    ResourceError,
    Terminated,
    from_os_error,
)
from edgemed.base.text import printable
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
    sys.exit(_run())


def _run() -> int:
    stdout = sys.stdout
    try:
        code = _command()
        if sys.stdout is not stdout:  # typer puts another one in its place when a reader closed the pipe
            return EXIT_PIPE
        if stdout is not None:
            stdout.flush()  # a full disk must be told here, not by the interpreter after the end
        if code == EXIT_INTERRUPTED:
            err.print("Interrupted.")
        return code
    except EdgemedError as error:
        _explain(error)
        return error.exit_code
    except Terminated:
        err.print("Terminated.")
        return EXIT_TERMINATED
    except KeyboardInterrupt:
        err.print("Interrupted.")
        return EXIT_INTERRUPTED
    except MemoryError:
        _explain(ResourceError("Out of memory.", "Close other programs or add swap, then try again."))
        return ResourceError.exit_code
    except OSError as error:
        _discard_stdout()
        if isinstance(error, BrokenPipeError):
            return EXIT_PIPE
        _explain(from_os_error(error))
        return ResourceError.exit_code
    except Exception as error:
        _explain_bug(error)
        return EXIT_BUG


def _command() -> int:
    try:
        app()
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    return 0


def _discard_stdout() -> None:
    """Send what is still buffered nowhere, or the interpreter fails on it once more at its end."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


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
    return escape(printable(text))


if __name__ == "__main__":
    main()
