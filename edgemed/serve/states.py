"""Where an input stands: one table of (state, event). Every input ends in exactly one of `ENDS`."""

from __future__ import annotations

from enum import Enum
from typing import Final


class State(str, Enum):
    """Of an input: an object that was received, or the task that it is a part of.

    An object is ARRIVING while its file and its row are brought to the disk at the same time; its sender is told
    nothing before both are there. The journal may say so for a while longer, up to its next commit. Where the file does
    not come to the disk, the row goes as if it had never been (`records.vanish`). An object is RECEIVED until it is
    known what it is for, and ROUTED while tasks have it. Where several models take it, its end is the worst of theirs.
    """

    ARRIVING = "arriving"  # in the journal; whether its file is on the disk is to be seen: there, and whole
    RECEIVED = "received"  # on the disk and in the journal: it may be acknowledged
    ROUTED = "routed"  # tasks have it
    COLLECTING = "collecting"  # the task waits for more images of its series or study
    QUEUED = "queued"
    ANALYSING = "analysing"
    DELIVERING = "delivering"  # there is an answer; destinations are still to get it
    NOTIFYING = "notifying"  # it is not analysed; destinations are still to be told why
    DELIVERED = "delivered"
    REFUSED = "refused"  # at the door: the sender was told, and keeps it
    NOT_ANALYSED = "not-analysed"
    FAILED = "failed"  # and alarmed; kept until somebody has looked


class Event(str, Enum):
    """What happens to an input."""

    KEEP = "keep"  # an object: its file is on the disk
    ROUTE = "route"  # an object: it is for one model or several
    UNWANTED = "unwanted"  # an object: no model is for it
    UNREADABLE = "unreadable"  # an object: its bytes make no sense
    SETTLE = "settle"  # an object: its tasks have ended; with the worst of their ends
    REOPEN = "reopen"  # an object that has ended: another image of its series came late, and both are analysed again
    COMPLETE = "complete"  # a task: all images are there, or are taken to be
    START = "start"
    INTERRUPT = "interrupt"  # the daemon or its worker ended under way
    ANSWER = "answer"
    DECLINE = "decline"  # contract, distribution, deadline: with the reason
    BREAK = "break"  # an error that trying again will not mend
    FINISH = "finish"  # every destination has it
    GIVE_UP = "give up"  # a destination did not take it for too long
    RETRY = "retry"  # somebody asked for it
    RETURN = "return"  # the bytes came again, after their time or after the disk had lost them


ENDS: Final = frozenset({State.DELIVERED, State.REFUSED, State.NOT_ANALYSED, State.FAILED})

TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.ARRIVING, Event.KEEP): State.RECEIVED,
    (State.RECEIVED, Event.ROUTE): State.ROUTED,
    (State.RECEIVED, Event.UNWANTED): State.NOT_ANALYSED,
    (State.RECEIVED, Event.UNREADABLE): State.FAILED,
    (State.COLLECTING, Event.COMPLETE): State.QUEUED,
    (State.COLLECTING, Event.BREAK): State.FAILED,
    (State.QUEUED, Event.START): State.ANALYSING,
    (State.QUEUED, Event.DECLINE): State.NOTIFYING,
    (State.QUEUED, Event.BREAK): State.FAILED,
    (State.ANALYSING, Event.INTERRUPT): State.QUEUED,
    (State.ANALYSING, Event.ANSWER): State.DELIVERING,
    (State.ANALYSING, Event.DECLINE): State.NOTIFYING,
    (State.ANALYSING, Event.BREAK): State.FAILED,
    (State.DELIVERING, Event.FINISH): State.DELIVERED,
    (State.NOTIFYING, Event.FINISH): State.NOT_ANALYSED,
    (State.DELIVERING, Event.GIVE_UP): State.FAILED,
    (State.NOTIFYING, Event.GIVE_UP): State.FAILED,
    # tried again as a whole: results have the UIDs of their inputs, so nothing is delivered as another thing
    (State.FAILED, Event.RETRY): State.QUEUED,
    (State.FAILED, Event.RETURN): State.QUEUED,
    (State.NOT_ANALYSED, Event.RETURN): State.QUEUED,
}

_WORST: Final = (State.FAILED, State.NOT_ANALYSED, State.DELIVERED)


def worst(ends: frozenset[State]) -> State:
    """The end of an object whose tasks have ended so."""
    return next(state for state in _WORST if state in ends)
