"""Each input against the bundle's own images, and all of them against those that came first."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import EdgemedError, InputError, out_of_handles
from edgemed.base.quantity import SECOND
from edgemed.bundle.read import Bundle
from edgemed.evaluate.likeness import Feeds, Reference, answers_of, features, rows_of
from edgemed.evaluate.readings import Readings
from edgemed.imaging.results.content import Reading
from edgemed.serve.analysis.drift import REFERENCE, Drift
from edgemed.serve.analysis.mix import kind_of
from edgemed.serve.analysis.sketches import Sketches, Values
from edgemed.serve.analysis.task import Declined
from edgemed.serve.models.served import Served
from edgemed.serve.services import Services
from edgemed.serve.weekly import keep_report, weekly_of

log = logging.getLogger(__name__)

NOTED: Final = 2.0
"""Score from which a result says that the input is unlike the bundle's images."""

_KEEP_NS: Final = 60 * SECOND
_UNLIKE: Final = "The image is unlike those that the model was built with"
_WATCHED: Final = ("mean", "spread")


class Judge:
    """Of one task.

    Attributes:
        score: the greatest of its inputs; `None` before any, or where the bundle cannot tell.
        notes: for the result.
    """

    def __init__(self, owner: Distributions, served: Served, reference: Reference | None, file: Path) -> None:
        self._owner = owner
        self._served = served
        self._file = file
        self._reference = reference
        self._layouts = {tensor.name: tensor.layout for tensor in served.bundle.manifest.inputs}
        self._rows: list[NDArray[np.float64]] = []
        self.score: float | None = None
        self.notes: list[str] = []

    def sample(self, feeds: Feeds) -> None:
        """Look at what the model is about to be fed with.

        Raises:
            Declined: it is too unlike the bundle's images.
        """
        row = features(feeds, self._layouts)
        self._rows.append(row)
        if self._reference is None:
            return
        score = self._reference.score(row)
        self.score = max(score, self.score or 0.0)
        most = self._served.section.max_ood
        if most is not None and score > most:
            raise Declined(f"{_UNLIKE}: its score is {score:.3g}, and the limit is {most:g}.")

    def done(self, readings: Sequence[Reading]) -> None:
        """The task has come to an end: count it, and say what a reader must know."""
        unlike = None if self.score is None else self.score > NOTED
        values = self._values(readings) if self._rows else {}
        self._owner.sketch(self._served, values, kind_of(self._file), unlike)
        if not self._rows:
            return
        if unlike:
            self.notes.append(f"{_UNLIKE} (score {self.score:.3g}; 1 is the most unusual of them).")
        self._owner.count(self._served, values)

    def _values(self, readings: Sequence[Reading]) -> dict[str, float]:
        values = _of_input(np.mean(self._rows, axis=0))
        scores: dict[str, list[float]] = {}
        for reading in readings:
            for one in reading.scores:
                scores.setdefault(f"{reading.output} {one.name}", []).append(one.value)
            if reading.value is not None:
                scores.setdefault(reading.output, []).append(reading.value)
        return values | {name: float(np.mean(each)) for name, each in scores.items()}


