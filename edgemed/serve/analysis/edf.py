"""Which request is next: earliest due first, live before the rest, and what goes together. No threads, no clock.

The bound: where some schedule could answer every request of a line in time, this one answers each at most one
inference late: the one that was under way (or a whole batch), for a device that computes cannot be interrupted. Why:
let a request due at `d` end late, and `t` be the last start, up to `d`, of an inference that holds something due after
`d`, or the last moment without work. Whatever waited at `t` and was due by `d` was in that very inference, for a line
is taken in order. So all that runs after it came after `t` and is due by `d`, and that much fits between `t` and `d`.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

_NEVER: Final = 1 << 62
_FORGET: Final = 16  # an inference's share in the estimate is 1/16 where it was quicker; at once where it was slower


@dataclass(eq=False)
class Job:
    """One request that waits.

    Attributes:
        size: samples in it.
        kind: only requests of one kind go into one inference.
        due_ns: when the answer is due; the order goes by it. Later, it is still wanted.
        deadline_ns: from here on, no answer is wanted.
        live: of a stream.
        alone: goes into no batch: the one that it was in has failed.
        gone: it has left the queue.
    """

    size: int = 1
    kind: Hashable = None
    due_ns: int | None = None
    deadline_ns: int | None = None
    live: bool = False
    submitted_ns: int = 0
    alone: bool = False
    gone: bool = False

    @property
    def order_ns(self) -> int:
        """When it is due; what nobody waits for comes last."""
        if self.due_ns is not None:
            return self.due_ns
        return _NEVER if self.deadline_ns is None else self.deadline_ns


@dataclass(frozen=True)
class Rules:
    """What the queue may do.

    Attributes:
        most: samples in one inference.
        wait_ns: the longest that a request is held back for others to go with it, where it can still be in time.
        bound: requests that may wait; more are refused.
        burst: live inferences in a row while something else waits; then one of that goes. A camera that is faster than
            the model would keep everything else waiting for ever.
        pace_ns: between the starts of two inferences that are not live: a device that is too warm rests.
    """

    most: int = 1
    wait_ns: int = 0
    bound: int = 1024
    burst: int = 8
    pace_ns: int = 0


class Cost:
    """How long an inference of so many samples takes, from those that were seen; errs on the long side."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}

    def saw(self, size: int, took_ns: int) -> None:
        """One has taken so long."""
        before = self._seen.get(size, 0)
        self._seen[size] = max(took_ns, before - (before - took_ns) // _FORGET)

    def ns(self, size: int) -> int:
        """For so many; 0 where nothing was seen yet. Of a size that was not seen, in proportion to a smaller one."""
        if size in self._seen:
            return self._seen[size]
        smaller = [seen for seen in self._seen if seen < size]
        if smaller:
            nearest = max(smaller)
            return self._seen[nearest] * size // nearest
        return min(self._seen.values(), default=0)  # a larger one takes no less


J = TypeVar("J", bound=Job)


@dataclass
class _Line(Generic[J]):
    """Requests in the order in which they are due; those that have gone are passed over."""

    heap: list[tuple[int, int, J]] = field(default_factory=list)

    def head(self) -> J | None:
        while self.heap and self.heap[0][2].gone:
            heapq.heappop(self.heap)
        return self.heap[0][2] if self.heap else None


class EdfQueue(Generic[J]):
    """What waits for one device."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.cost = Cost()
        self._lines: dict[bool, _Line[J]] = {True: _Line(), False: _Line()}
        self._deadlines: list[tuple[int, int, J]] = []
        self._numbers = itertools.count()
        self._in_a_row = 0
        self._count = 0
        self._rest_ns = 0  # nothing that is not live starts before
        self._rests = False  # something waits for that

    def __len__(self) -> int:
        return self._count

    def push(self, job: J) -> bool:
        """Let it wait; `False` where too many do."""
        if self._count >= self.rules.bound:
            return False
        number = next(self._numbers)
        job.gone = False
        heapq.heappush(self._lines[job.live].heap, (job.order_ns, number, job))
        if job.deadline_ns is not None:
            heapq.heappush(self._deadlines, (job.deadline_ns, number, job))
        self._count += 1
        return True

    def withdraw(self, job: J) -> bool:
        """Nobody wants it any more; `False` where it does not wait."""
        if job.gone:
            return False
        self._leave(job)
        return True

    def expired(self, now_ns: int) -> list[J]:
        """Take out all for which it is too late."""
        late = []
        while self._deadlines and (self._deadlines[0][2].gone or self._deadlines[0][0] <= now_ns):
            job = heapq.heappop(self._deadlines)[2]
            if not job.gone:
                self._leave(job)
                late.append(job)
        return late

    def take(self, now_ns: int) -> list[J]:
        """What goes into the next inference; nothing where nothing waits, or where it is worth while to wait."""
        live, other = self._lines[True].head(), self._lines[False].head()
        self._rests = other is not None and bool(self.rules.pace_ns) and now_ns < self._rest_ns
        if self._rests:
            other = None
        first = live if live is not None and (other is None or self._in_a_row < self.rules.burst) else other
        if first is None:
            return []
        together = self._together(first, now_ns)
        if self._waits(first, together, now_ns):
            return []
        self._in_a_row = self._in_a_row + 1 if first.live else 0
        if not first.live:
            self._rest_ns = now_ns + self.rules.pace_ns
        for job in together:
            self._leave(job)
        return together

    def drain(self) -> list[J]:
        """Take out everything."""
        left = []
        for line in self._lines.values():
            while (job := line.head()) is not None:
                self._leave(job)
                left.append(job)
        return left

    def look_ns(self, *, busy: bool = False) -> int | None:
        """When to look again although nothing has happened: something expires, has rested, or has waited for company.

        Args:
            busy: nothing can start before the worker has answered, which will be seen.
        """
        moments = []
        while self._deadlines and self._deadlines[0][2].gone:
            heapq.heappop(self._deadlines)
        if self._deadlines:
            moments.append(self._deadlines[0][0])
        if self._rests and not busy:
            moments.append(self._rest_ns)
        head = self._lines[False].head()
        if head is not None and self.rules.wait_ns and not busy:
            moments.append(head.submitted_ns + self.rules.wait_ns)
        return min(moments, default=None)

    def _together(self, first: J, now_ns: int) -> list[J]:
        """The first, and those behind it as long as they fit and do not make it late; none is overtaken."""
        rules, line = self.rules, self._lines[first.live]
        together, size = [first], first.size
        if first.alone or size >= rules.most:
            return together
        passed = [heapq.heappop(line.heap)]
        while (job := line.head()) is not None:
            size += job.size
            late = now_ns + self.cost.ns(size) > first.order_ns
            if job.kind != first.kind or job.alone or size > rules.most or late:
                break
            together.append(job)
            passed.append(heapq.heappop(line.heap))
        for entry in passed:  # they leave when it is decided that they do
            heapq.heappush(line.heap, entry)
        return together

    def _waits(self, first: J, together: list[J], now_ns: int) -> bool:
        rules = self.rules
        if first.live or first.alone or not rules.wait_ns or sum(job.size for job in together) >= rules.most:
            return False
        until_ns = first.submitted_ns + rules.wait_ns
        return now_ns < until_ns and until_ns + self.cost.ns(rules.most) <= first.order_ns

    def _leave(self, job: J) -> None:
        job.gone = True
        self._count -= 1
