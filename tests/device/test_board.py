"""Boards are told from files, GPUs from the driver."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from edgemed.base.errors import DeviceStateError
from edgemed.device.board import detect_board
from edgemed.device.gpu import Gpu, detect_gpu
from edgemed.device.here import Here, detect_here

ORIN_NANO = b"nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0"
RELEASE = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025\n"
    "# KERNEL_VARIANT: oot\n"
)
STATUS = """Package: nvidia-container
Status: install ok installed
Version: 9.9.9

Package: nvidia-jetpack
Status: {status}
Description: NVIDIA Jetpack Meta Package
 Version: 1.0 of a continuation line
Version: 6.2.1+b38

Package: zlib1g
Status: install ok installed
Version: 1:1.2.11
"""


def make_root(
    root: Path, compatible: bytes | None = ORIN_NANO, release: str | None = RELEASE, status: str | None = None
) -> Path:
    files = {
        "proc/device-tree/compatible": compatible,
        "proc/device-tree/model": b"NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
        "etc/nv_tegra_release": release.encode() if release is not None else None,
        "var/lib/dpkg/status": STATUS.format(status=status).encode() if status is not None else None,
    }
    for name, data in files.items():
        if data is not None:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
    return root


def test_orin_nano_is_known(tmp_path: Path) -> None:
    board = detect_board(make_root(tmp_path, status="install ok installed"))
    assert board is not None
    assert board.profile is not None
    assert (board.id, board.profile.id, board.soc, board.compute_capability) == (
        "orin-nano-8gb",
        "orin-nano-8gb",
        "tegra234",
        "8.7",
    )
    assert board.model == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert board.modules == ("p3767-0005",)
    assert (board.l4t, board.jetpack) == ("36.4.3", "6.2.1")  # the package is right where the release is not


@pytest.mark.parametrize("status", [None, "deinstall ok config-files"])
def test_without_the_package_l4t_tells_the_jetpack(tmp_path: Path, status: str | None) -> None:
    board = detect_board(make_root(tmp_path, status=status))
    assert board is not None
    assert board.jetpack == "6.2"


def test_l4t_that_is_several_jetpacks_tells_none(tmp_path: Path) -> None:
    release = RELEASE.replace("R36", "R35").replace("4.3", "4.1")
    board = detect_board(make_root(tmp_path, release=release))
    assert board is not None
    assert (board.l4t, board.jetpack) == ("35.4.1", None)
    assert Here(board, None).release == "l4t-35.4.1"


def test_unknown_module_of_a_known_soc(tmp_path: Path) -> None:
    board = detect_board(make_root(tmp_path, b"nvidia,p9999-0000+p9998-0001\0nvidia,tegra234\0", release=None))
    assert board is not None
    assert (board.id, board.profile, board.compute_capability) == ("p9998-0001", None, "8.7")
    assert (board.l4t, board.jetpack) == (None, None)


def test_unknown_soc_has_no_compute_capability(tmp_path: Path) -> None:
    board = detect_board(make_root(tmp_path, b"nvidia,tegra999\0"))
    assert board is not None
    assert (board.id, board.compute_capability) == ("tegra999", None)


@pytest.mark.parametrize("compatible", [None, b"", b"raspberrypi,4-model-b\0brcm,bcm2711\0", b"\xff\xfe\0"])
def test_other_machines_are_no_board(tmp_path: Path, compatible: bytes | None) -> None:
    assert detect_board(make_root(tmp_path, compatible)) is None


DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuDeviceGet(int *device, int ordinal) { *device = 7; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Orin", size); return device != 7; }
int cuDeviceGetAttribute(int *value, int which, int device) {
    *value = which == 75 ? 8 : which == 76 ? 7 : -1;
    return device != 7;
}
"""


def driver(folder: Path, init: int) -> str:
    """A libcuda with the four calls, and cuda.h's numbers for the two attributes."""
    source, library = folder / "cuda.c", folder / "libcuda.so.1"
    source.write_text(DRIVER)
    subprocess.run(["cc", "-shared", "-fPIC", f"-DINIT={init}", "-o", str(library), str(source)], check=True)
    return str(library)


def test_gpu_is_asked_of_the_driver(tmp_path: Path) -> None:
    assert detect_gpu(driver(tmp_path, 0)) == Gpu("Orin", "8.7")


def test_driver_without_a_device_is_no_gpu(tmp_path: Path) -> None:
    assert detect_gpu(driver(tmp_path, 100)) is None  # CUDA_ERROR_NO_DEVICE


def test_no_driver_is_no_gpu() -> None:
    assert detect_gpu("libcuda-that-is-not-there.so.1") is None


def test_here_knows_what_it_can(tmp_path: Path) -> None:
    board = detect_board(make_root(tmp_path))
    assert Here(board, None).compute_capability == "8.7"  # a container without the driver
    assert Here(None, Gpu("RTX", "8.9")).compute_capability == "8.9"
    assert (Here(None, Gpu("RTX", "8.9")).name, Here(None, Gpu("RTX", "8.9")).release) == ("RTX", None)
    assert detect_here(tmp_path).name == "orin-nano-8gb"
    with pytest.raises(DeviceStateError):
        _ = Here(None, None).compute_capability
