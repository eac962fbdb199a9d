"""Fuzzing of the HTTP server by its own description: `python -m tests.fuzz.http [--seconds 600] [--seed 1]`.

schemathesis makes requests of `/openapi.json`, whole ones and broken ones; every answer must be one that is described
there, none a 5xx that is not. Afterwards the daemon is ready, and what was stored is accounted for. The short form is
`tests/serve/http/test_openapi.py`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
_PHASES = ("--phases", "coverage,fuzzing")


def schemathesis(folder: Path, port: int, *options: str, told: bool = False) -> subprocess.CompletedProcess[str]:
    """Run it against a server.

    Args:
        folder: it leaves its cache there.
        port: of the server, on 127.0.0.1.
        options: of `schemathesis run`, how long above all.
        told: people are to see what it says, while it does.
    """
    program = Path(sys.executable).with_name("schemathesis")
    command = [str(program), "run", f"http://127.0.0.1:{port}/openapi.json", "--no-color", *_PHASES, *options]
    # which tensors a model takes, no description of a path can say: a body by the schema may be one for another model
    command += ["--exclude-checks", "positive_data_acceptance"]
    paths = os.pathsep.join((str(REPO), str(REPO / "tests")))
    env = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.serve.http.schemathesis_hooks", "PYTHONPATH": paths}
    return subprocess.run(command, capture_output=not told, text=True, env=env, cwd=folder, timeout=None, check=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """The long run; gives the exit code."""
    from edgemed.serve.reconcile import reconcile
    from tests.serve.http.conftest import served, wait_ready

    parser = argparse.ArgumentParser(description="Fuzz the HTTP server by its description.")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="edgemed.fuzz.") as name:
        folder = Path(name)
        with served(folder) as (_, server, client):
            how_long = ("--max-time", str(given.seconds), "--seed", str(given.seed))
            done = schemathesis(folder, server.port, *how_long, told=True)
            wait_ready(client)
        troubles = reconcile(folder / "state").troubles
    for trouble in troubles:
        sys.stderr.write(f"unaccounted for: {trouble}\n")
    return done.returncode or int(bool(troubles))


if __name__ == "__main__":
    sys.exit(main())
