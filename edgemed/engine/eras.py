"""How a TensorRT is told precision: by builder flags, or by the types in the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from edgemed.engine.bridge import Flavour, version_number
from edgemed.graph.tensorrt import TYPED_SINCE, UNTYPED_UNTIL

_FIRST_WITH_BRIDGE: Final = (8, 6)


class Typing(Protocol):
    """What the choice of a graph depends on; `Bridge` answers it of the TensorRT that is installed."""

    @property
    def flavour(self) -> Flavour:
        """`tensorrt` or `tensorrt_rtx`."""

    @property
    def version(self) -> str:
        """E.g. `"10.3.0"`."""

    @property
    def strongly_typed(self) -> bool:
        """Whether types come from the graph."""

    @property
    def allows_weak_typing(self) -> bool:
        """Whether precision can be asked for by flags."""


@dataclass(frozen=True)
class Release:
    """A TensorRT that is not installed here, known by its version alone."""

    version: str
    flavour: Flavour = "tensorrt"

    @property
    def strongly_typed(self) -> bool:
        """From 10.12, where flags were deprecated, as `Bridge.strongly_typed`."""
        return version_number(self.version) >= TYPED_SINCE

    @property
    def allows_weak_typing(self) -> bool:
        """Up to 10.16."""
        return version_number(self.version) < UNTYPED_UNTIL

    @property
    def builds_here(self) -> bool:
        """Whether `edgemed build` works on it: its bindings are bridged from 8.6 on; older ones are exported to."""
        return version_number(self.version) >= _FIRST_WITH_BRIDGE

    @property
    def reads_cache(self) -> bool:
        """Whether it reads a calibration cache: calibrators went with the flags."""
        return self.allows_weak_typing

    @property
    def cache_path(self) -> str:
        """Where a bundle keeps its calibration cache, e.g. `calib/8.5.2.cache`."""
        return f"calib/{'.'.join(map(str, version_number(self.version)[:3]))}.cache"
