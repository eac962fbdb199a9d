"""The runtime's tests on a real GPU: `EDGEMED_CUDA=driver` puts NVIDIA's driver in the place of the host-only one.

What a test only observes goes on; what it wants to steer (delays, faults, another device) cannot be steered there, and
the test is skipped at that point.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.runtime.fakecuda import fetch


def wanted() -> bool:
    """Whether this run is for a real driver."""
    return os.environ.get("EDGEMED_CUDA") == "driver"


def compile_ptx(source: Path, level: str = "compute_80") -> bytes:
    """PTX of a file of kernels, by the CUDA toolkit of this machine.

    Raises:
        FileNotFoundError: there is no nvcc.
    """
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise FileNotFoundError("nvcc is not on the PATH; CUDA keeps it in its bin folder")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "kernels.ptx"
        subprocess.run([nvcc, "-ptx", f"-arch={level}", f"-I{fetch.HERE}", "-o", target, source], check=True)
        return target.read_bytes()


shim_only = pytest.mark.skipif(wanted(), reason="it starts processes over the host-only driver")


class RealDriver:
    """Stands where tests expect the handle of the host-only driver."""

    def forgive(self) -> None: ...

    def kernels(self, library: Path) -> None: ...

    def reads(self, array: Any) -> None: ...

    def writes(self, array: Any) -> None: ...

    def races(self) -> list[str]:
        return []

    def take_races(self) -> list[str]:
        return []

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        def cannot(*_: Any, **__: Any) -> NoReturn:
            pytest.skip(f"a real driver has no '{name}'")

        return cannot
