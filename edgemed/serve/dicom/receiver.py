"""An SCP that takes whatever it is sent, keeps nothing of it, and counts: what stands in for a site's PACS."""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import Any, Final

from pynetdicom import AE, _config, evt
from pynetdicom.transport import ThreadedAssociationServer

from edgemed.base.errors import ResourceError
from edgemed.serve.dicom.contexts import PLAIN, VERIFICATION

_HOST: Final = "127.0.0.1"
_ASSOCIATIONS: Final = 64


class Receiver:
    """Entered, it listens on loopback, at a port of the system's choice.

    Attributes:
        port: where.
        received: objects that it has taken.
    """

    def __init__(self, ae_title: str) -> None:
        self.port = 0
        self.received = 0
        self._lock = threading.Lock()
        self._server: ThreadedAssociationServer | None = None
        self._entity = AE(ae_title)
        self._entity.maximum_associations = _ASSOCIATIONS
        self._entity.add_supported_context(VERIFICATION, list(PLAIN))

    def __enter__(self) -> Receiver:
        """Listen.

        Raises:
            ResourceError: there is no port.
        """
        logging.getLogger("pynetdicom").setLevel(logging.ERROR)  # it tells of every object
        # every SOP class in the syntax that is offered: a list of all of them is copied for each association, for 20 ms
        _config.UNRESTRICTED_STORAGE_SERVICE = True
        try:
            server = self._entity.start_server((_HOST, 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._take)])
        except OSError as error:
            raise ResourceError(
                "No port of this machine can be listened on.", "End programs that have many."
            ) from error
        assert server is not None
        self._server, self.port = server, server.server_address[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _config.UNRESTRICTED_STORAGE_SERVICE = False
        if self._server is not None:
            self._server.shutdown()
            self._entity.shutdown()

    def _take(self, _: Any) -> int:
        with self._lock:
            self.received += 1
        return 0x0000
