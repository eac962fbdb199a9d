"""The file of stamps: rows by index, growth, reading back, stages that add up, exports, memory."""

from __future__ import annotations

import csv
import errno
import mmap
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgemed.base.errors import InputError, ResourceError
from edgemed.profile.export import write_csv, write_npz
from edgemed.profile.stamps import (
    ANSWERED,
    CHUNK,
    COLUMNS,
    DONE,
    INTENDED,
    STAGES,
    Samples,
    StampFile,
    stage_of,
)

WIDTH = len(COLUMNS)


def write(path, rows: np.ndarray) -> Samples:
    with StampFile(path) as file:
        for index, row in enumerate(rows.tolist()):
            file.put(index, *row)
    return Samples(path)


def read(samples: Samples) -> np.ndarray:
    return np.concatenate([*(chunk.copy() for chunk in samples.chunks()), np.empty((0, WIDTH), np.int64)])


@pytest.mark.parametrize("n", [0, 1, 1000, CHUNK, CHUNK + 1, 2 * CHUNK + 5])
def test_rows_come_back_and_numpy_reads_the_file(tmp_path, n):
    rows = np.random.default_rng(n).integers(-(2**62), 2**62, (n, WIDTH))
    samples = write(tmp_path / "s.npy", rows)
    assert len(samples) == n
    assert (read(samples) == rows).all()
    assert (np.load(tmp_path / "s.npy", allow_pickle=False) == rows).all()
    assert (samples.column(INTENDED) == rows[:, INTENDED]).all()


def test_rows_may_be_written_out_of_order_across_a_chunks_edge(tmp_path):
    file = StampFile(tmp_path / "s.npy")
    for index in (CHUNK + 1, CHUNK - 1, CHUNK):
        file.put(index, *[index] * WIDTH)
    rows = read(file.close())
    assert len(rows) == CHUNK + 2
    assert rows[:, 0].tolist() == [0] * (CHUNK - 1) + [CHUNK - 1, CHUNK, CHUNK + 1]


def test_rows_are_right_where_pages_have_64_kib(tmp_path, monkeypatch):
    monkeypatch.setattr(mmap, "ALLOCATIONGRANULARITY", 1 << 16)
    rows = np.random.default_rng(1).integers(0, 2**62, (CHUNK + 9, WIDTH))
    assert (read(write(tmp_path / "s.npy", rows)) == rows).all()


def test_rows_can_be_read_while_they_are_written(tmp_path):
    with StampFile(tmp_path / "s.npy") as file:
        for index in range(CHUNK + 10):
            file.put(index, *[index] * WIDTH)
        assert file.read(CHUNK - 2, CHUNK + 3)[:, 3].tolist() == list(range(CHUNK - 2, CHUNK + 3))


def test_closing_twice_does_no_harm(tmp_path):
    file = StampFile(tmp_path / "s.npy")
    file.put(0, *range(WIDTH))
    assert len(file.close()) == len(file.close()) == 1


def test_a_full_disk_is_known_before_the_first_row(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ResourceError, match="disk is full"):
        StampFile(tmp_path / "s.npy")


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: b"\0" + d[1:], lambda d: b"", lambda d: d[:100]]
)
def test_other_files_are_refused(tmp_path, damage):
    path = tmp_path / "s.npy"
    write(path, np.ones((3, WIDTH), np.int64))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="does not hold the stamps"):
        Samples(path)


def test_a_file_that_shrinks_while_it_is_read_is_told(tmp_path):
    samples = write(tmp_path / "s.npy", np.ones((10, WIDTH), np.int64))
    os.truncate(samples.path, 4200)
    with pytest.raises(InputError, match="cut short"):
        list(samples.chunks())


@given(gaps=hnp.arrays(np.int64, st.tuples(st.integers(1, 20), st.just(WIDTH - 1)), elements=st.integers(0, 10**9)),
       known=st.tuples(*[st.booleans()] * 3), filled=st.booleans())  # fmt: skip
def test_stages_add_up_to_the_latency(gaps, known, filled):
    """Whatever was stamped, to the nanosecond; what was not is told as unknown."""
    rows = np.zeros((len(gaps), WIDTH), dtype=np.int64)
    rows[:, 1:] = 10**15 + np.cumsum(gaps, axis=1)
    for stage, (start, end) in zip(known, [(4, 6), (6, 8), (8, 10)], strict=True):
        if not stage:
            rows[:, start:end] = 0
    if not filled:
        rows[:, 3] = 0
    total = sum(stage_of(rows, name)[0] for name in STAGES)
    assert (total == rows[:, DONE] - rows[:, INTENDED]).all()
    assert all((stage_of(rows, name)[0] >= 0).all() for name in STAGES)
    for name, stamped in zip(("copy-in", "compute", "copy-out", "pre"), (*known, filled), strict=True):
        assert stage_of(rows, name)[1].all() == stamped


def test_exports_hold_the_same_numbers(tmp_path):
    rows = np.random.default_rng(0).integers(0, 2**62, (CHUNK + 7, WIDTH))
    samples = write(tmp_path / "s.npy", rows)
    write_csv(samples, tmp_path / "s.csv")
    write_npz(samples, tmp_path / "s.npz")
    with (tmp_path / "s.csv").open(newline="") as file:
        head, *lines = csv.reader(file)
    assert tuple(head) == COLUMNS
    assert (np.array(lines, dtype=np.int64) == rows).all()
    with np.load(tmp_path / "s.npz", allow_pickle=False) as archive:
        assert tuple(archive) == COLUMNS
        assert all((archive[name] == rows[:, i]).all() for i, name in enumerate(COLUMNS))


def test_an_export_that_fails_leaves_nothing(tmp_path):
    samples = write(tmp_path / "s.npy", np.ones((3, WIDTH), np.int64))
    with pytest.raises(ResourceError):
        write_csv(samples, tmp_path / "none" / "s.csv")
    samples.path.unlink()
    with pytest.raises(ResourceError):
        write_npz(samples, tmp_path / "s.npz")
    assert list(tmp_path.iterdir()) == []


def test_memory_is_that_of_a_chunk_while_it_is_written(tmp_path):
    """1.5 million rows are 132 MB of file; written by the mapping, they never stay resident."""
    code = (
        "import sys, resource; from pathlib import Path\n"
        "from edgemed.profile.stamps import StampFile\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "file = StampFile(Path(sys.argv[1]))\n"
        "for i in range(1_500_000): file.put(i, *(i,) * 11)\n"
        "print(len(file.close()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "s.npy")], capture_output=True, text=True, check=True
    )
    rows, grown_kib = map(int, done.stdout.split())
    assert rows == 1_500_000
    assert grown_kib < 24 * 1024  # two chunks of 5.5 MiB, and what the interpreter takes


def test_no_stage_is_negative_where_a_device_s_clock_is_some_microseconds_off():
    """The copy in seems to begin before the frame was filled, the copy out to end after the answer."""
    rows = np.array([[ANSWERED, 1000, 1100, 1200, 1190, 1250, 1260, 1400, 1410, 1530, 1500]], dtype=np.int64)
    found = {name: int(stage_of(rows, name)[0][0]) for name in STAGES}
    assert found == {
        "wait": 100, "pre": 100, "queue": 20, "copy-in": 50, "compute": 140, "copy-out": 90, "post": 0
    }  # fmt: skip
    assert sum(found.values()) == 500
