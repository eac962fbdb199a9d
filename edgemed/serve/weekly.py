"""What has changed at the bedside this week: each model's sketch against its bundle's images and the weeks before.

Two distributions are compared by the distance of Kolmogorov and Smirnov: the greatest difference between the shares of
tasks that lie at or below any one value. It is given with an interval in which the true distance lies (Dvoretzky,
Kiefer and Wolfowitz 1956, with the constant of Massart 1990: for every number of tasks, ties or not), shares with those
of Clopper and Pearson (1934). All intervals of one version in one week hold together with a chance of 1 - `LEVEL` at
least (Bonferroni), where tasks are independent of each other: few tasks have wide intervals, and do not cry wolf.
"""

from __future__ import annotations

import json
import logging
import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final, Literal

from edgemed.base.errors import EdgemedError, InputError
from edgemed.base.store import write_atomic
from edgemed.serve.analysis.drift import distance
from edgemed.serve.analysis.sketches import WEEKS, Sketch, Values, load, week_of, weeks_of
from edgemed.serve.clock import stamp, utc
from edgemed.serve.journal.file import connect, translate
from edgemed.serve.journal.recovery import JOURNAL

log = logging.getLogger(__name__)

LEVEL: Final = 0.01
WEEKS_BEFORE: Final = 4
"""That a week is held against."""

BLIND: Final = 0.3
"""A comparison that would not show a shift of so large a share of tasks is called too few."""

SCHEMA: Final = "edgemed/drift-report/1"
_BINS: Final = 20

Verdict = Literal["shifted", "no shift seen", "too few"]


@dataclass(frozen=True)
class Compared:
    """A number of this week against another sample of it.

    Attributes:
        number: its name.
        against: 'bundle' or 'weeks before'.
        tasks: values of this week; `others`: of the other sample.
        distance: that was seen, as a share of tasks.
        low: the true distance is at least this; 0 where nothing is proved.
        high: and at most this.
        resolution: a shift of less would not be seen.
    """

    number: str
    against: str
    tasks: int
    others: int
    distance: float
    low: float
    high: float
    resolution: float

    @property
    def verdict(self) -> Verdict:
        if self.low > 0:
            return "shifted"
        return "too few" if self.resolution > BLIND else "no shift seen"


@dataclass(frozen=True)
class Share:
    """A share of this week's tasks, and that of the weeks before; intervals are exact.

    Attributes:
        name: of what.
        count: so many of `of`.
        low, high: interval of the share.
        before: the same of the weeks before; `None` where there are none.
    """

    name: str
    count: int
    of: int
    low: float
    high: float
    before: Share | None = None

    @property
    def verdict(self) -> Verdict:
        before = self.before
        if before is None or self.high - self.low > 2 * BLIND or before.high - before.low > 2 * BLIND:
            return "too few"
        return "shifted" if self.low > before.high or self.high < before.low else "no shift seen"


@dataclass(frozen=True)
class ModelWeek:
    """One version of a model in one week.

    Attributes:
        tasks: that came.
        histograms: of each number, `edges` and `counts` of the kept sample and of what it is held against.
        ends: of all versions of the model, by the journal: answered, not analysed, failed.
        needed: tasks in each of two samples with which a comparison of them is not too few.
    """

    model: str
    digest: str
    week: str
    weeks_before: tuple[str, ...]
    tasks: int
    ends: Mapping[str, int]
    numbers: tuple[Compared, ...]
    shares: tuple[Share, ...]
    needed: int
    histograms: Mapping[str, Any]

    @property
    def verdict(self) -> Verdict:
        """The worst of its lines; too few where none could tell anything."""
        verdicts = {line.verdict for line in self.numbers} | {line.verdict for line in self.shares}
        if "shifted" in verdicts:
            return "shifted"
        return "no shift seen" if "no shift seen" in verdicts else "too few"


