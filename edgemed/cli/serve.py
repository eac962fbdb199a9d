"""`edgemed serve`: the bedside daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgemed.base.errors import UsageError
from edgemed.cli.console import say


def serve(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="bedside.toml; see docs/serve.md.", show_default=False)
    ] = None,
    *,
    check: Annotated[bool, typer.Option("--check", help="Read and verify everything, and end.")] = False,
) -> None:
    """Serve models at the bedside: DICOM, HTTP and live sources in, results out, nothing lost."""
    import signal

    from edgemed.serve.config import load_config
    from edgemed.serve.daemon import Daemon

    if config is None:
        raise UsageError("There is no configuration.", "Give a bedside.toml.")
    read = load_config(config)
    if check:
        say(f"{config}: in order.")
        return
    daemon = Daemon(read)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: daemon.stop())
    with daemon:
        daemon.wait()
