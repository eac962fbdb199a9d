"""C-ECHO, C-STORE, storage commitment and procedure steps for the peers that are named."""

from __future__ import annotations

import logging
import socket
import threading
import time
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from typing import Final

from edgemed.base.errors import ResourceError
from edgemed.base.quantity import SECOND
from edgemed.serve.config.inlets import DicomSection
from edgemed.serve.dicom import commands
from edgemed.serve.dicom.admission import Admission
from edgemed.serve.dicom.association import Asked, Association, House
from edgemed.serve.dicom.commitment import INVALID_ARGUMENT, Commitments
from edgemed.serve.dicom.commitments import take_report
from edgemed.serve.dicom.contexts import COMMITMENT, PROCEDURE_STEP
from edgemed.serve.dicom.ledger import Ledger
from edgemed.serve.dicom.reports import parse_data_set
from edgemed.serve.dicom.steps import take_step
from edgemed.serve.dicom.store import UNRECOGNIZED_OPERATION, Status
from edgemed.serve.dicom.strangers import Strangers
from edgemed.serve.loops import Beat
from edgemed.serve.renewal import teller
from edgemed.serve.services import Services
from edgemed.serve.tls import Certificates

log = logging.getLogger(__name__)

_BACKLOG: Final = 128
_SLICE_S: Final = 0.5
_PAUSE_S: Final = 0.1  # after an error to accept: the handles may be used up
_LAST_NS: Final = 2 * SECOND  # for threads of connections that were closed


class DicomInlet:
    """C-ECHO, C-STORE, storage commitment and procedure steps for the peers that are named."""

    name = "dicom"

    def __init__(self, services: Services) -> None:
        self._services = services
        self._section: DicomSection | None = services.config.dicom
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._open: dict[Association, threading.Thread] = {}
        self._listener: socket.socket | None = None
        self._certificates: Certificates | None = None
        self._drained_ns = 0

    @property
    def port(self) -> int:
        """The port that it listens on; 0 where it does not."""
        return self._listener.getsockname()[1] if self._listener is not None else 0

    def addresses(self) -> list[str]:
        """Where it listens, and as whom."""
        if self._section is None or self._listener is None:
            return []
        return [f"dicom://{self._section.ae_title}@{self._section.host}:{self.port}"]

    def start(self) -> None:
        """Listen.

        Raises:
            UsageError: a SOP class of a peer is none.
            InputError: the certificate cannot be used.
            ResourceError: the port is taken.
        """
        section = self._section
        if section is None:
            return
        services = self._services
        admission = Admission(section, services.config)
        self._commitments = Commitments(services, section)
        self._house = House(
            services, section, admission, self._commitments.opened, self._other, self._ending, Strangers(services.audit)
        )
        if section.tls is not None:
            self._certificates = Certificates(section.tls, teller(services.alarms, "certificate of dicom"))
        self._listener = _listen(section)
        log.info("%s listens on port %d", section.ae_title, self.port)
        self._commitments.start()
        services.loops.start("dicom", self._accept)

    def reload(self) -> None:
        """Look at the certificates; also done twice a second."""
        if self._certificates is not None:
            _ = self._certificates.context

    def drain(self) -> None:
        """Take nothing new: associations end with the message that is under way."""
        self._drained_ns = time.monotonic_ns()
        self._ending.set()

    def stop(self) -> None:
        """Wait for associations as long as the daemon drains, then close what is left."""
        self._ending.set()
        if self._listener is not None:
            self._listener.close()
        self._join(self._drained_ns + self._services.config.daemon.drain_ns)
        for association in list(self._open):
            association.interrupt()
        self._join(time.monotonic_ns() + _LAST_NS)

    def _join(self, end_ns: int) -> None:
        with self._lock:
            threads = list(self._open.values())
        for thread in threads:
            thread.join(max(0.0, (end_ns - time.monotonic_ns()) / SECOND))

    def _accept(self, beat: Beat) -> None:
        listener = self._listener
        assert listener is not None
        while not self._ending.is_set() and not beat.stopping.is_set():
            beat()
            self.reload()
            self._house.strangers.look()
            try:
                sock, name = listener.accept()
            except TimeoutError:  # nobody waits
                self._opens(None)
                continue
            except OSError as error:
                if self._ending.is_set():
                    return
                self._opens(f"A connection could not be accepted: {error.strerror}.")
                beat.wait(_PAUSE_S)
                continue
            self._opens(self._welcome(sock, _plain(name[0])))

    def _opens(self, why_not: str | None) -> None:
        """Let an alarm stand for as long as nobody can connect."""
        alarms = self._services.alarms
        if why_not is None:
            alarms.clear("inlet-lost", self.name)
        elif not alarms.stands("inlet-lost", self.name):
            alarms.raise_("inlet-lost", f"{why_not} It is tried again.", self.name)

    def _welcome(self, sock: socket.socket, address: str) -> str | None:
        """Give a connection a thread, if there may be one from that address; why that cannot be, if it cannot."""
        admission = self._house.admission
        if not admission.enter(address):
            sock.close()
            Ledger(self._services, self._house.strangers, address).turned_away("address")
            return None
        association = Association(self._house, sock, address)
        thread = threading.Thread(target=self._run, args=(association,), name="association", daemon=True)
        with self._lock:
            self._open[association] = thread
        try:
            with suppress(OSError):  # the peer is gone already
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread.start()
        except RuntimeError:
            self._forget(association)
            admission.leave(address)
            sock.close()
            return "A connection was closed: there can be no more threads."
        return None

    def _run(self, association: Association) -> None:
        try:
            association.run(self._certificates.context if self._certificates is not None else None)
        finally:
            self._forget(association)

    def _forget(self, association: Association) -> None:
        with self._lock:
            self._open.pop(association, None)

    def _other(self, asked: Asked) -> Status:
        """What is neither C-ECHO nor C-STORE."""
        command = asked.command
        if asked.context.sop_class == COMMITMENT and command.field == commands.N_ACTION and asked.context.as_scp:
            return self._commitments.take(asked)
        if asked.context.sop_class == COMMITMENT and command.field == commands.N_EVENT_REPORT:
            return self._report_of_destination(asked)
        if asked.context.sop_class == PROCEDURE_STEP and command.field in (commands.N_CREATE, commands.N_SET):
            return take_step(self._services, asked)
        log.info("%s asks for what is not offered: 0x%04X", asked.guest.ae_title, asked.command.field)
        return Status(UNRECOGNIZED_OPERATION)

    def _report_of_destination(self, asked: Asked) -> Status:
        """A destination tells whether it keeps what it was sent."""
        try:
            information = parse_data_set(asked.data, asked.context.syntax)
        except ValueError as error:
            return Status(INVALID_ARGUMENT, str(error))
        return Status(take_report(self._services, asked.guest.ae_title, information))


def _listen(section: DicomSection) -> socket.socket:
    try:
        address = socket.getaddrinfo(section.host, section.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(address[0], socket.SOCK_STREAM)
    except OSError as error:
        raise ResourceError(f"There is no address {section.host} here.", "Correct `host` of [dicom].") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address[4])
        listener.listen(_BACKLOG)
        listener.settimeout(_SLICE_S)
    except OSError as error:
        listener.close()
        raise ResourceError(
            f"The DICOM port {section.port} of {section.host} cannot be listened on: {error.strerror}.",
            "Choose another `port` in [dicom], or end the program that has it.",
        ) from error
    return listener


def _plain(address: str) -> str:
    """An IPv4 address that came by IPv6 is what it was."""
    found = ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return str(mapped or found)
