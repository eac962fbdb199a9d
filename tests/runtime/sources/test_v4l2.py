"""Cameras: the code under test makes real system calls; a preloaded library answers them as a capture driver would."""

from __future__ import annotations

import ctypes
import io
import re
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from runtime.sources import camera

from edgemed.base.errors import DeviceStateError, UsageError
from edgemed.runtime.sources import v4l2_abi as abi
from edgemed.runtime.sources.v4l2 import V4l2Source

COLUMNS, ROWS = 64, 48


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return camera.build(tmp_path_factory.mktemp("camera"))


# --- the interface


def test_structures_and_codes_are_the_kernels(tmp_path: Path) -> None:
    """Sizes, places of members and request codes, against the header by the compiler."""
    kinds = {
        "v4l2_capability": abi.Capability, "v4l2_fmtdesc": abi.FmtDesc, "v4l2_frmsizeenum": abi.FrmSizeEnum,
        "v4l2_pix_format": abi.PixFormat, "v4l2_format": abi.Format, "v4l2_captureparm": abi.CaptureParm,
        "v4l2_streamparm": abi.StreamParm, "v4l2_requestbuffers": abi.RequestBuffers, "v4l2_buffer": abi.Buffer,
    }  # fmt: skip
    ours: dict[str, int] = {}
    for name, kind in kinds.items():
        ours[f"sizeof(struct {name})"] = ctypes.sizeof(kind)
        for member, *_ in kind._fields_:
            if member not in ("size", "request_fd"):  # a union of two, and one that older headers lack
                ours[f"offsetof(struct {name}, {member})"] = getattr(kind, member).offset
    requests = ("QUERYCAP", "ENUM_FMT", "S_FMT", "REQBUFS", "QUERYBUF", "QBUF", "DQBUF", "STREAMON", "STREAMOFF",
                "S_PARM", "ENUM_FRAMESIZES")  # fmt: skip
    ours |= {f"VIDIOC_{name}": getattr(abi, name) for name in requests}
    plain = [name for name in vars(abi) if re.match("CAP_|BUF_FLAG|QUANTIZATION|COLORSPACE|YCBCR|FIELD|MEMORY", name)]
    ours |= {f"V4L2_{name}": getattr(abi, name) for name in plain}
    lines = "".join(f'printf("%llu\\n", (unsigned long long)({text}));\n' for text in ours)
    (tmp_path / "print.c").write_text(
        "#include <stddef.h>\n#include <stdio.h>\n#include <sys/ioctl.h>\n#include <linux/videodev2.h>\n"
        f"int main(void) {{ {lines} }}",
        encoding="utf-8",
    )
    subprocess.run(["cc", "-o", str(tmp_path / "print"), str(tmp_path / "print.c")], check=True)
    printed = subprocess.run([str(tmp_path / "print")], capture_output=True, text=True, check=True).stdout.split()
    assert dict(zip(ours, map(int, printed), strict=True)) == ours


