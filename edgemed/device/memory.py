"""Memory and swap, as the kernel tells them. Sizes are bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from edgemed.device.sysfs import Tree

_LINE: Final = re.compile(r"(\w+):\s+(\d{1,15}) kB")
_CGROUP: Final = "sys/fs/cgroup"


@dataclass(frozen=True)
class Memory:
    """What there is and what a new program could get; `limit` is a container's own, where it has one."""

    total: int | None = None
    available: int | None = None
    swap_total: int | None = None
    swap_free: int | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Swap:
    """One swap area. zram is compressed memory: it gives less than it promises, and costs CPU time."""

    path: str
    size: int
    used: int

    @property
    def is_zram(self) -> bool:
        """Whether it lies in memory itself."""
        return "/zram" in self.path


def read_memory(tree: Tree) -> Memory:
    """`/proc/meminfo`, and the limit of this control group (version 2)."""
    kib = {match[1]: int(match[2]) << 10 for match in _LINE.finditer(tree.text("proc/meminfo") or "")}
    available, limit = kib.get("MemAvailable"), tree.integer(f"{_CGROUP}/memory.max")
    used = tree.integer(f"{_CGROUP}/memory.current")
    if limit is not None and used is not None:
        room = max(limit - used, 0)
        available = room if available is None else min(available, room)
    return Memory(kib.get("MemTotal"), available, kib.get("SwapTotal"), kib.get("SwapFree"), limit)


def read_swaps(tree: Tree) -> tuple[Swap, ...]:
    """`/proc/swaps`: one area a line, below a heading."""
    lines = [line.split() for line in (tree.text("proc/swaps") or "").splitlines()[1:]]
    whole = [line for line in lines if len(line) == 5 and line[2].isdecimal() and line[3].isdecimal()]
    return tuple(Swap(line[0], int(line[2]) << 10, int(line[3]) << 10) for line in whole)
