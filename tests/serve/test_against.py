"""The journal against archives: Orthanc by C-FIND and QIDO-RS, a PACS on pynetdicom, and those that cannot be asked."""

from __future__ import annotations

import json
import socket
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as StudyRoot

from edgemed.base.errors import GateError, ResourceError, UsageError
from edgemed.cli.app import invoke
from edgemed.imaging.dicom.syntaxes import SYNTAXES
from edgemed.serve.against import hold_against
from edgemed.serve.audit.left import Collector
from edgemed.serve.audit.trail import AuditEvent
from edgemed.serve.config import Config
from edgemed.serve.dicom import scu
from edgemed.serve.dicom.reports import parse_data_set
from edgemed.serve.journal.records import move_delivery
from tests.serve import kit
from tests.serve.dicom.orthanc import needs_orthanc, orthanc
from tests.serve.netns import private_network
from tests.serve.outlets import bench
from tests.serve.outlets.servers import site

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
Found = list[tuple[int, Dataset | None]]


def delivered(root: Path, count: int, *destinations: dict[str, Any]) -> tuple[Config, list[bytes]]:
    """A journal by which so many results, each in a series of its own, were delivered; and their files."""
    study, files = generate_uid(), []
    with bench.services(root, *destinations) as services:
        for _ in range(count):
            ds = kit.image(rows=8, columns=8, study=study)
            files.append(kit.encode(ds))
            bench.add_task(services, [("sr", ds.SOPInstanceUID, files[-1])], subject=ds.SOPInstanceUID)
        numbers = range(1, count * len(destinations) + 1)
        services.journal.write(lambda c: [move_delivery(c, number, "delivered") for number in numbers])
        services.journal.write(lambda c: c.execute("UPDATE object SET study = ?, path = ''", (study,)))
        return services.config, files


def pacs_at(port: int) -> dict[str, Any]:
    retry = {"timeout": "5s"}
    return {"kind": "dicom", "name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port, "retry": retry}


@contextmanager
def scp(find: Callable[[Dataset], Found], sop_class: str = StudyRoot) -> Iterator[tuple[int, list[Dataset]]]:
    """A PACS that answers queries by a function; its port, and what it was asked."""
    asked: list[Dataset] = []
    sockets: set[socket.socket] = set()

    def handle(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        sockets.add(event.assoc.dul.socket.socket)
        asked.append(event.identifier)
        yield from find(event.identifier)

    ae = AE("PACS")
    ae.add_supported_context(sop_class)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, handle)])
    assert server is not None
    try:
        yield server.socket.getsockname()[1], asked
    finally:
        server.shutdown()
        for sock in sockets:  # pynetdicom leaves that of a peer who aborts to the garbage collector
            sock.close()


