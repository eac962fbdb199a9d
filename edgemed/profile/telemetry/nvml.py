"""Sensors of discrete NVIDIA GPUs, by NVML. On Jetson it starts and answers every question with "not supported"."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from edgemed.profile.telemetry.sensors import Sensor

if TYPE_CHECKING:
    from edgemed.profile.beside import ChannelKind, Unit

# since Ampere (GA100 apart) the board's power is told as the mean of the last second (NVML: nvmlDeviceGetPowerUsage)
_POWER_NS: Final = 1_000_000_000
BOARD: Final = "GPU board"
_SLOWED: Final = (
    "nvmlClocksEventReasonHwSlowdown",
    "nvmlClocksEventReasonHwThermalSlowdown",
    "nvmlClocksEventReasonHwPowerBrakeSlowdown",
    "nvmlClocksEventReasonSwThermalSlowdown",
    "nvmlClocksEventReasonSwPowerCap",
)


def nvml_sensors(index: int = 0) -> tuple[Sensor, ...]:
    """Sensors of one GPU that answer now; none without `nvidia-ml-py`, a driver, or a GPU that supports them."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return ()
    try:
        nvml.nvmlInit()
        gpu = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError:
        return ()
    return tuple(sensor for sensor in _candidates(nvml, gpu) if sensor.read() is not None)


def _candidates(nvml: Any, gpu: Any) -> tuple[Sensor, ...]:
    def ask(name: str, *arguments: object, pick: Callable[[Any], int] = int) -> Callable[[], int | None]:
        def read() -> int | None:
            try:
                return pick(getattr(nvml, name)(gpu, *arguments))
            except (nvml.NVMLError, AttributeError):  # an older library lacks functions, a board lacks answers
                return None

        return read

    slowed = 0
    for reason in _SLOWED:
        slowed |= int(getattr(nvml, reason, 0))

    def mhz(value: Any) -> int:
        return int(value) * 1_000_000

    clock, core, memory = "nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM, nvml.NVML_CLOCK_MEM
    sensors: tuple[tuple[str, ChannelKind, Unit, Callable[[], int | None], int | None], ...] = (
        (BOARD, "power", "mW", ask("nvmlDeviceGetPowerUsage"), _POWER_NS),
        (
            "GPU",
            "temperature",
            "mC",
            ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU, pick=lambda value: int(value) * 1000),
            None,
        ),
        ("GPU clock", "clock", "Hz", ask(clock, core, pick=mhz), None),
        ("memory clock", "clock", "Hz", ask(clock, memory, pick=mhz), None),
        (
            "GPU load",
            "load",
            "permille",
            ask("nvmlDeviceGetUtilizationRates", pick=lambda use: int(use.gpu) * 10),
            None,
        ),
        ("GPU memory", "memory", "B", ask("nvmlDeviceGetMemoryInfo", pick=lambda memory: int(memory.used)), None),
        (
            "slowdown reasons",
            "slowdown",
            "state",
            ask("nvmlDeviceGetCurrentClocksEventReasons", pick=lambda mask: int(mask) & slowed),
            None,
        ),
    )
    return tuple(
        Sensor(name, kind, unit, read, update_ns, slows=True if kind == "slowdown" else None)
        for name, kind, unit, read, update_ns in sensors
    )
