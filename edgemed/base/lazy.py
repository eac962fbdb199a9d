"""Optional packages are imported where they are used, and their absence is a sentence, not a traceback."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from edgemed.base.errors import MissingSoftwareError


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional module, or say which extra brings it.

    Args:
        module: dotted module name, e.g. `"onnxruntime"`.
        extra: the extra of edgemed that installs it.
        purpose: what it is needed for; completes "... is needed to <purpose>".

    Raises:
        MissingSoftwareError: the module, or something it imports, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        missing = error.name or package
        detail = "" if missing.partition(".")[0] == package else f" (it misses {missing})"
        raise _missing(f"{package} is needed to {purpose}, and is not installed{detail}.", extra) from error


@contextmanager
def needing(extra: str, *, purpose: str) -> Iterator[None]:
    """A block whose own modules import packages of an extra: where one is not there, say which extra brings it.

    Args:
        extra: of edgemed.
        purpose: what the block is for; completes "... is needed to <purpose>".

    Raises:
        MissingSoftwareError: a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "edgemed"):  # a bug of ours
            raise
        raise _missing(f"{package} is needed to {purpose}, and is not installed.", extra) from error


def _missing(what: str, extra: str) -> MissingSoftwareError:
    return MissingSoftwareError(what, f"Install it with: pip install 'edgemed[{extra}]'")
