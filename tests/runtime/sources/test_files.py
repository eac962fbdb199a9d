"""Files as frames, read as calibration reads them; stacks of arrays, mapped."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from PIL import Image as Pil

from edgemed.base.errors import InputError, UsageError
from edgemed.imaging.open import open_image
from edgemed.runtime.sources.files import ArraySource, FileSource


def cine() -> Path:
    """An ultrasound cine of 30 frames, RGB, with a Frame Time."""
    return Path(str(pydicom.data.get_testdata_file("examples_ybr_color.dcm", download=False)))


def test_images_and_cines_come_with_what_their_files_say(tmp_path: Path) -> None:
    Pil.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(tmp_path / "a.png")
    with FileSource([tmp_path / "a.png", cine()], open_image) as source:
        frames = list(source)
    file = open_image(cine())
    assert [frame.id for frame in frames] == list(range(1 + file.frames))
    assert frames[0].data["pixels"].shape == (6, 8)
    for index in (0, file.frames - 1):
        frame = frames[1 + index]
        assert (frame.data["pixels"] == file.frame(index).pixels).all()
        assert frame.image is not None
        assert frame.image.facts == file.frame(index).facts


def test_a_live_cine_plays_in_its_own_time() -> None:
    with FileSource([cine()], open_image, live=True) as source:
        times = [frame.captured_ns for frame, _ in zip(source, range(4), strict=False)]
    interval = open_image(cine()).facts.frame_time_ms
    assert interval is not None
    assert {round((b - a) / 1e6, 2) for a, b in itertools.pairwise(times)} == {round(interval, 2)}


def test_live_images_want_a_rate(tmp_path: Path) -> None:
    Pil.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match="does not say how fast"):
        next(iter(FileSource([tmp_path / "a.png"], open_image, live=True)))
    files = [tmp_path / "a.png"] * 3
    times = [frame.captured_ns for frame in FileSource(files, open_image, live=True, rate=500)]
    assert {b - a for a, b in itertools.pairwise(times)} == {2_000_000}  # across files, too


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match=r"bad\.png"):
        next(iter(FileSource([tmp_path / "bad.png"], open_image)))


def test_arrays_are_mapped_not_read(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 2**16, (7, 5, 9), np.uint16)
    np.save(tmp_path / "stack.npy", stack)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(stack))
    for name in ("stack.npy", "fortran.npy"):
        with ArraySource(tmp_path / name) as source:
            frames = list(source)
        assert [frame.sequence for frame in frames] == list(range(7))
        assert (np.stack([frame.data["pixels"] for frame in frames]) == stack).all()
    times = [f.captured_ns for f in ArraySource(tmp_path / "stack.npy", live=True, rate=1000)]
    assert {b - a for a, b in itertools.pairwise(times)} == {1_000_000}


def test_a_stack_larger_than_memory_is_read_frame_by_frame(tmp_path: Path) -> None:
    """A sparse file of 64 GiB: two frames of it are looked at."""
    path = tmp_path / "large.npy"
    shape = (1 << 16, 1024, 1024)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + 2**36)
    with ArraySource(path) as source:
        first, second = next(source), next(source)
    assert first.data["pixels"].shape == second.data["pixels"].shape == (1024, 1024)


def test_what_is_no_stack_of_numbers_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "flat.npy", np.zeros(5))
    np.save(tmp_path / "none.npy", np.zeros((0, 5, 5)))
    (tmp_path / "short.npy").write_bytes((tmp_path / "flat.npy").read_bytes()[:-1])
    os.mkfifo(tmp_path / "pipe.npy")
    for name, words in {
        "objects": "not numbers", "flat": "no frames", "none": "holds nothing", "short": "claims 40 bytes",
        "pipe": "no regular file",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=words):
            ArraySource(tmp_path / f"{name}.npy").open()
    with pytest.raises(UsageError, match="how fast"):
        ArraySource(tmp_path / "flat.npy", live=True)
