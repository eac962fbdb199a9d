"""Clients of the Open Inference Protocol that others wrote, each in an environment of its own, kept in the cache.

Run as a module (`make peers`) it fills the cache (`scripts/wheels.py`). Their dependencies contradict each other and
ours, so nothing is installed into the virtual environment. In a test: `python_of("kserve")` is their interpreter.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from scripts.wheels import cache_dir, filled

CACHE = cache_dir() / "peers"  # now: a fixture moves XDG_CACHE_HOME to a private place later
PEERS = {
    "tritonclient": ("tritonclient[http,grpc]==2.73.0",),
    "kserve": ("kserve==0.21.0",),
    "mlserver": ("mlserver==1.7.1", "tritonclient[http]==2.73.0"),
}
BENCH = {"mlserver-onnx": ("mlserver==1.7.1", "onnxruntime>=1.22")}
"""For `make bench-http`, not for tests."""

_ALL = PEERS | BENCH
_NEWEST = {"mlserver": (3, 12), "mlserver-onnx": (3, 12)}
"""The newest Python that they are for."""


def unsupported(name: str) -> str | None:
    """Why a peer cannot be had for this Python, or None."""
    newest = _NEWEST.get(name)
    if newest is None or sys.version_info[:2] <= newest:
        return None
    return f"{_ALL[name][0]} is for Python {newest[0]}.{newest[1]} at most"


def folder_of(name: str) -> Path:
    """Where the environment lies, or would."""
    key = hashlib.sha256("\0".join((*_ALL[name], sys.version)).encode()).hexdigest()[:12]
    return CACHE / f"{name}-{key}"


def python_of(name: str) -> Path | None:
    """The interpreter of an environment that is there."""
    python = folder_of(name) / "bin" / "python"
    return python if python.exists() else None


def ensure(name: str) -> Path:
    """The interpreter; fetches what the cache lacks.

    Raises:
        CalledProcessError: the package index does not give it; stderr says more.
    """
    return filled(folder_of(name), lambda folder: _install(name, folder)) / "bin" / "python"


def _install(name: str, folder: Path) -> None:
    uv = str(Path(sys.executable).parent / "uv")
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    subprocess.run(
        [uv, "venv", "--quiet", "--relocatable", "--allow-existing", "--python", str(base), str(folder)], check=True
    )
    python = str(folder / "bin" / "python")
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--only-binary", ":all:", "--python", python, *_ALL[name]], check=True
    )


def main(names: list[str]) -> None:
    for name in names or PEERS:
        if reason := unsupported(name):
            sys.stderr.write(f"skipped: {reason}\n")
            continue
        try:
            ensure(name)
        except (subprocess.CalledProcessError, OSError):
            sys.stderr.write(f"{name} could not be fetched: tests that ask it will say so.\n")


if __name__ == "__main__":
    main(sys.argv[1:])
