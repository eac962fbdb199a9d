"""The `edgemed` command as a process: signals, exit codes, and streams that fail.

Only what is needed to end in order is imported before the handlers stand; the commands come after, from `cli.app`.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import traceback
from types import FrameType

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


def main() -> None:
    """Run the command line and exit with a code of the contract."""
    take_signals()
    sys.exit(_run(sys.argv[1:]))


def take_signals() -> None:
    """Ctrl-C and SIGTERM are raised once, in the main thread; more of them do not interrupt the cleaning up."""
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as a shell starts what runs in the background
        signal.signal(signal.SIGINT, _interrupt)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _run(arguments: list[str]) -> int:
    try:
        if sys.stdout is None:  # so Python says that the descriptor is closed
            raise ResourceError("Standard output is closed.", "Send it to /dev/null if nobody shall read it.")
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a poor encoding is no reason to fail
        from edgemed.cli.app import invoke

        code = invoke(arguments)
        sys.stdout.flush()  # a full disk must be told here, not by the interpreter after the end
    except BaseException as error:
        with contextlib.suppress(OSError):  # nobody reads stderr; the code remains
            _explain(error)
        code = _exit_code(error)
        _drop_stdout()
    return code


def _exit_code(error: BaseException) -> int:
    if isinstance(error, EdgemedError):
        return error.exit_code
    if isinstance(error, Terminated):
        return EXIT_TERMINATED
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    if _is_broken_pipe(error):
        return EXIT_PIPE
    return ResourceError.exit_code if isinstance(error, OSError | MemoryError) else EXIT_BUG


def _is_broken_pipe(error: BaseException) -> bool:
    """Whether who read stdout went away; rich tells it by `SystemExit(1)`."""
    return isinstance(error.__context__ if isinstance(error, SystemExit) else error, BrokenPipeError)


def _explain(error: BaseException) -> None:
    if _is_broken_pipe(error):
        return
    if isinstance(error, Terminated | KeyboardInterrupt):  # without rich: it may have been half imported
        if sys.stderr is not None:
            sys.stderr.write("Terminated.\n" if isinstance(error, Terminated) else "Interrupted.\n")
        return
    if os.environ.get("EDGEMED_DEBUG"):
        traceback.print_exception(error)
    from edgemed.cli.console import err, say

    known = _known(error)
    if known is None:
        say(("bug in edgemed:", "bold red"), f" {type(error).__name__}: {error}", console=err)
        known = EdgemedError("", "Run it again with `edgemed --debug ...` and report what it prints.")
    else:
        say(("error:", "bold red"), f" {known.what}", console=err)
    if known.hint:
        say(("what to do:", "bold"), f" {known.hint}", console=err)


def _known(error: BaseException) -> EdgemedError | None:
    """The error in our own words, unless it is a bug of ours."""
    if isinstance(error, MemoryError):
        return ResourceError("Out of memory.", "Close other programs or add swap, then try again.")
    if isinstance(error, OSError):
        return from_os_error(error)
    return error if isinstance(error, EdgemedError) else None


def _drop_stdout() -> None:
    """Write what is buffered, or else send it nowhere: the interpreter would fail on it once more at its end."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


if __name__ == "__main__":
    main()
