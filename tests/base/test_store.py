"""Writes are whole or not at all: killed writers, full disks, read-only places, exchanges under a reader's eyes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.base import store
from edgemed.base.errors import EdgemedError, InputError, ResourceError, Terminated
from edgemed.base.store import check_target, remove_stale, scratch_directory, staged_directory, write_atomic


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_tree(target: Path, text: str, *, replace: bool = False) -> None:
    with staged_directory(target, replaceable=(lambda _: True) if replace else None) as staging:
        (staging / "sub").mkdir()
        (staging / "sub" / "file").write_text(text)


def test_write_atomic_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def test_write_atomic_that_cannot_finish_keeps_the_old_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(ResourceError):
            write_atomic(path, bytes(8192))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_write_atomic_into_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="does not exist"):
        write_atomic(tmp_path / "absent" / "file", b"")


def test_a_staged_directory_appears_when_its_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "x.edgemed"
    with staged_directory(target) as staging:
        assert staging.parent == target.parent
        assert not target.exists()
        (staging / "file").write_text("text")
    assert (target / "file").read_text() == "text"
    assert target.stat().st_mode & 0o777 == 0o755
    assert names(tmp_path) == ["x.edgemed"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Terminated, SystemExit])
def test_a_block_that_raises_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with staged_directory(tmp_path / "x") as staging:
            (staging / "file").write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert names(tmp_path) == []


def test_an_existing_target_is_refused_before_the_block(tmp_path: Path) -> None:
    target = tmp_path / "x"
    write_tree(target, "old")
    with pytest.raises(InputError, match="exists already"):
        write_tree(target, "new")
    assert (target / "sub" / "file").read_text() == "old"


def test_replace_exchanges_and_removes_the_old_tree(tmp_path: Path) -> None:
    target = tmp_path / "x"
    write_tree(target, "old")
    (target / "old-only").touch()
    write_tree(target, "new", replace=True)
    assert names(target) == ["sub"]
    assert (target / "sub" / "file").read_text() == "new"
    assert names(tmp_path) == ["x"]


def test_a_replace_that_fails_keeps_the_old_tree(tmp_path: Path) -> None:
    target = tmp_path / "x"
    write_tree(target, "old")

    def fail() -> None:
        with staged_directory(target, replaceable=lambda _: True) as staging:
            (staging / "file").touch()
            raise OSError(28, "No space left on device")

    with pytest.raises(ResourceError, match="disk is full"):
        fail()
    assert (target / "sub" / "file").read_text() == "old"
    assert names(tmp_path) == ["x"]


def test_a_target_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "x"

    def race() -> None:
        with staged_directory(target) as staging:
            (staging / "file").touch()
            target.mkdir()
            (target / "theirs").touch()

    with pytest.raises(InputError, match="created meanwhile"):
        race()
    assert names(tmp_path) == ["x"]
    assert names(target) == ["theirs"]


def test_a_reader_never_misses_the_target_during_exchanges(tmp_path: Path) -> None:
    target = tmp_path / "x"
    write_tree(target, "0")
    missing = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            if not target.exists():
                missing.append(1)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for index in range(50):
            write_tree(target, str(index), replace=True)
    finally:
        done.set()
        reader.join()
    assert not missing
    assert (target / "sub" / "file").read_text() == "49"


class _OldLibc:
    """A C library without renameat2."""


@pytest.mark.parametrize("replace", [False, True])
def test_without_renameat2_plain_renames_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: bool) -> None:
    monkeypatch.setattr(store.ctypes, "CDLL", lambda *args, **kwargs: _OldLibc())
    target = tmp_path / "x"
    if replace:
        target.mkdir()
        (target / "old").touch()
    write_tree(target, "new", replace=replace)
    assert names(target) == ["sub"]
    assert names(tmp_path) == ["x"]


def test_targets_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="not a directory"):
        check_target(tmp_path / "file", lambda _: True)
    with pytest.raises(InputError, match="not a directory"):
        check_target(tmp_path / "link", lambda _: True)
    with pytest.raises(ResourceError, match="does not exist"):
        check_target(tmp_path / "absent" / "x")
    with pytest.raises(ResourceError, match="is a file"):
        check_target(tmp_path / "file" / "x")


WRITER = """
import sys
from pathlib import Path
from edgemed.base.store import staged_directory
with staged_directory(Path(sys.argv[1]), replaceable=lambda _: True) as staging:
    (staging / "half").write_bytes(bytes(100_000))
    print("ready", flush=True)
    sys.stdin.read()
