"""What every child process of ours needs: to find the package, to die with its parent, and words for how it ended."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when the thread that started it ends, also if that has happened already.

    Args:
        parent: process number that the parent gave as its own.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def package_environment() -> dict[str, str]:
    """This process's environment, in which a child finds the same edgemed, and imports nothing from its own folder."""
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    root = Path(__file__).resolve().parents[2]
    if root.name not in ("site-packages", "dist-packages"):  # a source checkout: the child must find it, too
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    return environment


def how_ended(status: int) -> str:
    """Words for a `returncode`, to stand after "the process"."""
    if status >= 0:
        return f"ended with status {status}"
    if -status == signal.SIGKILL:
        return "was killed (signal 9), probably because memory ran out"
    try:
        name = signal.Signals(-status).name
    except ValueError:  # a real-time signal has no name
        name = "unknown"
    return f"was ended by signal {-status} ({name})"
