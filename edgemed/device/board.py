"""Which Jetson this machine is, read from files that need neither privileges nor a GPU library."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgemed.device.profile import DeviceProfile, shipped_profiles

_MODULE = re.compile(r"p\d{4}-\d{4}")
_SOC = re.compile(r"nvidia,(tegra\d+)")
_RELEASE = re.compile(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)")
_DEB_VERSION = re.compile(r"\d+(\.\d+)*")


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


def detect_board(root: Path = Path("/")) -> Board | None:
    """Read the device tree, the L4T release and the `nvidia-jetpack` package under `root`.

    Returns:
        The board, or None where the device tree names no NVIDIA Tegra.
    """
    compatible = _strings(root / "proc/device-tree/compatible")
    soc = next((match[1] for entry in compatible if (match := _SOC.fullmatch(entry))), None)
    if soc is None:
        return None
    # `carrier+module`: what computes is the module
    modules = tuple(dict.fromkeys(name for entry in compatible for name in _MODULE.findall(entry.rpartition("+")[2])))
    l4t = _l4t(root / "etc/nv_tegra_release")
    profiles = shipped_profiles()
    return Board(
        model=next(iter(_strings(root / "proc/device-tree/model")), ""),
        modules=modules,
        soc=soc,
        l4t=l4t,
        jetpack=_installed_jetpack(root / "var/lib/dpkg/status") or _jetpack_of(l4t, profiles),
        profile=next((p for p in profiles if set(p.board_ids) & set(modules)), None),
        compute_capability=_compute_capability(soc, profiles),
    )


def _strings(path: Path) -> list[str]:
    """The NUL-terminated strings of a device-tree property; empty where it cannot be read."""
    try:
        return [part for part in path.read_bytes().decode(errors="replace").split("\0") if part]
    except OSError:
        return []


def _l4t(path: Path) -> str | None:
    try:
        match = _RELEASE.search(path.read_text(errors="replace"))
    except OSError:
        return None
    return f"{match[1]}.{match[2]}" if match else None


def _installed_jetpack(status: Path) -> str | None:
    """Version of the `nvidia-jetpack` deb without its build suffix; it is right where release files are not."""
    try:
        with status.open(errors="replace") as lines:
            return _deb_version(lines, "nvidia-jetpack")
    except OSError:
        return None


def _deb_version(lines: Iterable[str], package: str) -> str | None:
    """Version of an installed package in the text of dpkg's status file."""
    stanza: dict[str, str] = {}
    for line in [*lines, "\n"]:
        if line.strip():
            key, colon, value = line.partition(":")
            if colon and not line[0].isspace():
                stanza[key] = value.strip()
            continue
        if stanza.get("Package") == package and stanza.get("Status", "").endswith(" installed"):
            match = _DEB_VERSION.match(stanza.get("Version", ""))
            return match[0] if match else None
        stanza = {}
    return None


def _jetpack_of(l4t: str | None, profiles: tuple[DeviceProfile, ...]) -> str | None:
    """The JetPack of an L4T release, where a software row names exactly one for it."""
    rows = [row for profile in profiles for row in profile.software if l4t in row.l4t]
    names = {name for row in rows for name in row.jetpack} if rows else set()
    return names.pop() if len(names) == 1 else None


def _compute_capability(soc: str, profiles: tuple[DeviceProfile, ...]) -> str | None:
    return next((p.compute_capability for p in profiles if p.soc == soc), None)
