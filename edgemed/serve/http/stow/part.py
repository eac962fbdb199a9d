"""One instance of a STOW-RS request: to the disk as it comes, then through the one door."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgemed.base.errors import EdgemedError, InputError, ResourceError
from edgemed.imaging.dicom.describe import described_by
from edgemed.imaging.dicom.elements import HEAD
from edgemed.imaging.dicom.identity import Glance, Identity, look
from edgemed.imaging.dicom.part10 import FileMeta, hash_dataset, read_meta
from edgemed.imaging.dicom.syntaxes import SYNTAXES
from edgemed.serve.dicom.admission import Rate
from edgemed.serve.intake import Arrival, Verdict
from edgemed.serve.services import Services

INLET: Final = "stow"

# Failure Reason (0008,1197), PS3.18 table I.2-2, with the codes of PS3.4 for storage
PROCESSING_FAILURE: Final = 0x0110
CLASS_NOT_SUPPORTED: Final = 0x0122
OUT_OF_RESOURCES: Final = 0xA700
DATA_SET_MISMATCH: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000
OTHER_CONTENT: Final = 0xC111
SYNTAX_NOT_SUPPORTED: Final = 0xC122
OTHER_STUDY: Final = 0xC409

_OF_VERDICT: Final[dict[Verdict, int]] = {
    "conflict": OTHER_CONTENT,
    "full": OUT_OF_RESOURCES,
    "failed": PROCESSING_FAILURE,
}


@dataclass(frozen=True)
class Stored:
    """What became of one instance.

    Attributes:
        sop_class: UID; '' where the bytes do not tell.
        sop_instance: the same.
        study: the same.
        failure: 0, or the Failure Reason.
        why: of a failure, as a sentence.
    """

    sop_class: str = ""
    sop_instance: str = ""
    study: str = ""
    failure: int = 0
    why: str = ""


class Refused(Exception):
    """An instance is not taken."""

    def __init__(self, failure: int, why: str) -> None:
        super().__init__(why)
        self.failure = failure
        self.why = why


@dataclass(frozen=True)
class Sender:
    """Who sends, and what he said about all of it.

    Attributes:
        name: of the token.
        association: a name that no other request has.
        address: of the client.
        study: that the path names; `None`: it names none.
        classes: SOP classes that are taken.
        rate: of his objects.
    """

    name: str
    association: str
    address: str
    study: str | None
    classes: frozenset[str]
    rate: Rate


class Part:
    """One instance under way.

    Args:
        services: of the daemon.
        sender: of the request.
        limit: bytes that it may have.
    """

    def __init__(self, services: Services, sender: Sender, limit: int) -> None:
        self._services = services
        self._sender = sender
        self._limit = limit
        self._first_ns = time.monotonic_ns()
        self._refusal: Refused | None = None
        self._file: Path | None = None
        self._descriptor = -1
        self._glance = Glance(Identity())
        self.size = 0
        if not sender.rate.take():
            self.refuse(OUT_OF_RESOURCES, "Busy: too many objects in a minute.")
            return
        try:
            self._file = services.intake.new_file()
            self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except (ResourceError, OSError) as error:
            self._fail(error)

    def refuse(self, failure: int, why: str) -> None:
        """It will not be taken, whatever comes."""
        self._refusal = self._refusal or Refused(failure, why)
        self.cancel()

    def write(self, data: memoryview) -> None:
        """The next bytes."""
        self.size += len(data)
        if self._refusal is not None:
            return
        if self.size > self._limit:
            self.refuse(OUT_OF_RESOURCES, f"It is larger than the {self._limit} bytes that are allowed.")
            return
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            self._fail(error)

    def finish(self) -> Stored:
        """All bytes are there: keep it, and say what became of it."""
        try:
            if self._refusal is None:
                return self._accept()
        except Refused as refusal:
            self._refusal = refusal
        except (EdgemedError, OSError) as error:
            self._fail(error)
        finally:
            self.cancel()
        assert self._refusal is not None
        return self._entered(self._refusal)

    def cancel(self) -> None:
        """Nothing of it stays that was not kept."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._file is not None:
            with suppress(OSError):
                self._file.unlink(missing_ok=True)
            self._file = None

    def _accept(self) -> Stored:
        assert self._file is not None
        with os.fdopen(self._descriptor, "rb") as file:
            self._descriptor = -1
            try:
                meta = read_meta(file)
                file.seek(meta.offset)
                self._identify(meta, file.read(HEAD))
            except InputError as error:
                raise Refused(CANNOT_UNDERSTAND, error.what[:1].upper() + error.what[1:]) from error
            digest = hash_dataset(file, meta.offset)
        path, self._file = self._file, None
        about = self._identity
        outcome = self._services.intake.accept(
            Arrival(
                file=path,
                inlet=INLET,
                peer=self._sender.name,
                sop_class=about.sop_class,
                sop_instance=about.sop_instance,
                sha256=digest,
                size=self.size,
                syntax=meta.syntax,
                association=self._sender.association,
                address=self._sender.address,
                study=about.study,
                series=about.series,
                first_ns=self._first_ns,
                described=described_by(self._glance, meta.syntax),
            )
        )
        failure = 0 if outcome.success else _OF_VERDICT[outcome.verdict]
        if outcome.verdict in ("full", "failed"):  # another content of a known UID is entered with its file
            self._enter(outcome.reason)
        return Stored(about.sop_class, about.sop_instance, about.study, failure, outcome.reason)

    @property
    def _identity(self) -> Identity:
        return self._glance.identity

    def _identify(self, meta: FileMeta, head: bytes) -> None:
        """Who it is, and whether we take such."""
        syntax = SYNTAXES.get(meta.syntax)
        if syntax is None:
            raise Refused(SYNTAX_NOT_SUPPORTED, "Its transfer syntax is not one that is read here.")
        self._glance = look(head, syntax)
        about = self._identity
        if not about.sop_instance or not about.sop_class:
            raise Refused(CANNOT_UNDERSTAND, "It does not say which instance it is.")
        told = ((meta.sop_class, about.sop_class), (meta.sop_instance, about.sop_instance))
        if any(claimed and claimed != found for claimed, found in told):
            raise Refused(DATA_SET_MISMATCH, "Its file meta information tells of another instance.")
        if about.sop_class not in self._sender.classes:
            raise Refused(CLASS_NOT_SUPPORTED, "Its SOP class is none that is taken here.")
        if self._sender.study is not None and about.study != self._sender.study:
            raise Refused(OTHER_STUDY, "It is of another study than the path names.")

    def _fail(self, error: EdgemedError | OSError) -> None:
        what = error.what if isinstance(error, EdgemedError) else self._services.intake.not_written(error)
        self.refuse(OUT_OF_RESOURCES, what)

    def _entered(self, refusal: Refused) -> Stored:
        about = self._identity
        self._services.metrics.objects.labels(INLET, "refused").inc()
        self._enter(refusal.why)
        return Stored(about.sop_class, about.sop_instance, about.study, refusal.failure, refusal.why)

    def _enter(self, why: str) -> None:
        """The journal knows what was not taken; where it cannot, its alarm stands."""
        about = self._identity
        with suppress(EdgemedError):
            self._services.intake.refuse(INLET, self._sender.name, about.sop_class, about.sop_instance, why)