def test_a_foreign_client_reads_the_same_camera(library: Path) -> None:
    """FFmpeg's own V4L2 input takes the stand-in for a camera too: what it reads is what the stand-in promises."""
    script = (
        "import av, sys\n"
        f"with av.open('{camera.DEVICE}', format='v4l2', options={{'input_format': 'yuyv422'}}) as file:\n"
        "    for number, packet in zip(range(5), file.demux(video=0)):\n"
        "        sys.stdout.buffer.write(bytes(packet))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=camera.environment(library, fps=50), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    size = COLUMNS * ROWS * 2
    assert [done.stdout[i * size : (i + 1) * size] for i in range(5)] == [camera.buffer(i, size) for i in range(5)]


# --- frames


def test_frames_are_the_drivers_buffers_with_its_times_and_numbers(library: Path) -> None:
    found = camera.read(library, camera={}, pixel_format="GREY")
    frames = found["frames"]
    assert [frame["id"] for frame in frames] == list(range(8))
    numbers = [frame["sequence"] for frame in frames]
    # the machine may be busy: a number may be missing, and is then counted
    assert found["lost"] == numbers[-1] - numbers[0] + 1 - len(numbers)
    assert [frame["crc"] for frame in frames] == [zlib.crc32(camera.buffer(n, COLUMNS * ROWS)) for n in numbers]
    assert all(frame["shape"] == [ROWS, COLUMNS] and frame["dtype"] == "uint8" for frame in frames)
    times = [frame["captured_ns"] for frame in frames]
    assert found["driver_clock"] is True
    assert all(frame["age_ns"] >= 0 for frame in frames)
    assert times == sorted(set(times))
    assert all(frame["lent"] and not frame["writable"] for frame in frames)


def test_lost_frames_are_counted_exactly(library: Path) -> None:
    """A gap of the driver's, a buffer with its error flag, a buffer half full; then numbers that start anew."""
    found = camera.read(library, camera={"gap_at": 3, "gap_by": 5, "error_at": 5, "short_at": 7, "fps": 50}, count=12)
    numbers = [frame["sequence"] for frame in found["frames"]]
    assert found["lost"] == numbers[-1] - numbers[0] + 1 - 12
    assert found["lost"] >= 7
    assert [frame["id"] for frame in found["frames"]] == list(range(12))


def test_sequence_numbers_wrap_at_32_bits(library: Path) -> None:
    found = camera.read(library, camera={"first": 2**32 - 4, "fps": 50}, count=10)
    numbers = [frame["sequence"] for frame in found["frames"]]
    assert numbers[-1] < 16 < numbers[0]
    assert found["lost"] == (numbers[-1] - numbers[0]) % 2**32 + 1 - 10


def test_frames_that_are_held_are_copied_before_the_driver_runs_dry(library: Path) -> None:
    found = camera.read(library, "hold", camera={"buffers": 5, "fps": 50}, pixel_format="GREY", count=12)
    lent = [frame["lent"] for frame in found["frames"]]
    assert lent == [True] * 3 + [False] * 9  # two buffers stay with the driver
    assert found["after"] == [frame["crc"] for frame in found["frames"]]
    numbers = [frame["sequence"] for frame in found["frames"]]
    assert found["lost"] == numbers[-1] - numbers[0] + 1 - 12


def test_without_monotonic_stamps_the_time_is_our_own(library: Path) -> None:
    found = camera.read(library, camera={"clock": 0}, count=3)
    assert found["driver_clock"] is False
    assert all(frame["age_ns"] >= 0 for frame in found["frames"])


def test_a_stamp_in_the_future_is_now(library: Path) -> None:
    found = camera.read(library, camera={"clock": 2}, count=3)
    assert found["driver_clock"] is True
    assert all(frame["age_ns"] >= 0 for frame in found["frames"])


def test_a_lost_signal_that_comes_back_is_no_end(library: Path) -> None:
    found = camera.read(library, camera={"eio_at": 3, "fps": 50}, count=8)
    assert len(found["frames"]) == 8
    assert "error" not in found


# --- frames for the kernels


@pytest.mark.parametrize("pad", [0, 16])
@pytest.mark.parametrize("name", ["GREY", "Y16", "BGR24", "YUYV", "UYVY", "NV12", "NV21"])
def test_raw_frames_are_the_drivers_bytes_and_mean_what_the_others_show(library: Path, name: str, pad: int) -> None:
    given = {"pad": pad, "fps": 50}
    raw = camera.read(library, camera=given, pixel_format=name, raw=True, count=6)
    shown = camera.read(library, camera=given, pixel_format=name, count=6)
    across = {"GREY": 1, "NV12": 1, "NV21": 1, "BGR24": 3}.get(name, 2) * COLUMNS
    size = (across + pad) * (ROWS * 3 // 2 if name.startswith("NV") else ROWS)
    for frame in raw["frames"]:
        assert frame["crc"] == zlib.crc32(camera.buffer(frame["sequence"], size))
        assert frame["lent"]
    by_number = {frame["sequence"]: frame["crc"] for frame in shown["frames"]}
    both = [frame for frame in raw["frames"] if frame["sequence"] in by_number]
    assert both
    assert all(frame["decoded"] == by_number[frame["sequence"]] for frame in both)


def test_a_raw_frame_cut_short_is_lost_and_mjpg_is_not_raw(library: Path) -> None:
    found = camera.read(library, camera={"short_at": 2, "fps": 50}, pixel_format="NV12", raw=True, count=5)
    assert found["lost"] >= 1
    refused = camera.read(library, camera={}, pixel_format="MJPG", raw=True)
    assert refused["error"][0] == "UsageError"
    assert "decoded on the CPU" in refused["error"][1]


# --- formats


def expected(
    name: str, sequence: int, pad: int = 0, *, matrix: str = "601", full: bool = False
) -> np.ndarray[Any, Any]:
    """The picture, by floating-point formulas from the bytes."""
    across = {"GREY": 1, "NV12": 1, "NV21": 1, "BGR24": 3}.get(name, 2) * COLUMNS
    rows = ROWS * 3 // 2 if name in ("NV12", "NV21") else ROWS
    raw = np.frombuffer(camera.buffer(sequence, (across + pad) * rows), np.uint8).reshape(rows, across + pad)[
        :, :across
    ]
    if name == "GREY":
        return raw
    if name == "Y16":
        return raw[:, 0::2].astype(np.uint16) + 256 * raw[:, 1::2].astype(np.uint16)
    if name == "BGR24":
        return raw.reshape(ROWS, COLUMNS, 3)[..., ::-1]
    if name in ("NV12", "NV21"):
        pairs = raw[ROWS:].repeat(2, axis=0)
        y, u, v = raw[:ROWS], pairs[:, 0::2].repeat(2, axis=1), pairs[:, 1::2].repeat(2, axis=1)
        u, v = (v, u) if name == "NV21" else (u, v)
    else:
        first = 0 if name == "YUYV" else 1
        y = raw[:, first::2]
        u, v = (raw[:, 1 - first + offset :: 4].repeat(2, axis=1) for offset in (0, 2))
    kr, kb = {"601": (0.299, 0.114), "709": (0.2126, 0.0722), "2020": (0.2627, 0.0593)}[matrix]
    luma = y / 255 if full else (y - 16.0) / 219
    pb, pr = ((c - 128.0) / (255 if full else 224) for c in (u, v))
    red, blue = luma + 2 * (1 - kr) * pr, luma + 2 * (1 - kb) * pb
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    return np.clip(np.rint(255 * np.stack([red, green, blue], axis=-1)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("pad", [0, 12])
@pytest.mark.parametrize("name", ["GREY", "Y16", "BGR24", "YUYV", "UYVY", "NV12", "NV21"])
def test_every_format_is_read(library: Path, name: str, pad: int) -> None:
    """Also where the driver adds bytes behind each row. (No value of these bytes lies on the edge of rounding.)"""
    found = camera.read(library, camera={"pad": pad}, pixel_format=name, count=2)
    for frame in found["frames"]:
        want = expected(name, frame["sequence"], pad)
        assert frame["shape"] == list(want.shape)
        assert frame["dtype"] == str(want.dtype)
        assert frame["crc"] == zlib.crc32(want.tobytes())


@pytest.mark.parametrize(
    ("settings", "matrix", "full"),
    [
        ({"colorspace": abi.COLORSPACE_REC709}, "709", False),
        ({"colorspace": abi.COLORSPACE_BT2020}, "2020", False),
        ({"colorspace": abi.COLORSPACE_JPEG}, "601", True),
        ({"colorspace": abi.COLORSPACE_JPEG, "quantization": abi.QUANTIZATION_LIM_RANGE}, "601", False),
        ({"quantization": abi.QUANTIZATION_FULL_RANGE}, "601", True),
    ],
)
def test_colours_are_what_the_driver_says_they_are(
    library: Path, settings: dict[str, int], matrix: str, full: bool
) -> None:
    (frame,) = camera.read(library, camera=settings, pixel_format="YUYV", count=1)["frames"]
    assert frame["crc"] == zlib.crc32(expected("YUYV", frame["sequence"], matrix=matrix, full=full).tobytes())


def jpeg(size: tuple[int, int]) -> bytes:
    ramp = np.add.outer(np.arange(size[1]), np.arange(size[0])).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(np.stack([ramp, ramp[::-1], ramp[:, ::-1]], axis=-1)).save(out, "JPEG", quality=90)
    return out.getvalue()


def without_tables(data: bytes) -> bytes:
    """As cameras send Motion JPEG: no DHT segments, the standard tables are meant."""
    out, place = data[:2], 2
    while data[place + 1] != 0xDA:
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place + 1] != 0xC4:
            out += data[place:end]
        place = end
    return out + data[place:]


def test_motion_jpeg_without_huffman_tables_is_read(library: Path, tmp_path: Path) -> None:
    whole = jpeg((COLUMNS, ROWS))
    bare = without_tables(whole)
    assert len(bare) < len(whole)
    (tmp_path / "picture.jpg").write_bytes(bare)
    found = camera.read(library, jpeg=tmp_path / "picture.jpg", camera={}, pixel_format="MJPG", count=3)
    want = zlib.crc32(np.asarray(Image.open(io.BytesIO(whole))).tobytes())
    assert [frame["crc"] for frame in found["frames"]] == [want] * 3
    assert not any(frame["lent"] for frame in found["frames"])


@pytest.mark.parametrize("damage", ["cut", "noise", "other size"])
def test_damaged_jpegs_are_lost_frames(library: Path, tmp_path: Path, damage: str) -> None:
    whole = jpeg((COLUMNS, ROWS) if damage != "other size" else (32, 32))
    data = {"cut": whole[: len(whole) // 2], "noise": b"\xff\xd8" + bytes(500)}.get(damage, whole)
    (tmp_path / "picture.jpg").write_bytes(data)
    found = camera.read(library, jpeg=tmp_path / "picture.jpg", camera={}, pixel_format="MJPG", timeout_s=0.5)
    assert found["frames"] == []
    assert "gave no picture for 0.5 s" in found["error"][1]


# --- settings, and what may be wrong


def test_size_and_rate_are_set(library: Path) -> None:
    found = camera.read(library, camera={}, size=[128, 96], fps=100, pixel_format="GREY", count=2)
    assert [frame["shape"] for frame in found["frames"]] == [[96, 128]] * 2


@pytest.mark.parametrize(
    ("settings", "asked", "kind", "words"),
    [
        ({}, {"size": [100, 50]}, "InputError", ("no 100x50", "Choose one of 64x48, 128x96.")),
        ({}, {"fps": 1000}, "InputError", ("1000 frames per second", "would give 200")),
        ({}, {"pixel_format": "RGB24"}, "InputError", ("does not offer RGB24", "YUYV")),
        ({"denied": 1}, {}, "DeviceStateError", ("may not read", "usermod -aG video")),
        ({"busy": 1}, {}, "DeviceStateError", ("in use", "fuser")),
        ({"multi": 1}, {}, "DeviceStateError", ("several planes", "gst:v4l2src")),
        ({"no_stream": 1}, {}, "DeviceStateError", ("does not stream",)),
        ({"interlaced": 1}, {}, "DeviceStateError", ("half pictures",)),
        ({"buffers": 1}, {}, "DeviceStateError", ("gave 1 buffers",)),
        ({"stop_at": 2}, {"timeout_s": 0.3}, "DeviceStateError", ("gave no picture for 0.3 s",)),
        ({"unplug_at": 4}, {}, "DeviceStateError", ("was unplugged", "Plug it in")),
    ],
)
def test_what_is_wrong_is_said(
    library: Path, settings: dict[str, int], asked: dict[str, Any], kind: str, words: tuple[str, ...]
) -> None:
    found = camera.read(library, camera=settings, **asked)
    assert found["error"][0] == kind
    assert all(word in " ".join(found["error"][1:]) for word in words)
    # pictures that wait in the driver when the cable is pulled are gone with it
    assert len(found["frames"]) <= {"stop_at": 2, "unplug_at": 4}.get(next(iter(settings), ""), 0)


def test_no_device_and_no_camera() -> None:
    with pytest.raises(DeviceStateError, match=r"no camera /dev/video99"):
        V4l2Source("/dev/video99").open()
    with pytest.raises(DeviceStateError, match="/dev/null is no camera"):
        V4l2Source("/dev/null").open()
    with pytest.raises(UsageError, match="no pixel format"):
        V4l2Source("/dev/video99", pixel_format="H264")
    with pytest.raises(UsageError, match="buffers"):
        V4l2Source("/dev/video99", buffers=1)


def test_closing_wakes_who_waits(library: Path) -> None:
    """The camera gives nothing for a minute; a close from another thread ends the loop long before."""
    found = camera.read(library, "close", camera={"stop_at": 0}, timeout_s=50)
    assert found["frames"] == []
    assert "error" not in found


def test_a_closed_camera_is_free_again(library: Path) -> None:
    assert camera.read(library, "again", camera={}, count=2)["again"] == 0
