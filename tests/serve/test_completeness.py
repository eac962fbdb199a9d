"""When a series is complete: each rule by itself. What comes of them together is in `test_routing_property`."""

from __future__ import annotations

from edgemed.serve.completeness import Collector
from edgemed.serve.config.models import Completeness

RULES = Completeness(after_ns=2, quiet_ns=60)
NO_ASSOCIATION = Completeness(after_ns=2, quiet_ns=60, association=False)
NO_COUNT = Completeness(after_ns=2, quiet_ns=60, expected=False)


def collector(rules: Completeness = RULES, revision: int = 1) -> Collector:
    made = Collector()
    made.opened(1, rules, 0, revision=revision)
    return made


def test_the_count_that_the_files_tell_of() -> None:
    made = collector()
    made.added(1, [1, 2], 10, association="a", expected=3)
    assert made.due(20) == {}
    made.added(1, [3], 20, association="a", expected=3)
    assert made.due(20) == {1: "all 3 images that the files tell of"}


def test_counts_that_disagree_or_are_exceeded_tell_nothing() -> None:
    made = collector()
    made.added(1, [1], 10, association="a", expected=2)
    made.added(1, [2], 10, association="a", expected=3)
    made.added(1, [3], 10, association="a", expected=3)
    assert made.due(69) == {}
    assert made.due(70) == {1: "no image for 6e-08 s; 3 images"}
    more = collector()
    more.added(1, [1, 2, 3], 10, association="a", expected=2)
    assert more.due(69) == {}


def test_the_count_may_be_left_out_of_account() -> None:
    made = collector(NO_COUNT)
    made.added(1, [1], 10, association="a", expected=1)
    assert made.due(69) == {}


def test_the_release_and_a_moment_of_quiet() -> None:
    made = collector()
    made.added(1, [1, 2], 10, association="a", expected=3)
    made.association_ended("a", True, 15)
    assert made.next_ns == 17
    assert made.due(16) == {}
    assert made.due(17) == {1: "association released, then quiet; 2 of the 3 images that the files tell of"}


def test_a_release_that_is_told_before_its_images() -> None:
    made = Collector()
    made.association_ended("a", True, 15)
    made.opened(1, RULES, 10)
    made.added(1, [1], 10, association="a")
    assert made.due(16) == {}
    assert list(made.due(17)) == [1]


def test_every_association_of_it_must_be_over() -> None:
    made = collector()
    made.added(1, [1], 10, association="a")
    made.added(1, [2], 11, association="b")
    made.association_ended("a", True, 12)
    assert made.due(60) == {}
    made.association_ended("b", True, 60)
    assert list(made.due(62)) == [1]


def test_an_abort_is_no_release_but_one_that_was_made_good_is_forgiven() -> None:
    made = collector()
    made.added(1, [1], 10, association="a")
    made.association_ended("a", False, 12)
    assert made.due(69) == {}
    made.added(1, [2], 20, association="b")
    made.association_ended("b", True, 21)
    assert list(made.due(23)) == [1]


def test_associations_may_be_left_out_of_account() -> None:
    made = collector(NO_ASSOCIATION)
    made.added(1, [1], 10, association="a")
    made.association_ended("a", True, 12)
    assert made.due(69) == {}
    assert list(made.due(70)) == [1]


def test_where_there_is_no_association_quiet_alone_decides() -> None:
    made = collector()
    made.added(1, [1], 10, association="")
    assert made.next_ns == 70


def test_repeats_do_not_start_the_quiet_time_again() -> None:
    made = collector()
    made.added(1, [1], 10, association="")
    made.added(1, [1], 50, association="")
    assert list(made.due(70)) == [1]


def test_a_revision_for_a_late_image_does_not_believe_a_release() -> None:
    made = collector(revision=2)
    made.added(1, [1, 2], 10)
    made.added(1, [3], 10, association="b", expected=4)
    made.association_ended("b", True, 12)
    assert made.due(69) == {}
    made.added(1, [4], 30, association="c", expected=4)
    assert list(made.due(30)) == [1]


def test_a_task_that_was_closed_is_not_due() -> None:
    made = collector()
    made.added(1, [1], 10, association="")
    made.closed(1)
    assert (made.due(1000), made.next_ns, len(made)) == ({}, None, 0)
