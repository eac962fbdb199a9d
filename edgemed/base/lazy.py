"""Optional packages are imported where they are used, and their absence is a sentence, not a traceback."""

from __future__ import annotations

import importlib
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
        raise MissingSoftwareError(
            f"{package} is needed to {purpose}, and is not installed{detail}.",
            f"Install it with: pip install 'edgemed[{extra}]'",
        ) from error