class Distributions:
    """Of all models."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._folder = services.config.daemon.state / "drift"
        self._lock = threading.Lock()
        self._references: dict[str, Reference | None] = {}  # by digest
        self._samples: dict[str, Values] = {}  # by digest
        self._drifts: dict[str, Drift] = {}  # by model
        self._sketches = Sketches(weekly_of(services.config.daemon.state))
        self._compared: dict[str, tuple[int, int]] = {}  # by model: answers that agreed, and that did not
        self._changed: set[str] = set()
        self._kept_ns = time.monotonic_ns()

    def require(self, served: Served) -> None:
        """A model must be able to tell.

        Raises:
            InputError: it is not.
        """
        try:
            Reference.of(served.bundle)
        except InputError as error:
            raise InputError(f"The model {served.name} has max_ood. {error.what}", "Leave it out.") from error

    def judge(self, served: Served, file: Path) -> Judge:
        """For one task; its first file says what kind of image it is about."""
        digest = served.bundle.digest
        if digest not in self._references:
            self._references[digest] = _reference(served)
        return Judge(self, served, self._references[digest], file)

    def sketch(self, served: Served, values: Mapping[str, float], kind: Mapping[str, str], unlike: bool | None) -> None:
        """One more task of this week."""
        digest = served.bundle.digest
        if digest not in self._samples:
            self._samples[digest] = samples_of(served.bundle)
        self._sketches.add(served.name, digest, values, kind, unlike, self._samples[digest])

    def _compare(self) -> None:
        """What the shadows have counted since they were asked last."""
        models = self._services.models
        for name in models.names():
            shadow = models.describe(name).get("shadow")
            if not shadow:
                continue
            agree, disagree = self._compared.get(name, (0, 0))
            self._compared[name] = now = shadow["agree"], shadow["disagree"]
            if now != (agree, disagree):
                digest = models.get(name).bundle.digest
                self._sketches.compared(name, digest, now[0] - agree, now[1] - disagree)

    def count(self, served: Served, values: dict[str, float]) -> None:
        """One more task; the last one of a window raises the alarm, or clears it."""
        name = served.name
        with self._lock:
            drift = self._drifts.get(name)
            if drift is None or drift.digest != served.bundle.digest:
                drift = self._drifts[name] = Drift.load(self._folder / f"{name}.json", served.bundle.digest)
            whole = drift.add(values)
            shifted = drift.shifted
            self._changed.add(name)
        if not whole:
            return
        if shifted:
            text = f"What comes in for {name} differs from the first {REFERENCE} inputs: {', '.join(shifted)}."
            self._services.alarms.raise_("distribution-shift", text, name)
        else:
            self._services.alarms.clear("distribution-shift", name)

    def tend(self) -> None:
        """Keep what has changed, once a minute."""
        if time.monotonic_ns() - self._kept_ns > _KEEP_NS:
            self.keep()

    def keep(self) -> None:
        """Write down what has changed."""
        self._kept_ns = time.monotonic_ns()
        self._compare()
        self._sketches.keep()
        keep_report(self._services.config.daemon.state)
        with self._lock:
            changed = [(name, self._drifts[name]) for name in self._changed]
            self._changed.clear()
            for name, drift in changed:
                drift.keep(self._folder / f"{name}.json")


def samples_of(bundle: Bundle) -> Values:
    """Numbers of a bundle's own images, by the names that those of tasks have: of its inputs, and its scores."""
    try:
        rows = rows_of(bundle)
    except EdgemedError as error:  # it was built without images
        if out_of_handles(error):
            raise
        return {}
    found: Values = {name: [] for name in _of_input(rows[0])}
    for row in rows:
        for name, value in _of_input(row).items():
            found[name].append(value)
    with suppress(EdgemedError, KeyError):  # outputs that do not say what they mean, or were too large to be kept
        readings = Readings.of(bundle)
        answers = [each for one in answers_of(bundle) for said in readings.said(one) for each in _said(said)]
        for name, value in answers:
            found.setdefault(name, []).append(float(f"{value:.6g}"))
    return found


def _said(said: Mapping[str, Any]) -> list[tuple[str, float]]:
    if "value" in said:
        return [(said["output"], said["value"])]
    return [(f"{said['output']} {one['class']}", one["score"]) for one in said["scores"]]


def _of_input(row: NDArray[np.float64]) -> dict[str, float]:
    return {f"input {name}": float(f"{row[index]:.6g}") for index, name in enumerate(_WATCHED)}


def _reference(served: Served) -> Reference | None:
    try:
        reference = Reference.of(served.bundle)
    except EdgemedError as error:
        if out_of_handles(error):  # it is remembered, and to go on without it for good would let anything pass
            raise
        most = served.section.max_ood
        log.log(logging.INFO if most is None else logging.ERROR, "%s has no reference: %s", served.name, error.what)
        return None
    return reference
