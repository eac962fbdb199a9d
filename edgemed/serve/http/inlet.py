"""Whether a port of ours still takes connections."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENS: Final = "0A"
_STUCK_LOOKS: Final = 10
"""In a row at which connections waited, and none was taken: all that there are are taken at a time, under load, too."""


class Inlet:
    """Sees from outside of a server whether its port takes connections: one may lose it, and does not say so.

    Args:
        who: listens there, for people.
        port: that this process listens on now.
    """

    def __init__(self, who: str, port: int) -> None:
        self._who, self._port = who, port
        self._sockets: set[str] = set()
        self._waited = self._taken = 0
        self._look()

    def lost(self, taken: int = 0) -> str | None:
        """Why nobody can connect, as a sentence; `None` where all is well, or the system does not tell. To be called
        each second.

        Args:
            taken: connections so far, where that is known: who takes some is only busy.
        """
        found = self._look()
        if found is None or not self._sockets:
            return None
        waiting = [waiting for inode, waiting in found.items() if inode in self._sockets]
        if not waiting:
            return f"{self._who} does not listen on port {self._port} any more."
        self._waited = self._waited + 1 if any(waiting) and taken == self._taken else 0
        self._taken = taken
        return f"{self._who} takes no connections on port {self._port}." if self._waited >= _STUCK_LOOKS else None

    def _look(self) -> dict[str, int] | None:
        """See `_listeners`; the first that are seen of this process are those that are watched."""
        found = _listeners(self._port)
        if not self._sockets:
            self._sockets = {inode for inode in found or () if _holds(inode)}
        return found


def _listeners(port: int) -> dict[str, int] | None:
    """The inodes of the sockets that listen on a port, at any address of this machine; how many connections wait at
    each to be accepted. `None`: the system does not tell now.
    """
    found = {}
    wanted = f":{port:04X}"
    try:
        for table in _TABLES:
            with suppress(FileNotFoundError), table.open(encoding="ascii") as lines:  # a system without IPv6
                for line in lines:
                    _, local, _, state, queues, *others = line.split()
                    if state == _LISTENS and local.endswith(wanted):
                        found[others[4]] = int(queues.partition(":")[2], 16)
    except OSError:
        return None
    return found


def _holds(inode: str) -> bool:
    """Whether a socket is one of this process."""
    wanted = f"socket:[{inode}]"
    with suppress(OSError):
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                if str(descriptor.readlink()) == wanted:
                    return True
    return False
