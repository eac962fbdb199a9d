"""From the first byte of an image to its result at the PACS: the figures of a replayed study, and their record.

Each task of the daemon is a sample, as a frame is one of a stream. Its latency counts from when its study was *meant*
to be sent, so a daemon that falls behind is seen to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgemed.profile.distill import Question, excess_of
from edgemed.profile.itself import ItselfComparison, compare_with_itself
from edgemed.profile.judge import Evidence, weigh
from edgemed.profile.misses import Misses, bound_rate, find_misses
from edgemed.profile.passage import STAGES, Passage
from edgemed.profile.records import Count, Nanoseconds, Positive, Record, Text
from edgemed.profile.result import Counts, Ended, Fingerprint, FirstFrames
from edgemed.profile.session import question_of
from edgemed.profile.slo import Objectives
from edgemed.profile.stats import CONFIDENCE, Distribution, distribution
from edgemed.profile.steady import SteadyRule
from edgemed.profile.verdict import Verdict, combine

SCHEMA: Final = "edgemed/way/1"
WAY: Final = "way.json"


class StudyFacts(Record):
    """What was replayed."""

    series: Positive
    images: Positive
    bytes: Count = Field(description="of its data sets")
    left_out: Count = Field(description="files of the folder that are no images, or the same again")


class Sent(Record):
    """What the modality did."""

    repeat: Positive = Field(description="times it was to be sent")
    begun: Count = Field(description="times it was")
    pace_ns: Positive = Field(description="from one intended arrival to the next")
    accepted: Count = Field(description="images that were answered with success")
    refused: dict[Text, Count] = Field(description="other images, by reason; no result is expected of them")
    behind: Count = Field(description="times that it was still sending the study before")
    arrival: Distribution | None = Field(description="lateness of beginning to send while it had nothing else to do")


class ModelWay(Record):
    """One model: a sample is a task of it."""

    name: Text
    level: Literal["instance", "series", "study"]
    fingerprint: Fingerprint
    ends: Literal["sent", "written"] = Field(description="where its way ends: at a destination, or on the disk")
    counts: Counts = Field(description="tasks; those not analysed or failed are in no latency, and are misses")
    latency: Distribution | None = Field(description="from the intended arrival; null where nothing was answered")
    stages: dict[str, Distribution] = Field(description="they add up to the latency, task by task")
    first_ns: Nanoseconds | None = Field(description="of the very first task, which is in the figures too")
    misses: Misses | None
    daemon_deadline_ns: Positive = Field(description="as configured: from the last image to the result on the disk")
    daemon_late: Count = Field(description="results that were later than that")
    itself: ItselfComparison | None = Field(description="an A/A comparison; null where there are too few")


class Way(Record):
    """One run of `edgemed profile bedside.toml`."""

    schema_: Literal["edgemed/way/1"] = Field(alias="schema")
    created: Text = Field(description="UTC, ISO 8601")
    name: Text = Field(description="of the daemon")
    study: StudyFacts
    sent: Sent
    state: Text = Field(description="kind of file system that took journal and spool")
    duration_ns: Nanoseconds = Field(description="from the first intended arrival to the last result")
    models: tuple[ModelWay, ...]
    samples: Text | None = None
    ended: Ended | None = None
    not_measured: tuple[Text, ...] = ()
    warnings: tuple[Text, ...] = ()
    verdict: Verdict | None = Field(None, description="of all models together; null without objectives")


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model beside its tasks; see `ModelWay`."""

    name: str
    level: Literal["instance", "series", "study"]
    fingerprint: Fingerprint
    deadline_ns: int
    delivered: bool


@dataclass(frozen=True)
class About:
    """What is known of a run beside its tasks; see `Way`."""

    name: str
    study: StudyFacts
    sent: Sent
    state: str
    models: Sequence[ModelFacts]
    start_ns: int
    not_measured: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    ended: Ended | None = None
    samples: str | None = None


def compose(
    about: About,
    passages: Sequence[Passage],
    *,
    objectives: Objectives | None = None,
    deadline_ns: int | None = None,
) -> Way:
    """The record of a run, judged.

    Args:
        about: what is known beside the tasks.
        passages: all tasks of all models.
        objectives: what to judge it by; each model is.
        deadline_ns: from the intended arrival, where the objectives name none; None: each model's own.
    """
    last_ns = max((each.done_ns for each in passages if each.done_ns is not None), default=about.start_ns)
    duration_ns = max(0, last_ns - about.start_ns)
    models, verdicts = [], {}
    for facts in about.models:
        own = sorted((each for each in passages if each.model == facts.name), key=lambda each: each.intended_ns)
        question = question_of(objectives, deadline_ns or facts.deadline_ns, SteadyRule())
        way, evidence = _model(facts, own, question, duration_ns, about.ended)
        models.append(way)
        if objectives is not None:
            verdicts[facts.name] = weigh(objectives, evidence)
    return Way(
        schema_=SCHEMA,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        name=about.name,
        study=about.study,
        sent=about.sent,
        state=about.state,
        duration_ns=duration_ns,
        models=tuple(models),
        samples=about.samples,
        ended=about.ended,
        not_measured=about.not_measured,
        warnings=(*about.warnings, *_warnings(about, models)),
        verdict=None if objectives is None else _together(objectives, verdicts),
    )


