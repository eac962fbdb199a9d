"""A modality that sends a study over and over, each time as a new one, on a schedule that waits for nobody.

The moment at which a study was *meant* to be sent is what latencies count from: where the daemon or the sender falls
behind, the studies behind it wait, and that wait is seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO

from edgemed.serve.dicom.requestor import Wanted
from edgemed.serve.dicom.scu import Broken, Link, Target
from edgemed.serve.dicom.template import Fresh, Series, Study


@dataclass
class Replayed:
    """What was sent.

    Attributes:
        intended: `time.monotonic_ns` at which each repetition was meant to begin.
        begun: when it did.
        idle: whether the sender waited for it; else it was still at the one before.
        of: repetition of each fresh UID.
        accepted: images that were answered with success, or a warning.
        refused: others, by reason.
    """

    intended: list[int] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    idle: list[bool] = field(default_factory=list)
    of: dict[str, int] = field(default_factory=dict)
    accepted: int = 0
    refused: dict[str, int] = field(default_factory=dict)

    def refuse(self, reason: str, images: int = 1) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + images


def replay(
    study: Study,
    target: Target,
    *,
    repeat: int,
    pace_ns: int,
    into: Replayed,
    done: Callable[[], None] = lambda: None,
) -> None:
    """Send it `repeat` times, one association for each series.

    Args:
        study: what.
        target: the daemon.
        repeat: how often.
        pace_ns: from one intended arrival to the next.
        into: takes what happens as it does: what was sent before an interruption is not lost.
        done: called after each repetition.
    """
    start_ns = time.monotonic_ns() + min(pace_ns, 100_000_000)
    for number in range(repeat):
        fresh = study.fresh()
        intended_ns = start_ns + number * pace_ns
        left_ns = intended_ns - time.monotonic_ns()
        if left_ns > 0:
            time.sleep(left_ns / 1e9)
        into.of.update(dict.fromkeys(fresh.values(), number))
        into.intended.append(intended_ns)
        into.idle.append(left_ns > 0)
        into.begun.append(time.monotonic_ns())
        for series in study.series:
            _send(series, fresh, target, into)
        done()


def _send(series: Series, fresh: Fresh, target: Target, into: Replayed) -> None:
    wanted = {image: Wanted(image.sop_class, (image.syntax,)) for image in series.images}
    left = len(series.images)
    try:
        with Link(target, list(dict.fromkeys(wanted.values()))) as link:
            for image in series.images:
                context = link.granted.contexts.get(wanted[image])
                if context is None:
                    into.refuse("its SOP class or transfer syntax is not taken")
                else:
                    data = BytesIO(image.filled(fresh))
                    status = link.store(context, image.sop_class, fresh[image.sop_instance], data.read)
                    if status == 0 or 0xB000 <= status <= 0xBFFF:
                        into.accepted += 1
                    else:
                        into.refuse(f"status 0x{status:04X}")
                left -= 1
    except Broken as error:
        into.refuse(error.reason.rstrip("."), left)
