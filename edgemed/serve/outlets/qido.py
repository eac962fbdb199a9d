"""A DICOMweb service is asked whether it has an instance: QIDO-RS (PS3.18 section 10.6), answered in DICOM JSON."""

from __future__ import annotations

import json
from typing import Final
from urllib.parse import urlencode

from edgemed.serve.against import Delivered, Query
from edgemed.serve.config.destinations import DicomWebDestination
from edgemed.serve.outlets.courier import Unavailable
from edgemed.serve.outlets.http import HttpClient, read_secret

_INSTANCE: Final = "00080018"


class QidoClient:
    """Asks for one instance after the other over a connection that is kept."""

    def __init__(self, destination: DicomWebDestination) -> None:
        self._token = destination.token
        self._url = destination.url
        self._client = HttpClient(destination)

    def query(self, one: Delivered) -> Query:
        """See `Archive`."""
        return Query(self._url, _path(one).encode())

    def has(self, one: Delivered) -> bool:
        """See `Archive`."""
        headers = {"Accept": "application/dicom+json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {read_secret(self._token)}"
        answer = self._client.get(_path(one), headers)
        if answer.status == 204:
            return False
        if answer.status != 200:
            raise Unavailable(f"It answers HTTP {answer.status}.")
        try:
            matches = json.loads(answer.body)
            found = {str(value) for match in matches for value in match[_INSTANCE]["Value"]}
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise Unavailable("It answers a query by what is no DICOM JSON.") from error
        return one.sop_instance in found

    def close(self) -> None:
        self._client.close()


def _path(one: Delivered) -> str:
    keys = {"StudyInstanceUID": one.study} if one.study else {}
    return f"/instances?{urlencode({**keys, 'SOPInstanceUID': one.sop_instance})}"
