"""One version of a model that answers: its bundle, its worker, and how samples become feeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Protocol

from numpy.typing import NDArray

from edgemed.base.runner import RunnerInfo, RunnerSpecs
from edgemed.bundle.read import Bundle
from edgemed.imaging.samples import SampleReader
from edgemed.runtime.contained.berths import Berth
from edgemed.runtime.contained.requests import Reply
from edgemed.serve.config.models import ModelSection
from edgemed.serve.readiness import Finding


class Served(Protocol):
    """What analysis, HTTP and live sources see of a model."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str:
        """Of this bedside: '1', '2', …; newer ones are greater."""
        ...

    @property
    def section(self) -> ModelSection: ...

    @property
    def bundle(self) -> Bundle: ...

    @property
    def reader(self) -> SampleReader: ...

    @property
    def specs(self) -> RunnerSpecs: ...

    @property
    def info(self) -> RunnerInfo:
        """Who would answer now; who did stands in each `Reply`."""
        ...

    @property
    def on_fallback(self) -> bool:
        """Whether its own worker is lost, and the fallback answers."""
        ...

    @property
    def finding(self) -> Finding | None:
        """Why it is not ready; `None` where it is."""
        ...

    def berth(self, size: int) -> Berth | None:
        """Memory for the only input of one request, to be submitted as its feeds; `None` where there is none.

        Args:
            size: bytes that the input has.
        """
        ...

    def submit(
        self,
        feeds: Mapping[str, NDArray[Any]],
        *,
        due_ns: int | None = None,
        deadline_ns: int | None = None,
        live: bool = False,
        frame: int | None = None,
    ) -> Future[Reply]:
        """Ask for one inference: earliest deadline first, live before batch.

        Args:
            feeds: as in `specs.inputs`; not changed before the future is done.
            due_ns: `time.monotonic_ns` by which the answer is due: the order goes by it, and it is wanted later, too.
            deadline_ns: `time.monotonic_ns` after which no answer is wanted; also when it is due, where nothing else
                says so.
            live: of a stream: it goes before what is not.
            frame: id that the spans carry.

        Returns:
            A future with the reply, or an `EdgemedError` that says why there is none.

        Raises:
            InputError: the feeds do not fit.
        """
        ...


class Models(Protocol):
    """All models of the daemon."""

    def names(self) -> list[str]: ...

    def describe(self, name: str) -> dict[str, Any]:
        """How a model stands, for pages and programs: JSON.

        Raises:
            InputError: there is none.
        """
        ...

    def get(self, name: str, version: str | None = None) -> Served:
        """A model; its active version, or the one that is asked for.

        Raises:
            InputError: there is none.
        """
        ...


def most_numbers(served: Served) -> list[int] | None:
    """How many numbers the greatest request has, by input; `None` where a size may be any."""
    greatest = {name: shapes[2] for name, shapes in served.bundle.manifest.profiles().items()}
    shapes = [greatest.get(spec.name, spec.shape) for spec in served.specs.inputs]
    known = [[size for size in shape if size is not None] for shape in shapes]
    if any(len(sizes) < len(shape) for sizes, shape in zip(known, shapes, strict=True)):
        return None
    return list(map(math.prod, known))
