"""Writes that are whole or not at all: files by rename, directories by staging and exchange."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgemed.base.errors import InputError, from_os_error

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_PARTIAL = ".partial"

Replaceable = Callable[[Path], bool]


def fsync_path(path: Path) -> None:
    """Force a file's or directory's data to disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old bytes or the new, never a part.

    Raises:
        ResourceError: disk full, no permission, and the like; nothing is left behind.
    """
    temporary: Path | None = None
    try:
        fd, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_PARTIAL, dir=path.parent)
        temporary = Path(name)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_path(path.parent)
    except OSError as error:
        raise from_os_error(error, path) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def staged_directory(target: Path, *, replaceable: Replaceable | None = None) -> Iterator[Path]:
    """Yield an empty sibling of `target` that becomes `target` when the block ends well.

    Everything in it is fsynced before the rename, so a reader sees a whole directory or none. When the block
    raises, the sibling is removed. An existing target is exchanged atomically and then removed, if it is empty or
    `replaceable` says that it is one of ours; nothing else of the user's is ever deleted.

    Raises:
        InputError: `target` exists and may not be replaced, or is not a directory.
        ResourceError: disk full, no permission, and the like.
    """
    check_target(target, replaceable)
    remove_stale(target)
    try:
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.{os.getpid()}.", suffix=_PARTIAL, dir=target.parent))
    except OSError as error:
        raise from_os_error(error, target) from error
    try:
        yield staging
        _sync_tree(staging)
        staging.chmod(0o755)
        _publish(staging, target, replaceable)
    except OSError as error:
        raise from_os_error(error, target) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_target(target: Path, replaceable: Replaceable | None = None) -> None:
    """Refuse early a target that could not be published later.

    Args:
        target: the directory to be.
        replaceable: says whether an existing directory may be replaced; `None` keeps all.

    Raises:
        InputError: it exists and may not be replaced, or is not a directory.
        ResourceError: its parent does not exist or cannot be written.
    """
    if target.name in ("", ".."):
        raise InputError(f"{target} is no name for a directory.", "Choose another --output.")
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise InputError(f"{target} is not a directory.", "Choose another --output.")
    _check_existing(target, replaceable, "exists already")
    parent = target.parent
    if not parent.is_dir():
        code = errno.ENOTDIR if parent.exists() else errno.ENOENT
        raise from_os_error(OSError(code, os.strerror(code)), parent)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise from_os_error(OSError(errno.EACCES, os.strerror(errno.EACCES)), parent)


def _check_existing(target: Path, replaceable: Replaceable | None, what: str) -> None:
    if not target.exists():
        return
    if replaceable is None:
        raise InputError(f"{target} {what}.", "Give --force to replace it, or another --output.")
    if any(target.iterdir()) and not replaceable(target):
        raise InputError(f"{target} is not a bundle; --force replaces bundles only.", "Choose another --output.")


@contextmanager
def scratch_directory(name: str) -> Iterator[Path]:
    """Yield a private temporary directory; it is removed at the end, and those of killed processes at the start."""
    parent = Path(tempfile.gettempdir())
    _remove_dead(parent, f"{name}.")
    with tempfile.TemporaryDirectory(prefix=f"{name}.{os.getpid()}.", suffix=_PARTIAL) as folder:
        yield Path(folder)


def remove_stale(target: Path) -> None:
    """Remove staging siblings of `target` whose process is gone (it was killed or lost power)."""
    _remove_dead(target.parent, f".{target.name}.")


def _remove_dead(parent: Path, prefix: str) -> None:
    for path in parent.glob(f"{_glob_escape(prefix)}*{_PARTIAL}"):
        pid = path.name[len(prefix) :].partition(".")[0]
        if pid.isdigit() and path.is_dir() and not path.is_symlink() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(path, ignore_errors=True)


def _glob_escape(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def _sync_tree(root: Path) -> None:
    for folder, _, files in os.walk(root):
        for name in files:
            fsync_path(Path(folder) / name)
        fsync_path(Path(folder))


def _publish(staging: Path, target: Path, replaceable: Replaceable | None) -> None:
    if not target.exists():
        _rename(staging, target, _RENAME_NOREPLACE)
    else:
        _check_existing(target, replaceable, "was created meanwhile")
        _rename(staging, target, _RENAME_EXCHANGE)  # staging now holds the old tree; the caller removes it
    fsync_path(target.parent)


def _rename(source: Path, target: Path, flags: int) -> None:
    """`renameat2`; where the C library or file system lacks it, the nearest sequence of plain renames."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        if libc.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.ENOSYS, errno.EINVAL):
            raise OSError(code, os.strerror(code), str(target))
    if flags == _RENAME_NOREPLACE:
        source.rename(target)
        return
    aside = target.with_name(f".{target.name}.{os.getpid()}.old{_PARTIAL}")
    target.rename(aside)
    try:
        source.rename(target)
    except OSError:
        with contextlib.suppress(OSError):
            aside.rename(target)
        raise
    aside.rename(source)