def report(state: Path, *, weeks: int, week: str | None = None) -> list[ModelWeek]:
    """Each model's newest week, or a named one, against `weeks` weeks before it.

    Raises:
        InputError: there is no journal, or no sketch of that week.
        ResourceError: the journal cannot be read.
    """
    if not (state / JOURNAL).is_file():
        raise InputError(f"There is no journal in {state}.", "Name a bedside.toml, or the state that it names.")
    found: dict[str, dict[str, Path]] = {}
    for model, at, path in weeks_of(weekly_of(state)):
        found.setdefault(model, {})[at] = path
    wanted = {model: paths for model, paths in found.items() if week is None or week in paths}
    if not wanted:
        when = "yet" if week is None else f"of {week}"
        raise InputError(f"There is no sketch of any model {when}.", "They are made of tasks, and kept each minute.")
    try:
        with closing(connect(state / JOURNAL, read_only=True)) as connection:
            return [
                one
                for model, paths in wanted.items()
                for one in _of_model(connection, model, paths, week or max(paths), weeks)
            ]
    except sqlite3.Error as error:
        raise translate(error) from error


def weekly_of(state: Path) -> Path:
    """Where the sketches of a state are."""
    return state / "drift" / "weekly"


def keep_report(state: Path) -> None:
    """Write the report of the newest week that is over, once, into `drift/reports`."""
    over = [week for _, week, _ in weeks_of(weekly_of(state)) if week < week_of(utc())]
    path = state / "drift" / "reports" / f"{max(over, default='')}.json"
    if not over or path.exists():
        return
    try:
        document = to_document(state, report(state, weeks=WEEKS_BEFORE, week=max(over)))
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(path, json.dumps(document, indent=2).encode())
        for old in sorted(path.parent.glob("*.json"))[:-WEEKS]:
            old.unlink(missing_ok=True)
    except (OSError, EdgemedError) as error:
        log.error("the weekly report of drift could not be kept: %s", type(error).__name__)


def to_document(state: Path, found: Sequence[ModelWeek]) -> dict[str, Any]:
    """The report as JSON."""
    return {"schema": SCHEMA, "at": stamp(), "state": str(state), "level": LEVEL, "models": [_model(m) for m in found]}


def _model(one: ModelWeek) -> dict[str, Any]:
    lines = {
        "numbers": [{**asdict(line), "verdict": line.verdict} for line in one.numbers],
        "shares": [{**asdict(line), "verdict": line.verdict} for line in one.shares],
    }
    return {**asdict(one), **lines, "verdict": one.verdict}


def _of_model(
    connection: sqlite3.Connection, model: str, paths: Mapping[str, Path], week: str, weeks: int
) -> list[ModelWeek]:
    earlier = [at for at in sorted(paths) if _weeks_between(at, week) in range(1, weeks + 1)]
    ends, ends_before = _ends(connection, model, [week]), _ends(connection, model, earlier)
    kept = {at: load(paths[at]) for at in earlier}
    made = []
    for digest, now in load(paths[week]).items():
        before = [versions[digest] for versions in kept.values() if digest in versions]
        pairs = list(_pairs(now, before))
        shares = list(_counts(now, before, ends, ends_before))
        level = LEVEL / max(1, len(pairs) + len(shares))
        made.append(
            ModelWeek(
                model=model,
                digest=digest,
                week=week,
                weeks_before=tuple(at for at, versions in kept.items() if digest in versions),
                tasks=now.tasks,
                ends=ends,
                numbers=tuple(_compared(*pair, level) for pair in pairs),
                shares=tuple(_share(*counts, level) for counts in shares),
                needed=math.ceil(2 * math.log(4 / level) / BLIND**2),
                histograms=_histograms(now, before),
            )
        )
    return made


def _pairs(now: Sketch, before: Sequence[Sketch]) -> Iterable[tuple[str, str, list[float], list[float]]]:
    earlier = _merged(before)
    for name, values in now.kept.items():
        for against, others in (("bundle", now.reference), ("weeks before", earlier)):
            if name in others:
                yield name, against, values, others[name]


def _merged(sketches: Iterable[Sketch]) -> Values:
    merged: Values = {}
    for sketch in sketches:
        for name, values in sketch.kept.items():
            merged.setdefault(name, []).extend(values)
    return merged


def _compared(name: str, against: str, values: list[float], others: list[float], level: float) -> Compared:
    seen = distance(values, others)
    off = sum(math.sqrt(math.log(4 / level) / (2 * len(sample))) for sample in (values, others))
    return Compared(name, against, len(values), len(others), seen, max(0.0, seen - off), min(1.0, seen + off), off)


