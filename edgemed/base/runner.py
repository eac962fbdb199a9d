"""The Runner protocol: the one seam through which every model is executed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgemed.base.spans import SpanLog

    Arrays = Mapping[str, NDArray[np.generic]]


@lru_cache(maxsize=64)
def dtype_name(dtype: np.dtype[Any]) -> str:
    """A numpy dtype as `TensorSpec` names it; numpy takes longer to write one than all else that a feed is held to."""
    return str(dtype)


@dataclass(frozen=True)
class TensorSpec:
    """Name, numpy dtype name and shape of one input or output; `None` marks a dimension that may vary."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        dims = "×".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.name} {self.dtype} {dims}"

    def admits(self, dtype: str, shape: tuple[int | None, ...]) -> bool:
        """Whether an array of that dtype and shape fits."""
        if dtype != self.dtype or len(shape) != len(self.shape):
            return False
        return shape == self.shape or all(w is None or w == have for w, have in zip(self.shape, shape, strict=True))


@dataclass(frozen=True)
class RunnerSpecs:
    """What a Runner takes and gives, in the model's own order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class RunnerInfo:
    """Who answered: stands in every result."""

    backend: str
    precision: str
    device: str
    bundle_digest: str | None = None


@runtime_checkable
class Runner(Protocol):
    """Executes one model. It neither transposes nor casts: feeds match `specs` exactly, or are refused.

    A Runner touches its device on `__enter__`, not before, and frees it on `__exit__`.
    """

    @property
    def specs(self) -> RunnerSpecs: ...

    @property
    def info(self) -> RunnerInfo: ...

    def infer(
        self, feeds: Arrays, *, frame: int | None = None, spans: SpanLog | None = None
    ) -> dict[str, NDArray[np.generic]]:
        """Run once.

        Args:
            feeds: one array per input name; dtype and shape as in `specs.inputs`.
            frame: frame id that the recorded spans carry.
            spans: where to record the compute span, if anywhere.

        Raises:
            InputError: a feed is missing, unknown, or has another dtype or shape.
        """
        ...

    def __enter__(self) -> Runner: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
