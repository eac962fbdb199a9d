"""`edgemed serve`: the bedside daemon."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemed.base.errors import UsageError
from edgemed.cli.console import print_json, say

if TYPE_CHECKING:
    from edgemed.serve.config import Config


def serve(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="bedside.toml; see docs/serve.md.", show_default=False)
    ] = None,
    *,
    check: Annotated[bool, typer.Option("--check", help="Look at everything it needs, and end.")] = False,
    demo: Annotated[
        Path | None,
        typer.Option(
            "--demo",
            metavar="BUNDLE",
            help="Serve one bundle on loopback, without any configuration, from a state that is thrown away.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the --check as one JSON document.")] = False,
) -> None:
    """Serve models at the bedside: DICOM, HTTP and live sources in, results out, nothing lost."""
    from edgemed.base.lazy import needing

    if (config is None) == (demo is None):
        raise UsageError("Give a configuration, or --demo with a bundle.", "edgemed serve bedside.toml")
    with needing("serve", purpose="serve at the bedside"):
        _serve(config, demo, check=check, json=json)


def _serve(config: Path | None, demo: Path | None, *, check: bool, json: bool) -> None:
    from edgemed.base.store import scratch_directory
    from edgemed.serve.config import load_config

    if demo is not None:
        from edgemed.serve.demo import demo_config

        with scratch_directory("edgemed-demo") as state:
            made = demo_config(demo, state)
            if check:
                _check(made, as_json=json)
            else:
                _run(made, demo=True)
        return
    assert config is not None
    read = load_config(config)
    if check:
        _check(read, as_json=json)
    else:
        _run(read)


def _check(config: Config, *, as_json: bool) -> None:
    from edgemed.serve.check import check

    lines = check(config)
    if as_json:
        print_json({"ok": not any(line.error for line in lines), "checks": [_row(line) for line in lines]})
    else:
        marks = {"ok": "✓", "warning": "!", "error": "✗"}
        for line in lines:
            say(f"{marks[line.verdict]} {line.what:20} {line.text}")
    for line in lines:
        if line.error is not None:
            raise line.error


def _row(line: object) -> dict[str, str]:
    return {name: str(getattr(line, name)) for name in ("what", "verdict", "text")}


def _run(config: Config, *, demo: bool = False) -> None:
    import gc
    import signal

    from edgemed.serve.daemon import Daemon
    from edgemed.serve.logs import configure

    configure(config.log)
    daemon = Daemon(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: daemon.stop())
    signal.signal(signal.SIGHUP, lambda *_: daemon.reload())
    with daemon:
        if demo:
            for line in daemon.addresses():
                say(line)
            for destination in config.destinations:
                if destination.kind == "folder":
                    say(f"results: {destination.path}")
        # what is here by now stays: to look through all of it again and again is a tenth of the work under load
        gc.collect()
        gc.freeze()
        daemon.wait()