Counts = tuple[str, int, int, int, int]
"""Of a share: its name, count and whole of this week, and of the weeks before."""


def _counts(
    now: Sketch, before: Sequence[Sketch], ends: Mapping[str, int], ends_before: Mapping[str, int]
) -> Iterable[Counts]:
    for end in ("not analysed", "failed"):
        yield end, ends[end], sum(ends.values()), ends_before[end], sum(ends_before.values())
    if now.judged:
        yield "unlike the bundle's images", now.unlike, now.judged, *_sums(before, "unlike", "judged")
    if now.agree + now.disagree:
        earlier = sum(one.disagree for one in before)
        yield (
            "other answers in the shadow's precision",
            now.disagree,
            now.agree + now.disagree,
            earlier,
            earlier + sum(one.agree for one in before),
        )
    for what, words in now.mix.items():
        others = [one.mix.get(what, {}) for one in before]
        for word in sorted({*words, *(word for other in others for word in other)}):
            count = sum(other.get(word, 0) for other in others)
            yield f"{what} {word}", words.get(word, 0), now.tasks, count, sum(one.tasks for one in before)


def _sums(sketches: Sequence[Sketch], *names: str) -> tuple[int, int]:
    first, second = (sum(getattr(one, name) for one in sketches) for name in names)
    return first, second


def _share(name: str, count: int, of: int, earlier: int, earlier_of: int, level: float) -> Share:
    before = Share(name, earlier, earlier_of, *_interval(earlier, earlier_of, level / 2)) if earlier_of else None
    return Share(name, count, of, *_interval(count, of, level / 2), before)


def _interval(count: int, of: int, level: float) -> tuple[float, float]:
    """Of a share, two-sided (Clopper and Pearson 1934)."""
    from scipy.stats import beta

    low = 0.0 if count == 0 else float(beta.ppf(level / 2, count, of - count + 1))
    high = 1.0 if count == of else float(beta.ppf(1 - level / 2, count + 1, of - count))
    return low, high


def _histograms(now: Sketch, before: Sequence[Sketch]) -> dict[str, Any]:
    """Scores from 0 to 1; of other values, and of inputs, all that was seen of them."""
    import numpy as np

    samples = {"week": now.kept, "bundle": now.reference, "weeks before": _merged(before)}
    found = {}
    for name in now.kept:
        values = {what: sample[name] for what, sample in samples.items() if sample.get(name)}
        low, high = (f(f(sample) for sample in values.values()) for f in (min, max))
        is_score = 0 <= low <= high <= 1 and not name.startswith("input ")
        edges = np.linspace(*((0.0, 1.0) if is_score else (low, max(high, low + 1e-6))), _BINS + 1)
        counts = {what: np.histogram(sample, edges)[0].tolist() for what, sample in values.items()}
        found[name] = {"edges": edges.tolist(), "counts": counts}
    return found


def _ends(connection: sqlite3.Connection, model: str, weeks: Sequence[str]) -> dict[str, int]:
    """Tasks of a model that were complete in some weeks, by what became of them."""
    ends = {"answered": 0, "not analysed": 0, "failed": 0}
    names = {"notifying": "not analysed", "not-analysed": "not analysed", "failed": "failed"}
    names |= dict.fromkeys(("delivering", "delivered"), "answered")
    mondays = [_monday(week) for week in weeks]
    days = [stamp(day) for monday in mondays for day in (monday, monday + timedelta(days=7))]
    within = " OR ".join(["completed >= ? AND completed < ?"] * len(weeks)) or "false"  # all at once: no index helps
    rows = connection.execute(
        f"SELECT state, count(*) FROM task WHERE model = ? AND ({within}) GROUP BY state",  # noqa: S608
        (model, *days),
    )
    for state, count in rows.fetchall():
        if state in names:
            ends[names[state]] += count
    return ends


def _monday(week: str) -> datetime:
    year, number = week.split("-W")
    return datetime.fromisocalendar(int(year), int(number), 1).replace(tzinfo=timezone.utc)


def _weeks_between(earlier: str, later: str) -> int:
    return (_monday(later) - _monday(earlier)).days // 7