"""


def start_writer(target: Path) -> subprocess.Popen[str]:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    return writer


def stop(writer: subprocess.Popen[str], number: signal.Signals = signal.SIGKILL) -> None:
    writer.send_signal(number)
    writer.communicate()


def test_a_killed_writer_leaves_no_target_and_the_next_one_sweeps(tmp_path: Path) -> None:
    target = tmp_path / "x.edgemed"
    stop(start_writer(target))
    (stale,) = names(tmp_path)
    assert stale.startswith(".x.edgemed.")
    assert stale.endswith(".partial")
    write_tree(target, "whole")
    assert names(tmp_path) == ["x.edgemed"]


def test_a_killed_writer_keeps_the_old_target(tmp_path: Path) -> None:
    target = tmp_path / "x"
    write_tree(target, "old")
    stop(start_writer(target))
    assert (target / "sub" / "file").read_text() == "old"


def test_the_staging_of_a_living_writer_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "x"
    writer = start_writer(target)
    try:
        before = names(tmp_path)
        remove_stale(target)
        assert names(tmp_path) == before
    finally:
        stop(writer)


NAMES = st.text("ab*?[].", min_size=1, max_size=8).filter(lambda text: text.strip(".") != "")


@given(name=NAMES, other=st.text("ab*?[].", max_size=8))
def test_sweeping_takes_the_targets_own_staging_only(
    tmp_path_factory: pytest.TempPathFactory, name: str, other: str
) -> None:
    folder = tmp_path_factory.mktemp("sweep")
    dead = 2**22 + 1  # above the largest process id that Linux gives
    mine = folder / f".{name}.{dead}.abc.partial"
    theirs = folder / f".{name}{other}_.{dead}.abc.partial"
    mine.mkdir()
    theirs.mkdir()
    remove_stale(folder / name)
    assert not mine.exists()
    assert theirs.exists()


IN_A_MOUNT = """
import subprocess, sys
from pathlib import Path
from edgemed.base.errors import EdgemedError
from edgemed.base.store import staged_directory
folder, case = Path(sys.argv[1]), sys.argv[2]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], check=True)
if case == "read-only":
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
try:
    with staged_directory(folder / "x") as staging:
        for index in range(64):
            (staging / str(index)).write_bytes(bytes(16_384))
except EdgemedError as error:
    print(error.exit_code, [path.name for path in folder.iterdir()], error)
"""


@pytest.mark.parametrize(("case", "words"), [("full", "The disk is full"), ("read-only", "")])
def test_full_and_read_only_file_systems(tmp_path: Path, case: str, words: str) -> None:
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    probe = subprocess.run([*unshare, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"this kernel lets us mount nothing: {probe.stderr.strip()}")
    done = subprocess.run(
        [*unshare, sys.executable, "-c", IN_A_MOUNT, str(tmp_path), case], capture_output=True, text=True
    )
    assert done.stdout.startswith(f"6 [] {words}"), done.stdout + done.stderr


WITHOUT_PRIVILEGE = """
import os, sys
from pathlib import Path
from edgemed.base.errors import EdgemedError
from edgemed.base.store import staged_directory
folder = Path(sys.argv[1])
folder.mkdir(mode=0o555)
os.chdir(folder)
if os.geteuid() == 0:
    os.setgroups([])
    os.setresuid(65534, 65534, 65534)  # root passes over permission bits; nobody does not
try:
    with staged_directory(Path("x")):
        pass
except EdgemedError as error:
    print(error.exit_code, error)
"""


def test_a_folder_without_permission(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PRIVILEGE, str(tmp_path / "folder")], capture_output=True, text=True
    )
    assert done.stdout.startswith("6 Permission denied"), done.stdout + done.stderr


def test_errors_of_the_store_are_the_users(tmp_path: Path) -> None:
    with pytest.raises(EdgemedError) as caught:
        check_target(tmp_path / "absent" / "x")
    assert caught.value.exit_code == 6
    assert caught.value.hint


def test_nothing_but_what_is_named_replaceable_is_ever_deleted(tmp_path: Path) -> None:
    thesis = tmp_path / "precious" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("years")
    with (
        pytest.raises(InputError, match="is not a bundle"),
        staged_directory(thesis.parent, replaceable=lambda _: False),
    ):
        pass
    assert thesis.read_text() == "years"
    (tmp_path / "empty").mkdir()
    with staged_directory(tmp_path / "empty", replaceable=lambda _: False) as staging:
        (staging / "x").write_text("y")
    assert (tmp_path / "empty" / "x").read_text() == "y"


@pytest.mark.parametrize("name", [".", "..", "/", ""])
def test_a_target_needs_a_name(name: str) -> None:
    with pytest.raises(InputError, match="is no name"):
        check_target(Path(name), lambda _: True)


def test_scratch_directories_of_dead_processes_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead, foreign = tmp_path / "work.999999999.x.partial", tmp_path / "work.notes"
    dead.mkdir()
    foreign.mkdir()
    with scratch_directory("work") as folder, scratch_directory("work") as other:
        assert folder.is_dir()
        assert other.is_dir()
        assert not dead.exists()
    assert list(tmp_path.iterdir()) == [foreign]
