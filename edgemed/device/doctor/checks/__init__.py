"""The checks, in the order in which they are shown: from the board up to what shall run on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from edgemed import __version__
from edgemed.device.doctor.checks.kept import bundle, engines
from edgemed.device.doctor.checks.rights import devices
from edgemed.device.doctor.checks.room import disk, memory, swap
from edgemed.device.doctor.checks.software import cuda, onnxruntime, pycuda, tensorrt
from edgemed.device.doctor.checks.speed import clocks, power_mode, supply, thermal
from edgemed.device.doctor.checks.system import board, jetpack, kernel, python
from edgemed.device.doctor.diagnosis import SCHEMA, Diagnosis, Line
from edgemed.device.doctor.scene import Scene

Check = Callable[[Scene], Line]

CHECKS: Final[tuple[Check, ...]] = (
    board,
    jetpack,
    kernel,
    python,
    cuda,
    tensorrt,
    pycuda,
    onnxruntime,
    devices,
    power_mode,
    clocks,
    thermal,
    supply,
    memory,
    swap,
    disk,
    engines,
)


def examine(scene: Scene) -> Diagnosis:
    """Judge a machine. The bundle's line stands last, where a bundle is asked about."""
    checks = CHECKS if scene.bundle is None else (*CHECKS, bundle)
    lines = tuple(check(scene) for check in checks)
    return Diagnosis(schema_=SCHEMA, edgemed=__version__, machine=scene.name, lines=lines)
