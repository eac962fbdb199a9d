"""One live source through its model, for as long as the daemon runs: every frame counted, the newest answer shown."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator
from contextlib import closing
from typing import Any, Final

import numpy as np

from edgemed.base.errors import EdgemedError, InputError, ResourceError
from edgemed.base.quantity import SECOND
from edgemed.evaluate.readings import Place, Readings
from edgemed.imaging.open import open_image
from edgemed.imaging.results.content import Reading
from edgemed.imaging.samples import Item
from edgemed.recipe.apply import Prepared
from edgemed.runtime.frames import Answer, Counts, Outcome, Source
from edgemed.runtime.policy import Policy
from edgemed.runtime.source_run import SourceRun
from edgemed.runtime.sources.clips import ClipSource
from edgemed.runtime.sources.open import open_source, parse_address
from edgemed.serve.analysis.results import author_of
from edgemed.serve.config.inlets import LiveSection
from edgemed.serve.live.board import Channel, Shown
from edgemed.serve.live.lane import ServedLane
from edgemed.serve.live.picture import ShownFill
from edgemed.serve.loops import Beat
from edgemed.serve.models.served import Served
from edgemed.serve.services import Services

log = logging.getLogger(__name__)

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_REST_S: Final = 3600.0
_SILENCE_NS: Final = 5 * SECOND
"""Without a frame for so long, a source is lost, whatever its driver says."""
_FIRST_NS: Final = 30 * SECOND
"""Until the first frame of a source is answered, or it is lost: it connects, and a model may answer slowly at first."""

NO_COUNTS: Final = Counts(0, 0, 0, {}, 0)


class Player:
    """Of one `[[live]]` section.

    Raises:
        UsageError: an address or a policy that is none.
    """

    def __init__(self, services: Services, section: LiveSection, channel: Channel) -> None:
        self._services = services
        self._section = section
        self.channel = channel
        self._address = parse_address(section.source)
        self._policy = Policy.parse(section.policy)
        self._lock = threading.Lock()
        self._source: Source | None = None
        self._closing = threading.Event()
        self._stalled = self._switched = self._heard = False
        self._heard_ns = time.monotonic_ns()
        self._before = NO_COUNTS  # of earlier runs
        self._told = NO_COUNTS

    def run(self, beat: Beat) -> None:
        """The loop: play, and where it is lost, try again, later each time."""
        pause_s = _FIRST_PAUSE_S
        while not self._closing.is_set() and not beat.stopping.is_set():
            answered = self._before.submitted
            error = self._played(beat)
            if error is None and self._switched:
                continue
            if error is None and not self._address.live:
                if not self._section.loop:
                    self.channel.move("ended", "The file has been played.", self._before)
                    break
                if self._before.submitted > answered:
                    pause_s = _FIRST_PAUSE_S
                    continue
                error = InputError("The file holds no frame.", "")
            if self._closing.is_set():
                return
            pause_s = _FIRST_PAUSE_S if self._before.submitted > answered else min(2 * pause_s, _LONGEST_PAUSE_S)
            self._lost(error.what if error is not None else "The stream has ended.")
            if not beat.wait(pause_s):
                return
        while beat.wait(_REST_S):  # a loop that ended would be taken for one that hangs
            pass

    def close(self) -> None:
        """End; from any thread."""
        self._closing.set()
        self._close_source()

    def watch(self) -> None:
        """Take a source that is silent for lost; called now and then from another thread."""
        if self._source is not None and time.monotonic_ns() - self._heard_ns > self._patience_ns:
            self._stalled = True
            self._close_source()

    @property
    def _patience_ns(self) -> int:
        return _SILENCE_NS if self._heard else _FIRST_NS

    # -- one run -----------------------------------------------------------------------------------------------------

    def _played(self, beat: Beat) -> EdgemedError | None:
        """Play until the end; what went wrong, if anything did."""
        self._stalled = self._switched = self._heard = False
        self._heard_ns = time.monotonic_ns()
        stream: SourceRun | None = None
        try:
            served = self._services.models.get(self._section.model)
            fill = ShownFill(served.bundle)
            readings = Readings.of(served.bundle)
            lane = ServedLane(served, self._section.stale_ns)
            source = self._opened(fill)
            stream = SourceRun(lane, source, fill, self._policy, on_drop=fill.dropped)
            with closing(self._outcomes(stream, served)) as outcomes:
                for outcome in outcomes:
                    beat()
                    self._show(outcome, fill, readings, served, stream)
        except EdgemedError as error:
            return error
        finally:
            self._close_source()
            if stream is not None:
                self._before = total(self._before, stream.counts)
                self._measure(self._before)
        if self._stalled:
            return ResourceError(f"There was no frame for {self._patience_ns / SECOND:.0f} s.", "Look at the camera.")
        return None

    def _outcomes(self, stream: SourceRun, served: Served) -> Generator[Outcome]:
        """Those of a run; it ends where another version of the model is the active one."""
        for outcome in stream:
            yield outcome
            if self._services.models.get(self._section.model).version != served.version:
                self._switched = True
                return

    def _opened(self, fill: ShownFill) -> Source:
        live = not self._address.live  # a file is played in its own time
        source: Source = open_source([self._address], reader=open_image, live=live)
        if fill.recipe.time is not None:
            source = ClipSource(source, fill.recipe.time)
        with self._lock:
            self._source = source
        if self._closing.is_set():
            source.close()
        return source

    def _close_source(self) -> None:
        with self._lock:
            source, self._source = self._source, None
        if source is not None:
            source.close()

    # -- what is shown -----------------------------------------------------------------------------------------------

    def _show(self, outcome: Outcome, fill: ShownFill, readings: Readings, served: Served, stream: SourceRun) -> None:
        self._heard, self._heard_ns = True, time.monotonic_ns()
        pixels, prepared = fill.taken(outcome.frame)
        counts = total(self._before, stream.counts)
        self._measure(counts)
        if self.channel.state != "running":
            self.channel.move("running")
            self._services.alarms.clear("source-lost", self._section.name)
        if pixels is None:  # it could not even be read
            return
        number = self._before.submitted + outcome.frame
        found: tuple[Reading, ...] = ()
        note, author = "", None
        if isinstance(outcome, Answer):
            author = author_of(self._services, served, outcome.info)
            found, note = _read(readings, outcome.outputs, prepared)
        else:
            note = outcome.error.what
        self.channel.show(Shown(number, outcome.captured_ns, pixels, found, author, note), counts)

    def _lost(self, reason: str) -> None:
        log.warning("live source %s is lost: %s", self._section.name, reason)
        self.channel.move("lost", reason, self._before)
        self._services.alarms.raise_(
            "source-lost", f"The live source {self._section.name} is lost: {reason}", self._section.name
        )

    def _measure(self, counts: Counts) -> None:
        """Bring the metrics to these counts."""
        for outcome, number in by_outcome(counts).items():
            more = number - by_outcome(self._told).get(outcome, 0)
            if more > 0:
                self._services.metrics.frames.labels(self._section.name, outcome).inc(more)
        self._told = counts


def _read(readings: Readings, outputs: Any, prepared: Prepared | None) -> tuple[tuple[Reading, ...], str]:
    """What the model says of a frame; or why that says nothing."""
    if not all(np.isfinite(value).all() for value in outputs.values() if value.dtype.kind == "f"):
        return (), "The model answered NaN or infinity."
    try:
        return readings.read(Item((), prepared), outputs, Place()), ""
    except InputError as error:
        return (), error.what


def total(one: Counts, other: Counts) -> Counts:
    """Of two runs."""
    reasons = dict(one.dropped)
    for reason, number in other.dropped.items():
        reasons[reason] = reasons.get(reason, 0) + number
    return Counts(
        one.submitted + other.submitted,
        one.answered + other.answered,
        one.failed + other.failed,
        reasons,
        one.in_flight + other.in_flight,
        one.lost + other.lost,
    )


def by_outcome(counts: Counts) -> dict[str, int]:
    """What became of frames, by a word."""
    dropped: dict[str, int] = dict(counts.dropped.items())
    return {"answered": counts.answered, "failed": counts.failed, **dropped, "lost": counts.lost}
