"""A PACS is asked whether it has an instance: C-FIND, Study Root, level IMAGE (PS3.4 annex C)."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from edgemed.serve.against import Delivered, Query
from edgemed.serve.config import Config
from edgemed.serve.config.destinations import DicomDestination
from edgemed.serve.dicom.contexts import PLAIN
from edgemed.serve.dicom.reports import encode_data_set, parse_data_set
from edgemed.serve.dicom.requestor import Wanted
from edgemed.serve.dicom.scu import Broken, Link, Target
from edgemed.serve.outlets.courier import Unavailable
from edgemed.serve.tls import client_context

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

STUDY_ROOT_FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"
_WANTED: Final = Wanted(STUDY_ROOT_FIND, PLAIN)


class Finder:
    """Entered, there is an association for queries.

    Args:
        config: of the daemon.
        destination: the PACS.
    """

    def __init__(self, config: Config, destination: DicomDestination) -> None:
        ours = destination.calling or (config.dicom.ae_title if config.dicom is not None else "EDGEMED")
        tls = None if destination.tls is None else client_context(destination.tls)
        place = destination
        target = Target(place.host, place.port, place.ae_title, ours, place.retry.timeout_ns, tls)
        self._link = Link(target, [_WANTED])

    def __enter__(self) -> Finder:
        """Ask for the association.

        Raises:
            Unavailable: there is none, or none for queries.
        """
        try:
            self._link.__enter__()
        except Broken as error:
            raise Unavailable(error.reason) from error
        if _WANTED not in self._link.granted.contexts:
            self._link.__exit__(None)
            raise Unavailable("It takes no queries (C-FIND, Study Root).")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._link.__exit__(kind)

    def query(self, one: Delivered) -> Query:
        """See `Archive`."""
        syntax = self._link.granted.contexts[_WANTED].syntax
        return Query(STUDY_ROOT_FIND, encode_data_set(query_of(one), syntax), syntax.uid)

    def has(self, one: Delivered) -> bool:
        """See `Archive`."""
        context = self._link.granted.contexts[_WANTED]
        try:
            status, matches = self._link.find(context, STUDY_ROOT_FIND, self.query(one).data)
        except Broken as error:
            raise Unavailable(error.reason) from error
        if status != 0:
            raise Unavailable(f"It answers a query by 0x{status:04X}.")
        try:
            found = {str(parse_data_set(match, context.syntax).get("SOPInstanceUID", "")) for match in matches}
        except ValueError as error:
            raise Unavailable("It answers a query by what is no data set.") from error
        return one.sop_instance in found  # there are archives that overlook a key


def query_of(one: Delivered) -> Dataset:
    """By its own UID, and those above it, for archives that want to be led down; one that is not known may be any."""
    from pydicom.dataset import Dataset

    study, series = _place(one)
    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    query.StudyInstanceUID, query.SeriesInstanceUID = study, series
    query.SOPInstanceUID = one.sop_instance
    return query


def _place(one: Delivered) -> tuple[str, str]:
    """Study and series: as the file has them, where it is still there."""
    from edgemed.imaging.dicom.describe import describe

    if one.file is not None:
        with suppress(Exception):  # whatever it stumbles over: `reconcile` itself tells what became of the file
            found = describe(one.file)
            return found.study or one.study, found.series
    return one.study, ""
