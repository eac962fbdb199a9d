"""Cold starts: real fresh processes of a little bundle; stages add up, the page cache is dropped or refused."""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
from pathlib import Path

import pytest
from evaluate.bundles import write_bundle
from evaluate.hostile import with_golden

from edgemed.base.errors import ChildError, DeviceStateError
from edgemed.profile.coldstart.series import STAGES, cold_start, forget, summarize


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_golden(write_bundle(tmp_path_factory.mktemp("user") / "little.edgemed", boundaries={"float": 0.5}))[0]


def test_stages_of_known_durations() -> None:
    found = summarize([[10, 20, 30, 40, 50, 60], [1, 2, 3, 4, 5, 6], [7, 7, 7, 7, 7, 7]], "kept")
    assert (found.runs, found.page_cache) == (3, "kept")
    assert {stage: figures.median_ns for stage, figures in found.stages.items()} == dict(
        zip(STAGES, (7, 7, 7, 7, 7, 7), strict=True)
    )
    assert (found.answer.min_ns, found.answer.median_ns, found.answer.max_ns) == (15, 35, 150)
    assert found.stages["first"].percentile("90").value_ns is None  # of three runs it would be the slowest


def test_each_start_is_a_fresh_process(bundle: Path) -> None:
    told: list[str] = []
    found = cold_start(bundle, None, 2, "bundle-dropped", tell=told.append)
    assert (found.runs, found.page_cache, len(told)) == (2, "bundle-dropped", 2)
    assert list(found.stages) == list(STAGES)
    assert all(figures.min_ns > 0 for figures in found.stages.values())
    assert found.stages["imports"].min_ns > 10**6  # NumPy and ONNX Runtime were imported anew: milliseconds at least
    assert found.answer.min_ns >= found.stages["imports"].min_ns + found.stages["load"].min_ns


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(ChildError, match=r"status 1.*none\.edgemed"):
        cold_start(tmp_path / "none.edgemed", None, 1)


def test_the_whole_cache_is_dropped_where_it_may_be(tmp_path: Path) -> None:
    switch = tmp_path / "proc/sys/vm/drop_caches"
    switch.parent.mkdir(parents=True)
    forget(tmp_path, "dropped", tmp_path)
    assert switch.read_text() == "3\n"
    with pytest.raises(DeviceStateError, match="may not be dropped"):
        forget(tmp_path, "dropped", tmp_path / "not-here")


def resident(path: Path) -> int:
    """Pages of a file that are in memory."""
    size = path.stat().st_size
    with path.open("r+b") as file, mmap.mmap(file.fileno(), size) as view:
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        buffer = (ctypes.c_char * size).from_buffer(view)
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mincore(ctypes.c_void_p(ctypes.addressof(buffer)), ctypes.c_size_t(size), pages) == 0
        del buffer
        return sum(page & 1 for page in pages)


def test_a_bundles_files_leave_the_cache() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:  # /tmp may lie in memory, which is all cache
        file = Path(folder) / "graphs" / "x.onnx"
        file.parent.mkdir()
        file.write_bytes(os.urandom(64 * mmap.PAGESIZE))
        assert resident(file) == 64
        forget(Path(folder), "bundle-dropped")
        assert resident(file) < 64
