"""Versions in the journal: whatever happens, in whatever order, one of them answers, and one is kept to go back to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemed.serve.journal.database import Journal
from edgemed.serve.models import releases
from edgemed.serve.models.releases import ANSWERS, TRANSITIONS, WAITS, Happening, Stage, Version


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journal]:
    with Journal(tmp_path_factory.mktemp("journal") / "j.sqlite3") as opened:
        yield opened


def known(journal: Journal, model: str) -> list[Version]:
    with journal.read() as connection:
        return releases.versions(connection, model)


def test_every_stage_is_reached_and_only_the_end_is_no_way_out() -> None:
    assert set(TRANSITIONS.values()) == set(Stage)
    assert {before for before, _ in TRANSITIONS} == set(Stage)
    assert {what for _, what in TRANSITIONS} == set(Happening)


def test_what_cannot_happen_does_not(journal: Journal) -> None:
    number = journal.write(lambda c: releases.propose(c, "odd", "d", "p", None))
    with pytest.raises(ValueError, match="no settle"):
        journal.write(lambda c: releases.move(c, number, Happening.SETTLE))
    assert known(journal, "odd")[0].stage is Stage.CANDIDATE


STEPS = st.lists(
    st.tuples(st.sampled_from(["propose", "switch", "fail", "settle", "back"]), st.integers(0, 4)), max_size=30
)
COUNT = iter(range(1_000_000))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_after_the_first_one_always_exactly_one_answers(journal: Journal, steps: list[tuple[str, int]]) -> None:
    model = f"m{next(COUNT)}"
    journal.write(lambda c: releases.switch(c, model, releases.propose(c, model, "0", "p", 1), "first"))
    highest = 1
    for what, digest in steps:
        versions = known(journal, model)
        one = next((version for version in versions if version.digest == str(digest)), None)
        if what == "propose" and (one is None or one.stage not in (*ANSWERS, Stage.SHADOW)):
            journal.write(lambda c, d=digest: releases.propose(c, model, str(d), "p", d + 1))
        elif what == "switch" and one is not None and one.stage in WAITS:
            journal.write(lambda c, n=one.number: releases.switch(c, model, n, "better"))
            highest = max(highest, digest + 1)
        elif what == "fail" and one is not None and one.stage in WAITS:
            journal.write(lambda c, n=one.number: releases.move(c, n, Happening.FAIL, "bad"))
        elif what == "settle" and one is not None and one.stage is Stage.PROBATION:
            journal.write(lambda c, n=one.number: releases.move(c, n, Happening.SETTLE))
        elif what == "back":
            had = any(version.stage is Stage.PREVIOUS for version in versions)
            assert journal.write(lambda c: releases.roll_back(c, model, "bad")) is had
        stages = [version.stage for version in known(journal, model)]
        assert sum(stage in ANSWERS for stage in stages) == 1
        assert stages.count(Stage.PREVIOUS) <= 1
        assert [version.version for version in known(journal, model)] == [str(i + 1) for i in range(len(stages))]
    with journal.read() as connection:
        assert releases.highest(connection, model) == highest
