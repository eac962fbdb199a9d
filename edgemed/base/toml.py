"""Read TOML with errors that name the file and the line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from edgemed.base.errors import InputError, from_os_error

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MAX_BYTES = 64 << 10  # a recipe or profile is a few KiB; more is a mistake or an attack
_MAX_LINE = 4096  # the parser's time grows with the square of a dotted key


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file of at most 64 KiB, with lines of at most 4 KiB.

    Raises:
        InputError: not a regular file, not UTF-8, not TOML, or too large.
        ResourceError: the file cannot be read.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # a pipe would never end
            raise InputError(f"{path} is not a regular file.", "Give a recipe or profile in TOML.")
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} is larger than 64 KiB.", "Give a recipe or profile in TOML.")
        return _parse(path.read_bytes())
    except OSError as error:
        raise from_os_error(error, path) from error
    except RecursionError as error:
        raise InputError(f"{path} is not valid TOML: nested too deeply.", "Correct the file.") from error
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError, and what Python says of huge numbers
        raise InputError(f"{path} is not valid TOML: {error}.", "Correct the file.") from error


def _parse(data: bytes) -> dict[str, Any]:
    for number, line in enumerate(data.split(b"\n"), start=1):
        if len(line) > _MAX_LINE:
            raise ValueError(f"line {number} is longer than 4 KiB")
    return tomllib.loads(data.decode("utf-8"))
