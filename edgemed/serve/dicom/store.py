"""C-STORE: the data set goes to the disk as it comes, hashed on its way, and the status says what became of it.

Statuses are those of PS3.4 table B.2-1 and PS3.7 annex C. What is refused is read to its end, so that the sender is
told, and entered in the journal.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgemed.base.errors import EdgemedError, InputError, ResourceError
from edgemed.imaging.dicom.describe import described_by
from edgemed.imaging.dicom.elements import HEAD
from edgemed.imaging.dicom.identity import Glance, Identity, encode_meta, look
from edgemed.serve.dicom.commands import Command
from edgemed.serve.dicom.contexts import SERVICES
from edgemed.serve.dicom.negotiation import Accepted
from edgemed.serve.intake import Arrival, Verdict
from edgemed.serve.services import Services

SUCCESS: Final = 0x0000
PROCESSING_FAILURE: Final = 0x0110  # ours: C000 would tell the sender that the image is to blame
INVALID_INSTANCE: Final = 0x0117
CLASS_NOT_SUPPORTED: Final = 0x0122
NOT_AUTHORIZED: Final = 0x0124
UNRECOGNIZED_OPERATION: Final = 0x0211
OUT_OF_RESOURCES: Final = 0xA700
DATA_SET_MISMATCH: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000
OTHER_CONTENT: Final = 0xC111  # not 0111, duplicate instance: senders read that as "it is there already"

_OF_VERDICT: Final[dict[Verdict, int]] = {
    "accepted": SUCCESS,
    "repeated": SUCCESS,
    "conflict": OTHER_CONTENT,
    "full": OUT_OF_RESOURCES,
    "failed": PROCESSING_FAILURE,
}
_PIECE: Final = 1 << 20  # bytes: each write and hash lets other threads go first, and takes its turn behind them
_INLET: Final = "dicom"


@dataclass(frozen=True)
class Status:
    """What the sender is told."""

    code: int
    comment: str = ""
    error_id: int = 0

    @property
    def success(self) -> bool:
        return self.code == SUCCESS


@dataclass(frozen=True)
class Sender:
    """Who sends: part of what the journal knows of an object."""

    calling: str
    called: str
    association: str
    address: str


class Reception:
    """One object under way."""

    def __init__(self, services: Services, sender: Sender, command: Command, context: Accepted, first_ns: int) -> None:
        self._services = services
        self._sender = sender
        self._command = command
        self._context = context
        self._first_ns = first_ns
        self._file: Path | None = None
        self._descriptor = -1
        self._hash = hashlib.sha256()
        self._piece = bytearray()
        self._head = b""
        self._meta_size = 0
        self._refusal: Status | None = None
        self._glance = Glance(Identity())
        self.size = 0

    def begin(self, limit: int, refusal: Status | None) -> None:
        """Make the file, unless it is refused already.

        Args:
            limit: of the data set, in bytes.
            refusal: what stands against it.
        """
        self._limit = limit
        self._refusal = refusal or self._stands_against()
        if self._refusal is not None:
            return
        command, context = self._command, self._context
        meta = encode_meta(command.sop_class, command.sop_instance, context.syntax.uid, self._sender.calling)
        try:
            self._file = self._services.intake.new_file()
            self._piece, self._meta_size = bytearray(meta), len(meta)
            self._descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except ResourceError as error:
            self._refuse(OUT_OF_RESOURCES, error.what)
        except OSError as error:
            self._refuse(OUT_OF_RESOURCES, self._services.intake.not_written(error))

    @property
    def identity(self) -> Identity:
        """Of the image, when it is complete; before that it has no UIDs."""
        return self._glance.identity

    @property
    def hopeless(self) -> bool:
        """It is refused, and goes on for so long that it is not read to its end."""
        return self._refusal is not None and self.size > 2 * self._limit

    def write(self, data: memoryview) -> None:
        """The next bytes of the data set."""
        self.size += len(data)
        if self._refusal is not None:
            return
        if self.size > self._limit:
            self._refuse(OUT_OF_RESOURCES, f"It is larger than the {self._limit} bytes that are allowed.")
            return
        self._piece += data
        if len(self._piece) >= _PIECE:
            self._flush()

    def finish(self) -> Status:
        """All bytes are there: keep it, and say what to tell the sender."""
        if self._refusal is None:
            self._flush()
        if self._refusal is None:
            self._identify()
        if self._refusal is None:
            try:
                return self._accept()
            except EdgemedError as error:
                self._refuse(PROCESSING_FAILURE, error.what)
        assert self._refusal is not None
        self._services.metrics.objects.labels(_INLET, "refused").inc()
        self._enter(self._refusal.comment)
        return self._refusal

    def cancel(self) -> None:
        """It will not be complete: nobody was told that it was taken."""
        self._piece = bytearray()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._file is not None:
            with suppress(OSError):
                self._file.unlink(missing_ok=True)
            self._file = None

    def _stands_against(self) -> Status | None:
        command = self._command
        if not command.sop_instance or not command.sop_class:
            return Status(INVALID_INSTANCE, "The request does not say which instance it sends.")
        if command.sop_class != self._context.sop_class:
            return Status(CLASS_NOT_SUPPORTED, "The SOP class is not that of its presentation context.")
        if command.sop_class in SERVICES:  # negotiated by who may not store, perhaps
            return Status(UNRECOGNIZED_OPERATION, "Instances are not stored in this presentation context.")
        return None

    def _identify(self) -> None:
        try:
            self._glance = look(self._head, self._context.syntax)
        except InputError as error:
            self._refuse(CANNOT_UNDERSTAND, error.what)
            return
        if self.identity.sop_class != self._command.sop_class:
            self._refuse(DATA_SET_MISMATCH, "The data set is of another SOP class than the request.")
        elif self.identity.sop_instance != self._command.sop_instance:
            self._refuse(DATA_SET_MISMATCH, "The data set has another SOP Instance UID than the request.")

    def _accept(self) -> Status:
        assert self._file is not None
        os.close(self._descriptor)
        self._descriptor = -1
        file, self._file = self._file, None
        outcome = self._services.intake.accept(
            Arrival(
                file=file,
                inlet=_INLET,
                peer=self._sender.calling,
                sop_class=self._command.sop_class,
                sop_instance=self._command.sop_instance,
                sha256=self._hash.hexdigest(),
                size=self._meta_size + self.size,
                syntax=self._context.syntax.uid,
                called=self._sender.called,
                association=self._sender.association,
                address=self._sender.address,
                study=self.identity.study,
                series=self.identity.series,
                first_ns=self._first_ns,
                described=described_by(self._glance, self._context.syntax.uid),
            )
        )
        if outcome.verdict in ("full", "failed"):
            self._enter(outcome.reason)
        return Status(_OF_VERDICT[outcome.verdict], outcome.reason)

    def _enter(self, reason: str) -> None:
        """The journal knows what was not taken; where it cannot, its alarm stands."""
        with suppress(EdgemedError):
            self._services.intake.refuse(
                _INLET, self._sender.calling, self._command.sop_class, self._command.sop_instance, reason
            )

    def _flush(self) -> None:
        """Write and hash what came since the last time."""
        piece = memoryview(self._piece)
        data = piece if self._head else piece[self._meta_size :]
        if not self._head:
            self._head = bytes(data[:HEAD])
        self._piece = bytearray()
        try:
            self._put(piece)
        except OSError as error:
            self._refuse(OUT_OF_RESOURCES, self._services.intake.not_written(error))
        else:
            self._hash.update(data)

    def _put(self, data: memoryview) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]

    def _refuse(self, code: int, why: str) -> None:
        self._refusal = Status(code, why)
        self.cancel()
