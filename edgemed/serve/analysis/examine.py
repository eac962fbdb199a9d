"""One task through one model: read, judge, prepare, ask, read the answer. Nothing of the journal is known here."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import ChildError, EdgemedError, GpuError, InputError, out_of_handles
from edgemed.base.runner import RunnerInfo
from edgemed.base.spans import Span, SpanLog
from edgemed.evaluate.readings import Place, Readings
from edgemed.imaging.pieces import Pieces
from edgemed.imaging.results.content import Reading
from edgemed.imaging.samples import Item
from edgemed.runtime.contained.requests import Reply
from edgemed.serve.analysis.task import Broken, Declined, Interrupted, Task, without_names
from edgemed.serve.analysis.units import Unit, evenly, makes_volumes, units_of
from edgemed.serve.models.served import Served

Feeds = dict[str, NDArray[Any]]

MOST_FRAMES: Final = 128
"""Frames of one file that are looked at; of more, so many, evenly spread, and a note says so: nobody reads a report on
each of a thousand."""

MOST_MASKED: Final = 128 << 20
"""Bytes of masks that one task may hold at a time."""

_UNDER_WAY: Final = 4  # a worker has one, and the next ones are ready: what is prepared meanwhile costs memory
_MOST_REASONS: Final = 3
_NO_MASKS: Final = "Masks of clips are not kept: a frame may be in several."
TOO_LATE: Final = "There was no answer before the deadline."
_STAGES: Final = {"copy-in": "h2d", "copy-out": "d2h"}

Progress = Callable[[], None]
"""Called between steps; raises `Interrupted` where the task is to stop."""


@dataclass
class Findings:
    """What came of a task.

    Attributes:
        readings: of all that was looked at.
        notes: sentences that belong into the result.
        info: who answered; of several, the last.
        planes: of a volume, see `Content`.
        samples: what the model was fed with, a few of them: for the out-of-distribution score.
        spans: when each stage ran.
    """

    readings: list[Reading] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    info: RunnerInfo | None = None
    planes: tuple[tuple[int, int], ...] = ()
    spans: list[Span] = field(default_factory=list)


OnSample = Callable[[Feeds], None]


class Examination:
    """One task.

    Args:
        task: which.
        served: the model.
        readings: how its outputs read.
        due_ns: when the answer is due.
        deadline_ns: when it is not wanted any more, if ever.
        progress: see `Progress`.
        on_sample: shown what the model is fed with, before it is asked; raises `Declined` where it should not be.
    """

    def __init__(
        self,
        task: Task,
        served: Served,
        readings: Readings,
        *,
        due_ns: int,
        deadline_ns: int | None,
        progress: Progress,
        on_sample: OnSample,
    ) -> None:
        self._task = task
        self._served = served
        self._readings = readings
        self._due_ns = due_ns
        self._deadline_ns = deadline_ns
        self._progress = progress
        self._on_sample = on_sample
        self._log = SpanLog()
        self._left_out: list[str] = []
        self._infos: list[RunnerInfo] = []
        self._found = Findings()

    def run(self) -> Findings:
        """Look at everything.

        Raises:
            Declined: nothing of it can be analysed, or it is too late.
            Broken: an error of ours.
            Interrupted: it may be tried again.
        """
        found = self._found
        if not all(file.path.is_file() for file in self._task.files):
            raise Broken("A file of it is not in the spool any more.")
        try:
            found.readings += self._looked_at()
        except InputError as error:
            raise Declined(without_names(error, self._task.files)) from error
        except EdgemedError as error:
            what = without_names(error, self._task.files)
            if out_of_handles(error):
                raise Interrupted(what, counts=False) from error
            raise Broken(what) from error
        if not found.readings:
            reasons = list(dict.fromkeys(self._left_out))
            raise Declined(" ".join(reasons[:_MOST_REASONS]) or "There is nothing to look at.")
        self._note()
        found.spans = self._log.spans
        return found

    def _note(self) -> None:
        notes = self._found.notes
        if self._left_out:
            count = len(self._left_out)
            why = " ".join(list(dict.fromkeys(self._left_out))[:_MOST_REASONS])
            notes.append(f"{count} of {len(self._task.files)} files {'was' if count == 1 else 'were'} left out: {why}")
        if self._readings.unread:
            notes.append(f"Outputs that do not say what they mean are not shown: {', '.join(self._readings.unread)}.")
        self._found.info = self._infos[-1]
        if len(set(self._infos)) > 1:
            who = ", ".join(dict.fromkeys(f"{info.backend}/{info.precision}" for info in self._infos))
            notes.append(f"It was computed in parts, by {who}.")
        if self._served.on_fallback:
            notes.append("The model's own worker did not answer: the fallback on the CPU did.")

    # -- what is looked at -------------------------------------------------------------------------------------------

    def _looked_at(self) -> Iterator[Reading]:
        waiting: deque[tuple[Item, Place, Future[Reply]]] = deque()
        try:
            for item, place in self._items():
                self._progress()
                if len(item.feeds) > 1:
                    yield from self._read(item, item.answer(self._answers(item.feeds)), place)
                    continue
                waiting.append((item, place, self._ask(next(iter(item.feeds)))))
                if len(waiting) >= _UNDER_WAY:
                    yield from self._read_next(waiting)
            while waiting:
                yield from self._read_next(waiting)
        finally:
            for _, _, future in waiting:  # left behind by an error: nobody waits for them
                future.cancel()

    def _items(self) -> Iterator[tuple[Item, Place]]:
        reader = self._served.reader
        if reader.recipe.raw:
            for index, file in enumerate(self._task.files):
                item = self._tried(lambda file=file: reader.arrays(file.path))  # type: ignore[misc]
                if item is not None:
                    yield item, Place(index)
            return
        volume = makes_volumes(reader)
        for unit in units_of(self._task.files, volume=volume):
            if volume and self._found.planes:
                self._found.notes.append("Of several series, the one with most images that fits was analysed.")
                break
            yield from self._items_of(unit)

    def _items_of(self, unit: Unit) -> Iterator[tuple[Item, Place]]:
        reader = self._served.reader
        pieces = self._tried(lambda: unit.open(reader))
        if pieces is None:
            return
        chosen = evenly(len(pieces), self._most(pieces))
        if len(chosen) < len(pieces):
            self._found.notes.append(f"{len(chosen)} of {len(pieces)} frames were analysed, evenly spread.")
        for index in chosen:
            item = self._tried(lambda index=index: reader.item(pieces, index, self._log))  # type: ignore[misc]
            if item is None:
                continue
            if pieces.kind == "image":
                yield item, Place(unit.sources[0], pieces.frame_of(index))
                continue
            whole = pieces.time is None
            self._found.planes = unit.planes(pieces) if whole else ()
            yield item, Place(unit.sources[0] if len(unit.sources) == 1 else None, pieces.frame_of(index))

    def _most(self, pieces: Pieces) -> int:
        """Frames that may be looked at."""
        facts = pieces.file.facts
        masks = sum(len(head.names) for head in self._readings.mask_heads)
        pixels = facts.rows * facts.columns * masks
        return MOST_FRAMES if not pixels else max(1, min(MOST_FRAMES, MOST_MASKED // pixels))

    def _tried(self, step: Callable[[], Any]) -> Any:
        """What a step gives; `None` where a file is refused, which is remembered."""
        try:
            return step()
        except InputError as error:
            if len(self._task.files) == 1:
                raise
            self._left_out.append(without_names(error, self._task.files))
            return None

    # -- asking ------------------------------------------------------------------------------------------------------

    def _ask(self, feeds: Feeds) -> Future[Reply]:
        self._on_sample(feeds)
        try:
            return self._served.submit(
                feeds, due_ns=self._due_ns, deadline_ns=self._deadline_ns, frame=self._task.number
            )
        except EdgemedError as error:
            raise self._unanswered(error) from error

    def _answers(self, feeds: Iterable[Feeds]) -> Iterator[Feeds]:
        """Outputs for many feeds, in order, a few of them under way."""
        waiting: deque[Future[Reply]] = deque()
        for each in feeds:
            waiting.append(self._ask(each))
            if len(waiting) >= _UNDER_WAY:
                yield self._outputs(waiting.popleft())
        while waiting:
            yield self._outputs(waiting.popleft())

    def _outputs(self, future: Future[Reply]) -> Feeds:
        """What was answered; one that holds what is no number goes nowhere."""
        try:
            reply = future.result()
        except EdgemedError as error:
            raise self._unanswered(error) from error
        self._progress()
        self._infos.append(reply.info)
        self._log.spans += (replace(span, name=_STAGES.get(span.name, span.name)) for span in reply.spans)
        for name, value in reply.outputs.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise Broken(f"The model answered NaN or infinity in {name}.")
        return reply.outputs

    def _unanswered(self, error: EdgemedError) -> Exception:
        """What it means that the model does not answer."""
        if isinstance(error, InputError):  # larger than what the engine takes
            return Declined(error.what)
        if self._deadline_ns is not None and time.monotonic_ns() >= self._deadline_ns:
            return Declined(TOO_LATE)
        if self._served.section.when_lost == "refuse":
            return Declined(f"The model does not answer: {error.what}", unanswered=True)
        return Interrupted(error.what, counts=isinstance(error, ChildError | GpuError))

    # -- reading -----------------------------------------------------------------------------------------------------

    def _read_next(self, waiting: deque[tuple[Item, Place, Future[Reply]]]) -> tuple[Reading, ...]:
        item, place, future = waiting.popleft()
        return self._read(item, item.answer([self._outputs(future)]), place)

    def _read(self, item: Item, outputs: Feeds, place: Place) -> tuple[Reading, ...]:
        try:
            with self._log.record("postprocess", self._task.number):
                readings = self._readings.read(item, outputs, place)
        except InputError as error:
            raise Broken(error.what) from error
        if self._found.planes or all(r.labels is None or r.labels.ndim == 3 for r in readings):
            return readings
        if _NO_MASKS not in self._found.notes:  # clips overlap: a frame would have several
            self._found.notes.append(_NO_MASKS)
        return tuple(replace(reading, labels=None) for reading in readings)