def _model(
    facts: ModelFacts, passages: Sequence[Passage], question: Question, duration_ns: int, ended: Ended | None
) -> tuple[ModelWay, Evidence]:
    intended = np.array([each.intended_ns for each in passages], dtype=np.int64)
    latency = np.array([each.latency_ns for each in passages], dtype=np.int64)
    answered = latency[latency >= 0]
    itself = compare_with_itself(answered)  # before the order of arrival is lost
    first_ns = int(latency[0]) if len(latency) and latency[0] >= 0 else None
    deadline_ns = question.deadline_ns or facts.deadline_ns
    misses = find_misses(intended, latency, deadline_ns, **question.rules)
    more = None
    if question.miss_rate is not None and len(latency):
        more = excess_of(latency, deadline_ns, question.miss_rate, question).more
    way = ModelWay(
        name=facts.name,
        level=facts.level,
        fingerprint=facts.fingerprint,
        ends="sent" if facts.delivered else "written",
        counts=_counts(passages),
        latency=distribution(answered, confidence=question.confidence),
        stages=_stages(passages, question.confidence),
        first_ns=first_ns,
        misses=misses,
        daemon_deadline_ns=facts.deadline_ns,
        daemon_late=sum(_late(each, facts.deadline_ns) for each in passages),
        itself=itself,
    )
    evidence = Evidence(
        fingerprint=facts.fingerprint,
        latency=way.latency,
        misses=misses,
        excess={limit: excess_of(latency, *limit, question) for limit in question.limits if len(latency)},
        lost=bound_rate(latency < 0, **question.rules) if len(latency) else None,
        duration_ns=duration_ns,
        more_for_misses=more,
        first_frames=FirstFrames(first_ns=first_ns, gap_ns=1, after_gap=None),
        ended=ended,
    )
    return way, evidence


def _counts(passages: Sequence[Passage]) -> Counts:
    answered = sum(each.done_ns is not None for each in passages)
    ends: dict[str, int] = {}
    for each in passages:
        if each.done_ns is None:
            ends[each.end] = ends.get(each.end, 0) + 1
    declined = ends.get("not-analysed", 0)
    return Counts(
        arrived=len(passages),
        answered=answered,
        dropped={"not analysed": declined} if declined else {},
        failed=ends.get("failed", 0),
        unfinished=ends.get("unfinished", 0) + ends.get("answered", 0),  # answered, but nobody saw when
    )


def _stages(passages: Sequence[Passage], confidence: float) -> dict[str, Distribution]:
    gathered: dict[str, list[int]] = {}
    for each in passages:
        for name, spent_ns in each.stages().items():
            gathered.setdefault(name, []).append(spent_ns)
    order = [*(name for name in STAGES if name in gathered), *sorted(gathered.keys() - set(STAGES))]
    found = {name: distribution(np.array(gathered[name], np.int64), confidence=confidence) for name in order}
    return {name: figures for name, figures in found.items() if figures is not None and figures.max_ns > 0}


def _late(passage: Passage, deadline_ns: int) -> bool:
    points = passage.points
    return {"last_object", "written"} <= points.keys() and points["written"] - points["last_object"] > deadline_ns


def _together(objectives: Objectives, verdicts: Mapping[str, Verdict]) -> Verdict:
    """The verdict on all models: each must keep every objective."""
    clauses = tuple(
        clause.model_copy(update={"clause": f"{name}: {clause.clause}"})
        for name, verdict in verdicts.items()
        for clause in verdict.clauses
    )
    invalid = tuple(dict.fromkeys(text for verdict in verdicts.values() for text in verdict.invalid))
    wrong = tuple(f"{name}: {text}" for name, verdict in verdicts.items() for text in verdict.wrong_state)
    return Verdict(
        outcome=combine(clauses, invalid, wrong),
        confidence=objectives.slo.confidence,
        slo_sha256=objectives.sha256,
        clauses=clauses,
        invalid=invalid,
        wrong_state=wrong,
    )


def _warnings(about: About, models: Sequence[ModelWay]) -> Iterator[str]:
    """What makes figures doubtful, each with what to do about it."""
    sent = about.sent
    for reason, count in sent.refused.items():
        yield f"{count} images were not taken by the daemon: {reason}."
    if sent.behind:
        yield (
            f"{sent.behind} of {sent.begun} times the study before was still being sent at the intended arrival: "
            "--pace is faster than the association. That wait is in the latency, as it would be at the modality."
        )
    for model in models:
        if not model.counts.arrived:
            yield f"No image of the study was for {model.name}: its matching takes none of them."
        elif model.latency is None:
            yield f"{model.name} has answered nothing."
        elif more := model.latency.percentile("99").more:
            yield f"{model.name}: p99 needs {more} more samples for a bound; see --repeat."
        if declined := model.counts.dropped.get("not analysed"):
            yield f"{model.name}: {declined} tasks were not analysed, and count as misses."
        if model.counts.failed or model.counts.unfinished:
            yield f"{model.name}: {model.counts.failed} tasks failed, {model.counts.unfinished} had no end."
        for part in () if model.itself is None else model.itself.found:
            if not part.nothing:
                yield (
                    f"{model.name}: held against itself, the run differs in p{part.percentile} by {part.change:+.1%}: "
                    "something comes and goes. Trust no comparison by changes of that size."
                )


def arrival_of(intended_ns: Sequence[int], begun_ns: Sequence[int], idle: Sequence[bool]) -> Distribution | None:
    """Lateness of beginning to send while there was nothing else to do; `None` where there always was."""
    late: NDArray[np.int64] = np.array(
        [b - a for a, b, free in zip(intended_ns, begun_ns, idle, strict=True) if free], dtype=np.int64
    )
    return distribution(late, confidence=CONFIDENCE)
