"""A connection whose kernel buffer is full before a PDU is whole."""

from __future__ import annotations

import socket
import threading

from edgemed.base.quantity import SECOND
from edgemed.serve.dicom.wire import Wire

PDU = 131_066


def test_a_pdu_in_small_segments_comes_through_a_small_buffer() -> None:
    """The kernel counts what each segment costs it: it shuts the window long before it holds a whole PDU."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        with socket.create_connection(listener.getsockname()) as peer, listener.accept()[0] as ours:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.settimeout(60)
            pieces = [*[b"x" * 100] * (2 * PDU // 100), b"x" * (2 * PDU % 100)]
            thread = threading.Thread(target=lambda: [peer.sendall(piece) for piece in pieces])
            thread.start()
            wire = Wire(ours, 30 * SECOND)
            assert len(wire.body(PDU)) == PDU
            assert len(wire.body(PDU)) == PDU
            thread.join()
