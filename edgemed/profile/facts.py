"""What this machine and this process are, and what the process cost: read before and after, never in between."""

from __future__ import annotations

import os
import platform
import resource
import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from edgemed.profile.records import Count, Nanoseconds, Positive, Record, Text


class ProcessFacts(Record):
    """What the kernel counted for this process during the measured time (all its threads)."""

    wall_ns: Nanoseconds
    user_ns: Nanoseconds
    system_ns: Nanoseconds
    voluntary_switches: Count
    involuntary_switches: Count
    minor_faults: Count
    major_faults: Count
    max_rss_bytes: Count = Field(description="highest since the process began")


class Host(Record):
    """The machine that ran it."""

    machine: Text
    cpu: Text
    cores: Positive
    kernel: Text
    os: Text
    governor: Text | None


@dataclass(frozen=True)
class Usage:
    """A reading of the process's counters."""

    at_ns: int
    counted: resource.struct_rusage

    @staticmethod
    def now() -> Usage:
        return Usage(time.monotonic_ns(), resource.getrusage(resource.RUSAGE_SELF))

    def until(self, after: Usage) -> ProcessFacts:
        """What happened between two readings."""
        a, b = self.counted, after.counted
        return ProcessFacts(
            wall_ns=after.at_ns - self.at_ns,
            user_ns=round((b.ru_utime - a.ru_utime) * 1e9),
            system_ns=round((b.ru_stime - a.ru_stime) * 1e9),
            voluntary_switches=b.ru_nvcsw - a.ru_nvcsw,
            involuntary_switches=b.ru_nivcsw - a.ru_nivcsw,
            minor_faults=b.ru_minflt - a.ru_minflt,
            major_faults=b.ru_majflt - a.ru_majflt,
            max_rss_bytes=b.ru_maxrss * 1024,
        )


def host(root: Path = Path("/")) -> Host:
    """This machine. The machine's name is left out: results are shown to others."""
    return Host(
        machine=platform.machine(),
        cpu=_cpu(root),
        cores=len(os.sched_getaffinity(0)),
        kernel=platform.release(),
        os=_os(root),
        governor=_line(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    )


def _cpu(root: Path) -> str:
    """x86 names its processors; Arm tells part numbers."""
    fields: dict[str, str] = {}
    for line in _text(root / "proc/cpuinfo").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    return fields.get("model name") or fields.get("Hardware") or f"part {fields.get('CPU part', 'unknown')}"


def _os(root: Path) -> str:
    for line in _text(root / "etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return platform.system()


def _line(path: Path) -> str | None:
    return _text(path).strip() or None


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
