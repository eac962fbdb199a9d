"""The first NVIDIA GPU and its driver, asked through ctypes by calls that create no context."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

_COMPUTE_CAPABILITY_MAJOR = 75  # CUdevice_attribute, cuda.h
_COMPUTE_CAPABILITY_MINOR = 76


@dataclass(frozen=True)
class Gpu:
    """Name and compute capability, e.g. `Gpu("Orin", "8.7")`."""

    name: str
    compute_capability: str


def detect_gpu(library: str = "libcuda.so.1") -> Gpu | None:
    """Ask the CUDA driver for its first device.

    Returns:
        The GPU, or None where there is no driver, or none of its devices can be used.
    """
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        return None
    device = ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0):
        return None
    name = ctypes.create_string_buffer(256)
    if cuda.cuDeviceGetName(name, len(name), device):
        return None
    major, minor = (_attribute(cuda, which, device) for which in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR))
    return None if major is None or minor is None else Gpu(name.value.decode(errors="replace"), f"{major}.{minor}")


def driver_cuda(library: str = "libcuda.so.1") -> str | None:
    """The CUDA version that the driver speaks, e.g. `12.6`; needs no device.

    Returns:
        The version, or None where there is no driver.
    """
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        return None
    version = ctypes.c_int()
    if cuda.cuDriverGetVersion(ctypes.byref(version)):
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def _attribute(cuda: ctypes.CDLL, which: int, device: ctypes.c_int) -> int | None:
    value = ctypes.c_int()
    return None if cuda.cuDeviceGetAttribute(ctypes.byref(value), which, device) else value.value
