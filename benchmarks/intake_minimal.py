"""The least that a durable SCP on pynetdicom does: the file is synced and named before Success. No journal, no limits.

python -m benchmarks.intake_minimal FOLDER PORT
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import CTImageStorage  # type: ignore[attr-defined]

logging.disable(logging.CRITICAL)
_config.LOG_HANDLER_LEVEL = "none"

FOLDER = Path(sys.argv[1])
DIRECTORY = os.open(FOLDER, os.O_RDONLY)


def no_delay(event: Any) -> None:
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def store(event: Any) -> int:
    name = FOLDER / event.request.AffectedSOPInstanceUID
    part = FOLDER / f"{name.name}.part"
    with part.open("wb") as file:
        file.write(event.encoded_dataset())
        file.flush()
        os.fsync(file.fileno())
    part.rename(name)
    os.fsync(DIRECTORY)
    return 0x0000


if __name__ == "__main__":
    ae = AE("MINIMAL")
    ae.maximum_pdu_size = 131072
    ae.add_supported_context(CTImageStorage, ["1.2.840.10008.1.2.1"])
    ae.start_server(
        ("127.0.0.1", int(sys.argv[2])),
        evt_handlers=[(evt.EVT_CONN_OPEN, no_delay), (evt.EVT_C_STORE, store)],
    )
