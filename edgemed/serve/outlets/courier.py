"""What is carried, who carries it, and what became of it: the face between a lane and its kind of destination."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Verdict = Literal["delivered", "sent", "later", "refused"]
"""What the peer said of one result: it has it; it has it and shall commit itself; not now; never in this form."""


@dataclass(frozen=True)
class Parcel:
    """One result on its way to one destination.

    Attributes:
        number: of the delivery in the journal.
        state: 'pending' or 'sent'.
        tries: made before.
        created: since when it waits, UTC, as the journal writes it.
        kind: of the result: 'sr', 'seg', 'sc', 'gsps', 'json', 'image'.
        sop_class: UID; '' where it is no DICOM.
        sop_instance: UID; '' where it has none.
        sha256: of the file; of an image, of its data set.
        path: of the file in the spool.
        task: whose it is.
        model: that answered.
        subject: what was analysed: a UID, or the name of a file's content.
        revision: of the result.
        study: Study Instance UID; '' where there is none.
    """

    number: int
    state: str
    tries: int
    created: str
    kind: str
    sop_class: str
    sop_instance: str
    sha256: str
    path: Path
    task: int
    model: str
    subject: str
    revision: int
    study: str


@dataclass(frozen=True)
class Outcome:
    """What became of a try.

    Attributes:
        verdict: what the peer said.
        reason: a sentence for people: codes of the peer, never its words, for they may name a patient.
        after_ns: the peer's own wish for the next try.
    """

    verdict: Verdict
    reason: str = ""
    after_ns: int | None = None


class Unavailable(Exception):
    """The destination takes nothing now: no connection, no answer, no valid answer.

    Attributes:
        reason: a sentence for people.
        parcel: what was on its way when it happened: it may be the cause, so others go first next time.
        after_ns: the peer's own wish for the next try.
    """

    def __init__(self, reason: str, parcel: Parcel | None = None, after_ns: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.parcel = parcel
        self.after_ns = after_ns


Done = Callable[[Parcel, Outcome], None]
Pulse = Callable[[], bool]
"""Shows progress to who watches the loop; says whether to go on."""


class Courier(Protocol):
    """Brings parcels to one destination. Used by one thread."""

    @property
    def most(self) -> int:
        """Parcels that are best carried together: over one association, say."""
        ...

    @property
    def address(self) -> str:
        """Of the peer, for the audit trail."""
        ...

    def carry(self, parcels: Sequence[Parcel], done: Done, pulse: Pulse) -> None:
        """Bring them, one after the other; `done` is called for each as soon as the peer has answered for it.

        Raises:
            Unavailable: the rest was not tried.
        """
        ...

    def close(self) -> None:
        """Let connections go."""
        ...


class Confirming(Courier, Protocol):
    """One whose peer is asked later whether it will keep what it took."""

    @property
    def within_ns(self) -> int:
        """Time for the peer's answer; then it is sent again."""
        ...

    def confirm(self, parcels: Sequence[Parcel], transaction: str, pulse: Pulse) -> None:
        """Ask for commitment; the answer comes by way of `dicom.commitments`.

        Args:
            parcels: that are in state 'sent'.
            transaction: UID of the request; it is in the journal.
            pulse: see `Pulse`.

        Raises:
            Unavailable: the request was not taken.
        """
        ...
