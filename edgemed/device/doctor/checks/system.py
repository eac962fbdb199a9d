"""The board, its JetPack, its kernel, and the Python that runs this."""

from __future__ import annotations

import re
from typing import Final

from edgemed.device.board import RELEASE, Board
from edgemed.device.doctor.diagnosis import Facts, Line, note, ok, unknown, wrong
from edgemed.device.doctor.scene import FIRST_PYTHON, Scene, agree, numbers
from edgemed.device.packages import upstream

_KERNEL_DEB: Final = re.compile(r"(\d+\.\d+\.\d+)-tegra")
_NVRM: Final = re.compile(r"NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s")


def board(scene: Scene) -> Line:
    """Which board or GPU this is, and whether its profile is known."""
    if scene.board is not None:
        return _jetson(scene.board)
    if scene.tree.exists(RELEASE):
        return unknown(
            "board",
            "L4T is installed, but the device tree names no Tegra, or is not to be seen here.",
            "In a container, run it with the NVIDIA runtime; elsewhere see /proc/device-tree/compatible.",
        )
    if scene.gpu is not None:
        capability = scene.gpu.compute_capability
        found = f"no Jetson; its GPU is {scene.gpu.name}, compute capability {capability}"
        if scene.profile is not None:
            return ok("board", f"{found}: {scene.profile.name}", facts={"compute_capability": capability})
        return note(
            "board",
            f"{found}, which no device profile describes.",
            "Engines are built for the GPU that is there; `edgemed devices` lists what is known.",
            facts={"compute_capability": capability},
        )
    if scene.live is not None and scene.live.driver.state == "fails":
        return wrong("board", f"The NVIDIA driver cannot be asked: {scene.live.driver.error}.", "Restart the machine.")
    return unknown(
        "board",
        "No Jetson, and no NVIDIA GPU that a driver knows.",
        "Bundles are built, checked and run on ONNX Runtime here; engines need the device itself.",
    )


def jetpack(scene: Scene) -> Line:
    """Whether the release file, the packages and the profile agree, and edgemed runs on that release."""
    if scene.board is None:
        return unknown("jetpack", "Not a Jetson.")
    here, core = scene.board, scene.package("nvidia-l4t-core")
    facts: Facts = {"jetpack": here.jetpack, "l4t": here.l4t, "l4t_core": core[1] if core else None}
    found = f"JetPack {here.jetpack or '?'}, L4T {here.l4t or (core[1] if core else '?')}"
    if here.jetpack is None and here.l4t is None:
        return unknown(
            "jetpack",
            "Neither /etc/nv_tegra_release nor the package nvidia-jetpack says which release this is.",
            "On the board: sudo apt install nvidia-jetpack; in a container mount /etc/nv_tegra_release read-only.",
            facts=facts,
        )
    if scene.row is not None and scene.too_old:
        row = scene.row
        return wrong(
            "jetpack",
            f"{found} brings Python {row.python} and TensorRT {row.tensorrt}: edgemed does not run on it.",
            f"Export to it instead: `edgemed inspect NAME.edgemed --device {scene.name}@{row.jetpack[-1]}` prints how.",
            facts=facts,
        )
    if mixed := _mixed(scene, here):
        remedy = "Finish the upgrade (sudo apt full-upgrade, then restart), or flash the board anew."
        return wrong("jetpack", f"Releases are mixed: {mixed}.", remedy, facts=facts)
    if scene.profile is not None and (scene.row is None or (here.l4t is not None and not _knows(scene, here.l4t))):
        return note(
            "jetpack",
            f"{found} is a release that the profile {scene.profile.id} does not know.",
            "It may work; `edgemed devices` lists what is known. A newer edgemed may know it.",
            facts=facts,
        )
    return ok("jetpack", found, facts=facts)


