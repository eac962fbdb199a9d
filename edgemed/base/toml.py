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

_MAX_BYTES = 1 << 20  # a recipe or profile is a few KiB; more is a mistake or an attack


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file of at most 1 MiB.

    Raises:
        InputError: not UTF-8, not TOML, or too large.
        ResourceError: the file cannot be read.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} is larger than 1 MiB.", "Give a recipe or profile in TOML.")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise from_os_error(error, path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}.", "Correct the file.") from error
