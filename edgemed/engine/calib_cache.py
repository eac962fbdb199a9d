"""TensorRT's calibration cache, written from the scale table: the road to DLA, and to TensorRT 10 and earlier.

A text file: one line that names the version and the algorithm, then `tensor: hex` with the big-endian bits of the FP32
scale `amax / 127`. It belongs to the graph whose tensors the table names, which is the bundle's float graph.

Source: the sample cache in NVIDIA/TensorRT issue 2036, and `qdq-translator` of NVIDIA's Deep-Learning-Accelerator-SW.
"""

from __future__ import annotations

import struct
from typing import Final

from edgemed.base.errors import InputError, UsageError
from edgemed.engine.bridge import version_number
from edgemed.graph.scales import ScaleTable

_ALGORITHM: Final = "EntropyCalibration2"
_LAST_MAJOR: Final = 10
"""TensorRT 11 has no calibrators, and reads no cache."""


def calib_cache(table: ScaleTable, tensorrt: str) -> bytes:
    """The cache for one version of TensorRT.

    Args:
        table: scales of every tensor.
        tensorrt: version, e.g. `"8.6.2"` or `"10.3.0.30"`.

    Raises:
        UsageError: this TensorRT reads no calibration cache.
        InputError: a tensor's name cannot stand in the file.
    """
    lines = [f"TRT-{header_number(tensorrt)}-{_ALGORITHM}"]
    for name, entry in table.tensors.items():
        if "\n" in name or "\r" in name or ": " in name:
            raise InputError(f"The tensor name {name!r} cannot stand in a calibration cache.", "Rename the layer.")
        lines.append(f"{name}: {struct.pack('>f', entry.scale).hex()}")
    return ("\n".join(lines) + "\n").encode()


def header_number(tensorrt: str) -> int:
    """The version as TensorRT writes it into the first line: 8601 for 8.6.1, 100300 for 10.3.0.

    Raises:
        UsageError: not a version of TensorRT that has calibrators.
    """
    numbers = version_number(tensorrt)
    if not numbers or numbers[0] > _LAST_MAJOR:
        raise UsageError(f"TensorRT {tensorrt} reads no calibration cache.", "Use the Q/DQ graph.")
    major, minor, patch = (*numbers, 0, 0)[:3]
    return major * 10_000 + minor * 100 + patch if major >= _LAST_MAJOR else major * 1000 + minor * 100 + patch


def read_calib_cache(data: bytes) -> dict[str, float]:
    """Scales by tensor name, from a cache that TensorRT or `calib_cache` wrote.

    Raises:
        InputError: not such a file.
    """
    try:
        head, *lines = data.decode().splitlines()
        if not head.startswith("TRT-"):
            raise ValueError(head[:40])
        pairs = (line.rpartition(": ") for line in lines if line)
        return {name: struct.unpack(">f", bytes.fromhex(bits))[0] for name, _, bits in pairs}
    except (ValueError, struct.error) as error:
        raise InputError(f"This is not a calibration cache: {error}.", "Give a file that TensorRT wrote.") from error
