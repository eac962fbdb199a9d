"""Every error has the exit code that the contract gives it, and says what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edgemed.base import errors
from edgemed.base.errors import EdgemedError, ResourceError, from_os_error, os_errors_as_resource

EXIT_CODES = {
    "ChildError": 6,
    "GpuError": 6,
    "GpuMemoryError": 6,
    "DeviceStateError": 4,
    "EdgemedError": 70,
    "GateError": 1,
    "InconclusiveError": 3,
    "InputError": 2,
    "IntegrityError": 5,
    "MissingSoftwareError": 4,
    "ResourceError": 6,
    "UnsafeModelError": 2,
    "UsageError": 2,
}


def test_exit_codes_are_the_contracts() -> None:
    tree = {
        v.__name__: v.exit_code for v in vars(errors).values() if isinstance(v, type) and issubclass(v, EdgemedError)
    }
    assert tree == EXIT_CODES
    assert (errors.EXIT_BUG, errors.EXIT_INTERRUPTED, errors.EXIT_TERMINATED) == (70, 130, 143)


def test_terminated_passes_by_handlers_of_exceptions() -> None:
    assert not issubclass(errors.Terminated, Exception)


def test_an_error_is_what_is_wrong_and_what_to_do() -> None:
    error = errors.InputError("It is wrong.", "Do this.")
    assert (error.what, error.hint, str(error)) == ("It is wrong.", "Do this.", "It is wrong. Do this.")
    assert str(errors.InputError("It is wrong.")) == "It is wrong."


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO, errno.EMFILE])
def test_os_errors_become_sentences(code: int) -> None:
    error = from_os_error(OSError(code, os.strerror(code), "/some/file"))
    assert error.exit_code == 6
    assert error.what.endswith(": /some/file.")
    assert error.hint.endswith(".")


def test_an_os_error_without_number_or_file() -> None:
    assert from_os_error(OSError("odd")).what == "odd."
    assert from_os_error(OSError(errno.ENOSPC, "x"), "here").what == "The disk is full: here."


def test_the_block_turns_os_and_memory_errors(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="does not exist"), os_errors_as_resource():
        (tmp_path / "absent").read_bytes()
    with pytest.raises(ResourceError, match="Out of memory"), os_errors_as_resource():
        raise MemoryError
    with pytest.raises(KeyError), os_errors_as_resource():
        raise KeyError("not ours")