def kernel(scene: Scene) -> Line:
    """The running kernel against the installed one, and the driver's kernel module."""
    running = scene.tree.text("proc/sys/kernel/osrelease", 256)
    match = _NVRM.search(scene.tree.text("proc/driver/nvidia/version") or "")
    driver = match[1] if match else None
    facts: Facts = {"kernel": running, "driver": driver}
    if not running:
        return unknown("kernel", "The running kernel does not say its version.", facts=facts)
    found = f"Linux {running}" + (f", NVIDIA driver {driver}" if driver else "")
    if scene.board is not None:
        deb = _KERNEL_DEB.match(scene.packages.get("nvidia-l4t-kernel", ""))
        if deb is not None and not running.startswith(deb[1]):
            return wrong(
                "kernel",
                f"Linux {running} is running, but {deb[0]} is installed: modules and libraries do not fit together.",
                "Restart the board; if it stays, look at /boot/extlinux/extlinux.conf.",
                facts=facts,
            )
        if "tegra" not in running and driver is None:
            return note(
                "kernel",
                f"{found}: not NVIDIA's Tegra kernel by its name, and no NVIDIA module is loaded.",
                "If the GPU is not found, boot the kernel of the package nvidia-l4t-kernel.",
                facts=facts,
            )
    return ok("kernel", found, facts=facts)


def python(scene: Scene) -> Line:
    """This interpreter against the one that JetPack's TensorRT bindings are made for."""
    if scene.live is None:
        return unknown("python", "The Python of another root cannot be asked.")
    here = scene.live.python
    found = f"Python {here.version}" + (" in a virtual environment" if here.in_venv else "")
    facts: Facts = {"python": here.version, "venv": here.in_venv, "sees_system_packages": here.sees_system}
    if numbers(here.version) < FIRST_PYTHON:
        return wrong("python", f"{found} is older than 3.10.", "Use Python 3.10 to 3.13.", facts=facts)
    if scene.too_old or scene.row is None:
        return ok("python", found, facts=facts)
    if not agree(here.version, scene.row.python):
        return wrong(
            "python",
            f"{found}, but TensorRT's bindings of JetPack are made for Python {scene.row.python}.",
            f"Make the environment with it: python{scene.row.python} -m venv --system-site-packages venv",
            facts=facts,
        )
    if not here.sees_system:
        return wrong(
            "python",
            f"{found} that hides the system's packages, TensorRT's bindings among them.",
            f"Make it anew: python{scene.row.python} -m venv --system-site-packages venv",
            facts=facts,
        )
    return ok("python", found, facts=facts)


def _jetson(here: Board) -> Line:
    modules = ", ".join(here.modules) or "no module number"
    capability = here.compute_capability
    facts: Facts = {"id": here.id, "soc": here.soc, "compute_capability": capability, "modules": here.modules}
    if capability is None:
        return wrong(
            "board",
            f"{here.model or 'A Jetson'} ({modules}) has the SoC {here.soc}, which edgemed does not know.",
            "A newer edgemed may know it; `edgemed devices` lists what this one knows.",
            facts=facts,
        )
    if here.profile is None:
        return note(
            "board",
            f"{here.model or 'A Jetson'} ({modules}, {here.soc}) is a module that no device profile names.",
            "It is treated by its SoC; engines are kept under its module number. A profile file would say more.",
            facts=facts,
        )
    return ok("board", f"{here.profile.name} ({modules}), compute capability {capability}", facts=facts)


def _mixed(scene: Scene, here: Board) -> str | None:
    """Two releases at once, in words: what an upgrade leaves that was not finished."""
    core, deb = scene.package("nvidia-l4t-core"), upstream(scene.packages.get("nvidia-jetpack"))
    if here.l4t is None:
        return None
    if core is not None and not agree(here.l4t, core[1]):
        return f"/etc/nv_tegra_release says L4T {here.l4t}, the package nvidia-l4t-core {core[1]}"
    brings = scene.row.l4t if scene.row is not None else ()
    if deb is not None and brings and here.l4t not in brings and _knows(scene, here.l4t):
        return (
            f"the package nvidia-jetpack is {deb}, which brings L4T {' or '.join(brings)}, but this is L4T {here.l4t}"
        )
    return None


def _knows(scene: Scene, l4t: str) -> bool:
    """Whether any row of the profile names this L4T; a row may name none (software on top of a JetPack)."""
    rows = scene.profile.software if scene.profile is not None else ()
    return any(l4t in row.l4t for row in rows) or (scene.row is not None and not scene.row.l4t)
