"""The figures of a replayed study: where the time of each task went, and what counts as late."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.base.runner import RunnerInfo
from edgemed.base.spans import Span
from edgemed.profile.passage import POINTS, Passage, wall_times
from edgemed.profile.session import fingerprint_of
from edgemed.profile.slo import Objectives, Slo
from edgemed.profile.way import About, ModelFacts, Sent, StudyFacts, Way, compose
from edgemed.profile.way_page import render_way
from edgemed.profile.way_text import model_rows, stage_rows, way_rows

MS = 1_000_000
MARK = fingerprint_of(RunnerInfo("onnxruntime", "fp32", "cpu"), None)
MODEL = ModelFacts("chest", "instance", MARK, 50 * MS, delivered=True)


def passage(number: int = 0, *, pace: int = 100, slow: dict[str, int] | None = None, **changed) -> Passage:
    """A task whose stages take 1 ms each, the analysis 6 of them; `slow` replaces them, in ms."""
    spent = dict.fromkeys(("wait", "receive", "collect", "queue", "decode", "compute", "write", "deliver"), 1) | (
        slow or {}
    )
    intended = 10**9 + number * pace * MS
    at, points = intended, {}
    for name, stage in zip(POINTS[:4], ("wait", "receive", "collect", "queue"), strict=False):
        at += spent[stage] * MS
        points[name] = at
    spans = []
    for name in ("decode", "compute", "write"):
        spans.append(Span(name, at, at + spent[name] * MS))
        at += spent[name] * MS
    points["written"] = at + 1 * MS
    points["sent"] = points["written"] + spent["deliver"] * MS
    arguments = {"model": "chest", "repetition": number, "intended_ns": intended, "end": "answered"}
    return Passage(**(arguments | {"points": points, "spans": spans} | changed))


def about(passages, **changed) -> About:
    sent = Sent(
        repeat=max(1, len(passages)), begun=len(passages), pace_ns=MS, accepted=1, refused={}, behind=0, arrival=None
    )
    facts = StudyFacts(series=1, images=1, bytes=1, left_out=0)
    return About(
        **({"name": "b", "study": facts, "sent": sent, "state": "ext4", "models": [MODEL], "start_ns": 1} | changed)
    )


@pytest.mark.parametrize("stage", ["wait", "receive", "collect", "queue", "decode", "compute", "write", "deliver"])
def test_a_slow_stage_is_seen_where_it_is(stage):
    passages = [passage(i, slow={stage: 40} if i % 2 else None) for i in range(40)]
    model = compose(about(passages), passages).models[0]
    slowest = {name: figures.max_ns for name, figures in model.stages.items()}
    assert slowest.pop(stage) == 40 * MS
    assert set(slowest.values()) == {1 * MS}
    assert model.latency.max_ns == 48 * MS
    assert model.latency.median_ns == 9 * MS


moments = st.integers(0, 1000)


@given(
    st.lists(moments, min_size=7, max_size=7),
    st.lists(st.tuples(st.sampled_from(["decode", "queue", "compute", "write"]), moments, moments)),
    st.booleans(),
)
def test_stages_add_up_to_the_latency(times, spans, delivered):
    points = dict(zip(POINTS, times[1:], strict=True))
    made = [Span(name, min(a, b), max(a, b)) for name, a, b in spans]
    each = Passage("m", 0, min(times), "answered", points, made, delivered)
    stages = each.stages()
    assert sum(stages.values()) == each.latency_ns
    assert min(stages.values()) >= 0


def test_a_moment_of_overlapping_spans_counts_once_for_the_later():
    spans = [Span("decode", 0, 10), Span("compute", 4, 6), Span("write", 8, 20), Span("queue", 30, 31)]
    assert wall_times(spans, 0, 25) == {"decode": 6, "compute": 2, "write": 12}
    assert wall_times(spans, 5, 40) == {"decode": 2, "compute": 1, "write": 12, "inference queue": 1}


def test_what_was_never_answered_misses_and_has_no_latency():
    passages = [
        *(passage(i) for i in range(6)),
        passage(6, slow={"compute": 60}),
        passage(7, end="not-analysed"),
        passage(8, end="failed"),
        passage(9, end="unfinished", points={}),
        passage(10, points={"written": 5}),  # answered, but nobody saw when it was sent
    ]
    model = compose(about(passages), passages).models[0]
    assert model.counts.arrived == 11
    assert model.counts.answered == 7
    assert model.counts.dropped == {"not analysed": 1}
    assert (model.counts.failed, model.counts.unfinished) == (1, 2)
    assert model.latency.n == 7
    assert model.misses.rate.count == 5  # the slow one, and four without a result
    assert model.misses.deadline_ns == 50 * MS  # the model's own
    assert model.daemon_late == 1


def test_a_result_that_is_not_delivered_ends_on_the_disk():
    way = compose(
        about([], models=[ModelFacts("chest", "instance", MARK, MS, delivered=False)]), [passage(delivered=False)]
    )
    model = way.models[0]
    assert model.ends == "written"
    assert model.latency.max_ns == 8 * MS
    assert "deliver" not in model.stages


def objectives(**clauses) -> Objectives:
    return Objectives(Slo.model_validate({"schema": "edgemed/slo/1", **clauses}), "0" * 64)


def test_each_model_is_judged_and_the_worst_decides():
    other = ModelFacts("ct", "series", MARK, 50 * MS, delivered=True)
    passages = [passage(i) for i in range(400)] + [passage(i, slow={"write": 30}, model="ct") for i in range(400)]
    known = about(passages, models=[MODEL, other])
    way = compose(known, passages, objectives=objectives(latency={"p99_ms": 20}))
    assert {clause.clause: clause.outcome for clause in way.verdict.clauses} == {
        "chest: latency.p99_ms": "pass",
        "ct: latency.p99_ms": "fail",
    }
    assert way.verdict.exit_code == 1
    assert compose(known, passages, objectives=objectives(latency={"p99_ms": 50})).verdict.exit_code == 0
    few = compose(known, passages[:10], objectives=objectives(latency={"p99_ms": 50}))
    assert few.verdict.exit_code == 3
    elsewhere = compose(known, passages, objectives=objectives(latency={"p99_ms": 50}, state={"board": "orin"}))
    assert elsewhere.verdict.exit_code == 4
    energy = compose(known, passages, objectives=objectives(energy={"gross_mj": 5}))
    assert energy.verdict.clauses[0].why == "not measured here"


def test_a_run_holds_itself_against_itself():
    passages = [passage(i, slow={"compute": 1 + i % 3}) for i in range(400)]
    itself = compose(about(passages), passages).models[0].itself
    assert itself.block_frames == 20
    assert itself.found[0].nothing


def test_a_model_that_nothing_was_for_is_named():
    way = compose(about([]), [])
    assert way.models[0].latency is None
    assert way.warnings == ("No image of the study was for chest: its matching takes none of them.",)


def test_the_report_shows_every_model_and_stage_and_loads_nothing():
    passages = [passage(i, slow={"compute": 60 if i == 30 else 2}) for i in range(40)] + [passage(40, end="failed")]
    way = compose(about(passages), passages, objectives=objectives(latency={"p50_ms": 20}))
    page = render_way(way, passages)
    for word in ("Model chest", "Where the time went", "collect", "deliver", "Latency over time", "68.000 ms"):
        assert word in page
    assert not any(word in page for word in ("src=", "href=", "url(", "<script", "://"))
    assert Way.model_validate_json(way.model_dump_json(by_alias=True)) == way
    lines = [*way_rows(way), *model_rows(way.models[0]), *stage_rows(way.models[0])]
    assert any("2 of 41" in text for row in lines for text in row)
