"""When a series or study is taken to be complete: the decision alone, without threads, clocks or files.

A task that collects is complete by the first of: as many images as its files tell of; the release of the association
that brought the last one, and a moment of quiet; a long time without any image. A revision that was opened for a late
image does not believe releases any more: one was believed, or a sender opens an association for each image, and every
release would make another revision.

Where procedure steps name the images, they know better than counts and releases: a task is complete with the last image
that they name, and waits for it as long as for any.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from edgemed.serve.config.models import Completeness

_REMEMBERED: Final = 10_000  # associations that ended; one that is forgotten counts as open: the long quiet decides
_CONTRADICTED: Final = 0


@dataclass(frozen=True)
class Told:
    """What procedure steps tell of a task.

    Attributes:
        total: images that steps which have ended name.
        awaited: of these, so many have not come.
        doubtful: so many more, of discontinued steps: they may never have been made.
        open: a step of it is in progress: there will be more.
    """

    total: int
    awaited: int = 0
    doubtful: int = 0
    open: bool = False

    @property
    def missing(self) -> int:
        return self.awaited + self.doubtful


@dataclass
class _Group:
    rules: Completeness
    revision: int
    last_ns: int
    expected: int | None = None
    images: set[int] = field(default_factory=set)
    associations: set[str] = field(default_factory=set)
    last_association: str = ""
    told: Told | None = None
    told_ns: int = 0


class Collector:
    """Tasks that collect. Moments are nanoseconds of one clock that never goes back."""

    def __init__(self) -> None:
        self._groups: dict[int, _Group] = {}
        self._ended: OrderedDict[str, tuple[bool, int]] = OrderedDict()

    def __contains__(self, task: object) -> bool:
        return task in self._groups

    def __len__(self) -> int:
        return len(self._groups)

    def clear(self) -> None:
        """Forget the tasks; ends of associations stay."""
        self._groups.clear()

    def opened(self, task: int, rules: Completeness, now_ns: int, *, revision: int = 1) -> None:
        """A task begins to collect."""
        self._groups[task] = _Group(rules, revision, now_ns)

    def added(
        self,
        task: int,
        images: Iterable[int],
        now_ns: int,
        *,
        association: str | None = None,
        expected: int | None = None,
    ) -> None:
        """Images belong to a task.

        Args:
            task: that was opened.
            images: their numbers; known ones change nothing.
            now_ns: when they came.
            association: that brought them; '' where there is none, and nobody will say that it is over. `None`: they
                are of an earlier revision.
            expected: images that the task will have, by what the files say. Two that disagree are not believed.
        """
        group = self._groups[task]
        before = len(group.images)
        group.images.update(images)
        if len(group.images) == before:
            return
        group.last_ns = max(group.last_ns, now_ns)
        if association is not None:
            group.associations.add(association)
            group.last_association = association
        if expected is not None:
            self.expect(task, expected)

    def expect(self, task: int, count: int) -> None:
        """Objects that a task will have, by what one of them says; 0: they disagree."""
        group = self._groups[task]
        group.expected = count if group.expected in (None, count) else _CONTRADICTED

    def told(self, task: int, told: Told | None, now_ns: int) -> None:
        """What procedure steps tell of a task now; `None`: nothing."""
        group = self._groups[task]
        group.told, group.told_ns = told, now_ns

    def association_ended(self, name: str, released: bool, now_ns: int) -> None:
        """An association is over; its images may be told of later."""
        self._ended[name] = (released, now_ns)
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)

    def closed(self, task: int) -> None:
        """A task collects no more."""
        self._groups.pop(task, None)

    def expected(self, task: int) -> int | None:
        """Images that a task will have; `None` where nothing tells, or what tells is not believed."""
        return self._groups[task].expected or None

    def due(self, now_ns: int) -> dict[int, str]:
        """Tasks that are complete now, and why. Everything that came before `now_ns` must have been told."""
        found = {task: self._completion(group) for task, group in self._groups.items()}
        return {task: reason for task, (at_ns, reason) in found.items() if at_ns <= now_ns}

    @property
    def next_ns(self) -> int | None:
        """When the next task will be complete if nothing happens; `None` where none collects."""
        return min((self._completion(group)[0] for group in self._groups.values()), default=None)

    def _completion(self, group: _Group) -> tuple[int, str]:
        """When it is complete as things stand, and why."""
        if group.told is not None and group.rules.mpps:
            return self._completion_by_steps(group, group.told)
        rules, count = group.rules, len(group.images)
        told = group.expected or None
        of = f"{count} images" if told is None else f"{count} of the {told} images that the files tell of"
        if rules.expected and count == told:
            return group.last_ns, f"all {count} images that the files tell of"
        quiet = group.last_ns + rules.quiet_ns, f"no image for {_seconds(rules.quiet_ns)}; {of}"
        released_ns = self._released_ns(group)
        if rules.association and group.revision == 1 and released_ns is not None:
            released = released_ns + rules.after_ns, f"association released, then quiet; {of}"
            return min(released, quiet)
        return quiet

    def _completion_by_steps(self, group: _Group, told: Told) -> tuple[int, str]:
        """The same, where steps tell of it."""
        last_ns, rules = max(group.last_ns, group.told_ns), group.rules
        quiet = f"no image for {_seconds(rules.quiet_ns)}"
        if told.open:
            going = f"while a procedure step is in progress; {len(group.images)} images"
            return last_ns + rules.quiet_ns, f"{quiet}, {going}"
        if not told.missing:
            return last_ns, f"all {told.total} images that the procedure step names"
        of = f"{told.missing} of the {told.total} images that the procedure step names are missing"
        if told.awaited:
            return last_ns + rules.quiet_ns, f"{quiet}; {of}"
        return last_ns + min(rules.after_ns, rules.quiet_ns), f"procedure step discontinued, then quiet; {of}"

    def _released_ns(self, group: _Group) -> int | None:
        """The last image or end of an association; `None` where one is open, or the last one was not released."""
        if not group.associations or not self._ended.keys() >= group.associations:
            return None
        if not self._ended[group.last_association][0]:
            return None
        return max(group.last_ns, *(self._ended[name][1] for name in group.associations))


def _seconds(ns: int) -> str:
    return f"{ns / 1e9:g} s"
