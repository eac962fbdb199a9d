"""Of each model and week a sketch of what came in and what was answered: numbers and words of fixed lists, no names.

A sketch keeps a random sample of each number (reservoir sampling), so that it never grows, and is as good a sample of
the week as the first tasks of it would be of those days. Weeks are those of ISO 8601, UTC. One file for each model and
week; what a crash loses is the last minute.
"""

from __future__ import annotations

import json
import math
import random
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from edgemed.base.errors import EdgemedError
from edgemed.base.store import write_atomic
from edgemed.serve.analysis.drift import MOST_WATCHED
from edgemed.serve.clock import utc

KEPT: Final = 500
"""Values of each number that a sketch keeps."""

SCHEMA: Final = "edgemed/sketch/1"
WEEKS: Final = 60
"""Weeks that stay on the disk."""

_WEEK: Final = re.compile(r"[0-9]{4}-W[0-9]{2}")
_MOST_VERSIONS: Final = 16  # of a model in one week

Values = dict[str, list[float]]


def week_of(moment: datetime) -> str:
    """`2026-W48`."""
    year, week, _ = moment.isocalendar()
    return f"{year}-W{week:02d}"


@dataclass
class Sketch:
    """Of one version of a model in one week.

    Attributes:
        tasks: that came.
        seen: how many values of each number came.
        kept: a random sample of them, `KEPT` at most.
        judged: tasks that had an out-of-distribution score.
        unlike: of these, unlike the bundle's images.
        mix: how many tasks of each kind, by field and word.
        agree: answers that were compared with another precision, and agreed.
        disagree: and did not.
        reference: the same numbers of the bundle's own images.
    """

    tasks: int = 0
    seen: dict[str, int] = field(default_factory=dict)
    kept: Values = field(default_factory=dict)
    judged: int = 0
    unlike: int = 0
    mix: dict[str, dict[str, int]] = field(default_factory=dict)
    agree: int = 0
    disagree: int = 0
    reference: Values = field(default_factory=dict)

    def add(self, values: Mapping[str, float], kind: Mapping[str, str], unlike: bool | None) -> None:
        """Count one task; `unlike`: the bundle's images, `None` where nothing tells."""
        self.tasks += 1
        for name, value in values.items():
            if math.isfinite(value) and (name in self.seen or len(self.seen) < MOST_WATCHED):
                self._keep(name, float(f"{value:.6g}"))
        for what, word in kind.items():
            words = self.mix.setdefault(what, {})
            words[word] = words.get(word, 0) + 1
        if unlike is not None:
            self.judged += 1
            self.unlike += unlike

    def _keep(self, name: str, value: float) -> None:
        """Algorithm R (Vitter 1985): each of the values so far is kept with the same chance."""
        seen = self.seen[name] = self.seen.get(name, 0) + 1
        kept = self.kept.setdefault(name, [])
        if len(kept) < KEPT:
            kept.append(value)
        elif (place := random.randrange(seen)) < KEPT:  # noqa: S311 - a sample, not a secret
            kept[place] = value


class Sketches:
    """Those of one state.

    Args:
        folder: where they are kept; it need not be there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._open: dict[tuple[str, str], dict[str, Sketch]] = {}  # by model and week
        self._changed: set[tuple[str, str]] = set()

    def add(
        self,
        model: str,
        digest: str,
        values: Mapping[str, float],
        kind: Mapping[str, str],
        unlike: bool | None,
        reference: Values,
    ) -> None:
        """Count one task of a version; `reference` are the numbers of its bundle's images."""
        with self._lock:
            sketch = self._of(model, digest)
            if sketch is not None:
                sketch.reference = reference
                sketch.add(values, kind, unlike)

    def compared(self, model: str, digest: str, agree: int, disagree: int) -> None:
        """Answers of a version were compared with another precision, so many more."""
        with self._lock:
            sketch = self._of(model, digest)
            if sketch is not None:
                sketch.agree += agree
                sketch.disagree += disagree

    def _of(self, model: str, digest: str) -> Sketch | None:
        key = model, week_of(utc())
        if key not in self._open:
            self._open[key] = load(self._path(*key))
        versions = self._open[key]
        if digest not in versions and len(versions) >= _MOST_VERSIONS:
            return None
        self._changed.add(key)
        return versions.setdefault(digest, Sketch())

    def keep(self) -> None:
        """Write what has changed; nothing is so dear that anything should fail for it."""
        with self._lock:
            changed, self._changed = self._changed, set()
            documents = {key: _document(key[1], self._open[key]) for key in changed}
            this_week = week_of(utc())
            self._open = {key: versions for key, versions in self._open.items() if key[1] == this_week}
        for (model, week), document in documents.items():
            path = self._path(model, week)
            with suppress(OSError, EdgemedError):
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                new = not path.exists()
                write_atomic(path, json.dumps(document).encode())
                if new:
                    self._forget(path.parent)

    def _forget(self, folder: Path) -> None:
        for path in sorted(folder.glob("*.json"))[:-WEEKS]:
            path.unlink(missing_ok=True)

    def _path(self, model: str, week: str) -> Path:
        return self._folder / model / f"{week}.json"


def weeks_of(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Model, week and file of each sketch that is kept, in that order."""
    for path in sorted(folder.glob("*/*.json")):
        if _WEEK.fullmatch(path.stem):
            yield path.parent.name, path.stem, path


def load(path: Path) -> dict[str, Sketch]:
    """Sketches of a model and week by the digest of its version; none where there is nothing, or nothing of use."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["schema"] == SCHEMA:
            return {str(digest): Sketch(**one) for digest, one in kept["versions"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return {}


def _document(week: str, versions: Mapping[str, Sketch]) -> dict[str, Any]:
    return {"schema": SCHEMA, "week": week, "versions": {digest: vars(one).copy() for digest, one in versions.items()}}
