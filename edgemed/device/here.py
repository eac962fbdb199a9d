"""This machine: which board it is, if any, and which GPU it has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgemed.base.errors import DeviceStateError
from edgemed.device.board import Board, detect_board
from edgemed.device.gpu import Gpu, detect_gpu


@dataclass(frozen=True)
class Here:
    """This machine: a Jetson board, or another machine with an NVIDIA GPU."""

    board: Board | None
    gpu: Gpu | None

    @property
    def compute_capability(self) -> str:
        """Of the GPU that the driver names first, else of the board's SoC.

        Raises:
            DeviceStateError: neither is known.
        """
        if self.gpu is not None:
            return self.gpu.compute_capability
        if self.board is not None and self.board.compute_capability is not None:
            return self.board.compute_capability
        raise DeviceStateError(
            "There is no NVIDIA GPU here, so no engine can be built.",
            "Run this on the device that shall run the engine; bundles are built and checked anywhere.",
        )

    @property
    def name(self) -> str:
        """The board's id, else the GPU's name."""
        return self.board.id if self.board is not None else self.gpu.name if self.gpu is not None else "unknown"

    @property
    def release(self) -> str | None:
        """The JetPack, or the L4T release where it does not tell the JetPack; None off a Jetson."""
        if self.board is None:
            return None
        return self.board.jetpack or (f"l4t-{self.board.l4t}" if self.board.l4t else None)


def detect_here(root: Path = Path("/")) -> Here:
    """Look at this machine: device tree and packages under `root`, GPU through the driver."""
    return Here(detect_board(root), detect_gpu())
