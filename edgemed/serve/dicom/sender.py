"""A PACS or viewer: results by C-STORE, each in its own transfer syntax and byte for byte, and storage commitment."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import BinaryIO, Final

from edgemed.base.errors import EdgemedError
from edgemed.imaging.dicom.part10 import FileMeta, read_meta
from edgemed.imaging.dicom.syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from edgemed.serve.config.destinations import DicomDestination
from edgemed.serve.dicom import commitment_scu, requestor
from edgemed.serve.dicom.requestor import Wanted
from edgemed.serve.dicom.scu import Broken, Link, Target
from edgemed.serve.outlets.courier import Done, Outcome, Parcel, Pulse, Unavailable
from edgemed.serve.outlets.file import unsound
from edgemed.serve.outlets.plan import IMAGE
from edgemed.serve.outlets.status import of_status
from edgemed.serve.services import Services
from edgemed.serve.tls import client_context

_REJECTED_BY_USER, _NO_REASON, _NO_CLASS, _NO_SYNTAX = 1, 2, 3, 4
_NEVER: Final = {
    _NO_CLASS: "It does not take objects of this SOP class.",
    _NO_SYNTAX: "It does not take this transfer syntax.",
}


class DicomCourier:
    """One association for what waits, another one for the request to keep it."""

    most = requestor.MOST_CONTEXTS // 2  # were each of its own kind, with two contexts

    def __init__(self, services: Services, destination: DicomDestination) -> None:
        section = services.config.dicom
        self._services = services
        self._destination = destination
        self._ours = destination.calling or (section.ae_title if section is not None else "EDGEMED")
        self._target()  # what is wrong with its files is told at the start

    @property
    def address(self) -> str:
        return f"{self._destination.host}:{self._destination.port}"

    @property
    def within_ns(self) -> int:
        return self._destination.commitment_within_ns

    def carry(self, parcels: Sequence[Parcel], done: Done, pulse: Pulse) -> None:
        """See `Courier`."""
        files = {parcel.number: _meta(parcel) for parcel in parcels}
        for parcel in parcels:
            if files[parcel.number] is None:
                done(parcel, unsound(parcel) or Outcome("refused", "It is no DICOM object."))
        found = [(parcel, meta) for parcel in parcels if (meta := files[parcel.number]) is not None]
        if not found:
            return
        try:
            wanted = dict.fromkeys(each for parcel, meta in found for each in proposed(parcel.kind, meta))
            with Link(self._target(), list(wanted), pulse) as link:
                for parcel, meta in found:
                    if not pulse():
                        return
                    done(parcel, unsound(parcel, pulse) or self._store(link, parcel, meta))
        except Broken as error:
            raise Unavailable(error.reason) from error
        except EdgemedError as error:  # a certificate that was changed, and is none
            raise Unavailable(error.what) from error

    def _store(self, link: Link, parcel: Parcel, meta: FileMeta) -> Outcome:
        wanted = next((each for each in proposed(parcel.kind, meta) if each in link.granted.contexts), None)
        if wanted is None:
            result = link.granted.refused[proposed(parcel.kind, meta)[0]]
            if result in _NEVER:
                return Outcome("refused", _NEVER[result])
            return Outcome("later", "It takes no such object now.")
        context = link.granted.contexts[wanted]
        try:
            with parcel.path.open("rb") as file:
                data: BinaryIO = file if wanted.syntaxes == (meta.syntax,) else _implicit(file)
                data.seek(meta.offset if data is file else 0)
                status = link.store(context, meta.sop_class, meta.sop_instance, data.read)
        except Broken as error:
            raise Unavailable(error.reason, parcel) from error
        outcome = of_status(status, parcel.kind)
        if outcome.verdict == "delivered" and self._destination.commitment:
            return Outcome("sent", outcome.reason)
        return outcome

    def confirm(self, parcels: Sequence[Parcel], transaction: str, pulse: Pulse) -> None:
        """See `Confirming`."""
        try:
            commitment_scu.ask(self._services, self._target(), parcels, transaction, pulse)
        except Broken as error:
            raise Unavailable(error.reason) from error
        except EdgemedError as error:
            raise Unavailable(error.what) from error

    def close(self) -> None:
        """Nothing is open."""

    def _target(self) -> Target:
        place = self._destination
        tls = None if place.tls is None else client_context(place.tls)
        return Target(place.host, place.port, place.ae_title, self._ours, place.retry.timeout_ns, tls)


def _meta(parcel: Parcel) -> FileMeta | None:
    """What the file says of itself; `None` where it is not there, or no DICOM object."""
    try:
        with parcel.path.open("rb") as file:
            meta = read_meta(file)
    except (OSError, EdgemedError):
        return None
    return meta if meta.sop_class and meta.sop_instance and meta.syntax else None


def proposed(kind: str, meta: FileMeta) -> tuple[Wanted, ...]:
    """The contexts in which it may be sent, the best first: an image in its own syntax alone.

    What we have made is offered in implicit little endian too, which every application entity takes (PS3.5 10.1).
    """
    own = Wanted(meta.sop_class, (meta.syntax,))
    if kind == IMAGE or meta.syntax != EXPLICIT_LITTLE.uid:
        return (own,)
    return own, Wanted(meta.sop_class, (IMPLICIT_LITTLE.uid,))


def _implicit(file: BinaryIO) -> BinaryIO:
    """The data set of one of our files in implicit little endian."""
    from pydicom import dcmread
    from pynetdicom.dsutils import encode

    data = encode(dcmread(file), is_implicit_vr=True, is_little_endian=True)
    assert data is not None
    return BytesIO(data)