@needs_orthanc
@pytest.mark.skipif(not PLUGIN.exists(), reason="not installed: orthanc-dicomweb")
def test_orthanc_by_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    us = {"AET": "EDGEMED", "Host": "127.0.0.1", "Port": 11112}
    pacs = {"kind": "dicom", "name": "pacs", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": 4242}
    web = {"kind": "dicomweb", "name": "web", "url": "http://127.0.0.1:8042/dicom-web"}
    with private_network(), orthanc(tmp_path / "orthanc", {"us": us}, Plugins=[str(PLUGIN)]) as peer:
        config, files = delivered(tmp_path, 3, pacs, web)
        ours = tmp_path / "bedside.toml"
        ours.write_text(
            f'[daemon]\nstate = "{config.daemon.state}"\n[[models]]\nname = "chest"\nbundle = "x"\n'
            'send_to = ["pacs", "web"]\n'
            '[[destinations]]\nkind = "dicom"\nname = "pacs"\nae_title = "ORTHANC"\nhost = "127.0.0.1"\nport = 4242\n'
            '[[destinations]]\nkind = "dicomweb"\nname = "web"\nurl = "http://127.0.0.1:8042/dicom-web"\n'
        )
        numbers = [peer.post("/instances", file)["ID"] for file in files]
        found = hold_against(config)
        assert (found.asked, found.missing) == ({"pacs": 3, "web": 3}, [])
        peer._client.delete(f"/instances/{numbers[1]}").raise_for_status()
        found = hold_against(config)
        assert [(one.destination, one.result) for one in found.missing] == [("pacs", 2), ("web", 2)]
        for file in (config.daemon.state / "results").glob("*/*/*"):  # after its time
            file.unlink()
        with bench.services(tmp_path, pacs, web) as services:
            services.journal.write(lambda c: c.execute("UPDATE result SET path = ''"))
        found = hold_against(config)
        assert [(one.destination, one.result) for one in found.missing] == [("pacs", 2), ("web", 2)]
        with pytest.raises(GateError, match="2 results are called delivered, and not in the archive"):
            invoke(["reconcile", str(ours), "--against-pacs", "--json"])
        document = json.loads(capsys.readouterr().out)
        assert document["asked"] == {"pacs": 3, "web": 3}
        assert [one["result"] for one in document["missing"]] == [2, 2]


def test_a_pacs_that_wants_to_be_led_down(tmp_path: Path) -> None:
    """It is given study and series; and what overlooks the key of the instance is not believed."""
    with scp(lambda query: [(0xFF00, query), (0, None)]) as (port, asked):
        config, _ = delivered(tmp_path, 2, pacs_at(port))
        assert hold_against(config).missing == []
    for query in asked:
        assert query.QueryRetrieveLevel == "IMAGE"
        assert query.StudyInstanceUID
        assert query.SeriesInstanceUID
        assert query.SOPInstanceUID
    other = Dataset()
    other.SOPInstanceUID = "1.2.3"
    with scp(lambda _: [(0xFF00, other), (0xFF01, other), (0, None)]) as (port, _):
        config = config.model_copy(update={"destinations": (config.destinations[0].model_copy(update={"port": port}),)})
        assert len(hold_against(config).missing) == 2


@pytest.mark.parametrize(
    ("find", "sop_class", "why"),
    [
        (lambda _: [(0xA700, None)], StudyRoot, "0xA700"),
        (lambda query: [(0xFF00, query)] * 5 + [(0, None)], StudyRoot, "by hundreds"),
        (lambda _: [], "1.2.840.10008.1.1", "takes no queries"),
    ],
)
def test_a_pacs_that_does_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, find: Any, sop_class: str, why: str
) -> None:
    monkeypatch.setattr(scu, "MOST_MATCHES", 4)
    with scp(find, sop_class) as (port, _):
        config, _ = delivered(tmp_path, 1, pacs_at(port))
        with pytest.raises(ResourceError, match=f"pacs cannot be asked what it has: .*{why}") as caught:
            hold_against(config)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ((404, {}, b""), "HTTP 404"),
        ((400, {}, b""), "HTTP 400"),
        ((200, {}, b"<html>"), "no DICOM JSON"),
        ((200, {}, b'[{"00080018": 1}]'), "no DICOM JSON"),
    ],
)
def test_a_service_that_does_not_say(tmp_path: Path, reply: Any, why: str) -> None:
    with site(lambda _: reply) as made:
        web = {"kind": "dicomweb", "name": "web", "url": f"http://127.0.0.1:{made.port}/dicom-web"}
        config, _ = delivered(tmp_path, 1, web)
        with pytest.raises(ResourceError, match=f"web cannot be asked what it has: .*{why}"):
            hold_against(config)


def test_a_service_that_has_nothing(tmp_path: Path) -> None:
    with site(lambda _: (204, {}, b"")) as made:
        token = tmp_path / "token"
        token.write_text("secret\n")
        web = {"kind": "dicomweb", "name": "web", "url": f"http://127.0.0.1:{made.port}/dicom-web", "token": token}
        config, _ = delivered(tmp_path, 1, web)
        assert len(hold_against(config).missing) == 1
    assert made.asked[0].path.startswith("/dicom-web/instances?StudyInstanceUID=")
    assert made.asked[0].headers["authorization"] == "Bearer secret"
    (event,) = left_for_the_trail(config)
    assert (event.kind, event.user, event.subject) == ("queried", "web", web["url"])
    assert made.asked[0].path == "/dicom-web" + b64decode(event.query).decode()


def test_each_query_is_left_for_the_audit_trail(tmp_path: Path) -> None:
    with scp(lambda asked: []) as (port, asked):
        config, _ = delivered(tmp_path, 2, pacs_at(port))
        hold_against(config)
    events = left_for_the_trail(config)
    assert [event.user for event in events] == ["pacs", "pacs"]
    assert {event.subject for event in events} == {StudyRoot}
    queries = [parse_data_set(b64decode(event.query), SYNTAXES[event.syntax]) for event in events]
    assert [query.SOPInstanceUID for query in queries] == [one.SOPInstanceUID for one in asked]


def left_for_the_trail(config: Config) -> list[AuditEvent]:
    events: list[AuditEvent] = []

    class Kept:
        def record_all(self, given: Sequence[AuditEvent]) -> None:
            events.extend(given)

    Collector(config.daemon.state, Kept()).look()
    return events


def test_nobody_there(tmp_path: Path) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        config, _ = delivered(tmp_path, 1, pacs_at(unheard.getsockname()[1]))
        with pytest.raises(ResourceError, match="It takes no connection"):
            hold_against(config)
    with pytest.raises(UsageError, match="where archives are"):
        invoke(["reconcile", str(config.daemon.state), "--against-pacs"])
