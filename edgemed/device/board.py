"""Which Jetson this machine is, read from files that need neither privileges nor a GPU library."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgemed.device.memory import read_memory
from edgemed.device.packages import installed_packages, upstream
from edgemed.device.profile import DeviceProfile, shipped_profiles
from edgemed.device.sysfs import Tree

_MODULE = re.compile(r"p\d{4}-\d{4}")
_SOC = re.compile(r"nvidia,(tegra\d+)")
_RELEASE = re.compile(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*(\d+(?:\.\d+)*)")

# engines of containers hide the first one; ours mount it at the second (docker/jetson/compose.yaml)
_DEVICE_TREES = ("proc/device-tree", "run/edgemed/device-tree")
RELEASE = "etc/nv_tegra_release"


@dataclass(frozen=True)
class Board:
    """A Jetson as it describes itself. `profile` is None for a module that no shipped profile names."""

    model: str
    modules: tuple[str, ...]
    soc: str
    l4t: str | None
    jetpack: str | None
    profile: DeviceProfile | None
    compute_capability: str | None

    @property
    def id(self) -> str:
        """The profile's id, else the first module number, else the SoC."""
        if self.profile is not None:
            return self.profile.id
        return self.modules[0] if self.modules else self.soc


def detect_board(root: Path | Tree = Path("/")) -> Board | None:
    """Read the device tree, the L4T release and the `nvidia-jetpack` package under `root`.

    Returns:
        The board, or None where the device tree names no NVIDIA Tegra.
    """
    tree = root if isinstance(root, Tree) else Tree(root)
    compatible = device_tree(tree, "compatible")
    soc = next((match[1] for entry in compatible if (match := _SOC.fullmatch(entry))), None)
    if soc is None:
        return None
    # `carrier+module`: what computes is the module
    modules = tuple(dict.fromkeys(name for entry in compatible for name in _MODULE.findall(entry.rpartition("+")[2])))
    l4t = l4t_release(tree)
    profiles = shipped_profiles()
    return Board(
        model=next(iter(device_tree(tree, "model")), ""),
        modules=modules,
        soc=soc,
        l4t=l4t,
        # the package is right where release files are not
        jetpack=upstream(installed_packages(tree).get("nvidia-jetpack")) or _jetpack_of(l4t, profiles),
        profile=next((p for p in profiles if set(p.board_ids) & set(modules)), None) or _by_memory(tree, soc, profiles),
        compute_capability=_compute_capability(soc, profiles),
    )


def device_tree(tree: Tree, name: str) -> tuple[str, ...]:
    """Strings of a property of the device tree's root, e.g. `compatible`; empty where there is none."""
    return next(filter(None, (tree.strings(f"{folder}/{name}") for folder in _DEVICE_TREES)), ())


def l4t_release(tree: Tree) -> str | None:
    """The L4T release that `/etc/nv_tegra_release` states, e.g. `36.4.3`."""
    match = _RELEASE.search(tree.text(RELEASE) or "")
    return f"{match[1]}.{match[2]}" if match else None


def _by_memory(tree: Tree, soc: str, profiles: tuple[DeviceProfile, ...]) -> DeviceProfile | None:
    """The profile of a SoC whose module numbers are not known, told by the size of its memory (T4000: 64 GB)."""
    total = read_memory(tree).total
    if total is None:
        return None
    # firmware keeps a few per cent for itself; sizes of one SoC's modules are factors of two apart
    fits = [p for p in profiles if p.soc == soc and not p.board_ids and _near(total, p.memory_gb)]
    return fits[0] if len(fits) == 1 else None


def _near(total: int, sizes_gb: tuple[float, ...]) -> bool:
    return any(0.75 * size <= total / 1e9 <= 1.1 * size for size in sizes_gb)


def _jetpack_of(l4t: str | None, profiles: tuple[DeviceProfile, ...]) -> str | None:
    """The JetPack of an L4T release, where a software row names exactly one for it."""
    rows = [row for profile in profiles for row in profile.software if l4t in row.l4t]
    names = {name for row in rows for name in row.jetpack} if rows else set()
    return names.pop() if len(names) == 1 else None


def _compute_capability(soc: str, profiles: tuple[DeviceProfile, ...]) -> str | None:
    return next((p.compute_capability for p in profiles if p.soc == soc), None)
