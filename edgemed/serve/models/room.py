"""Whether a second worker finds memory beside the first."""

from __future__ import annotations

import re
from typing import Final

from edgemed.device.memory import read_memory
from edgemed.device.sysfs import Tree
from edgemed.serve.models.hosted import HostedModel

_MORE: Final = 1.25  # loading takes more for a moment than what stays
_RESIDENT: Final = re.compile(r"^VmRSS:\s+(\d{1,15}) kB", re.MULTILINE)


def room_for(active: HostedModel, tree: Tree | None = None) -> str | None:
    """Why there is none, as a sentence; `None` where another worker like the active one fits, or nobody can tell."""
    tree = tree or Tree()
    pid = active.status.model.pid if active.status is not None else None
    resident = _RESIDENT.search(tree.text(f"proc/{pid}/status") or "") if pid is not None else None
    available = read_memory(tree).available
    if resident is None or available is None:
        return None
    wanted = int((int(resident[1]) << 10) * _MORE)
    if wanted <= available:
        return None
    return f"It wants {wanted >> 20} MiB beside the active version, and {available >> 20} MiB are free."
