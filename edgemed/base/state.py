"""Where edgemed keeps what belongs to this machine: engines, journals."""

from __future__ import annotations

import os
from pathlib import Path


def state_dir() -> Path:
    """$EDGEMED_STATE, else $XDG_STATE_HOME/edgemed, else ~/.local/state/edgemed."""
    if chosen := os.environ.get("EDGEMED_STATE"):
        return Path(chosen)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "edgemed"
