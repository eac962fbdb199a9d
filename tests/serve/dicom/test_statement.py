"""The DICOM Conformance Statement held against real associations: what the page says is read off the page."""

from __future__ import annotations

import re
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import MPEG4HP41, UID
from pynetdicom import AE, evt
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)

from edgemed.base.quantity import SECOND
from edgemed.imaging.dicom.part10 import read_meta
from edgemed.serve.config.inlets import DicomSection, Peer
from edgemed.serve.dicom.reports import encode_report, send_report
from edgemed.serve.dicom.requestor import Wanted
from edgemed.serve.dicom.scu import Link, Target
from tests.serve import kit
from tests.serve.dicom import rig
from tests.waiting import wait_for

PAGE = (Path(__file__).parents[3] / "docs" / "dicom-conformance.md").read_text(encoding="utf-8")
COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
VERIFICATION, COMMITMENT = "1.2.840.10008.1.1", "1.2.840.10008.1.20.1"


def rows(*head: str) -> list[list[str]]:
    """Cells of the first table of the page with that head."""
    lines = PAGE.split("| " + " | ".join(head) + " |\n", 1)[1].splitlines()[1:]
    table = lines[: next((place for place, line in enumerate(lines) if not line.startswith("|")), len(lines))]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


IMAGES = [uid for _, uid in rows("SOP class", "UID")]
SYNTAXES = [uid for *_, uid in rows("", "transfer syntax", "UID")]
IMPLEMENTATION = {name: value.strip("`") for name, value in rows("implementation", "value")}
LIMITS = {what: limit for what, limit, _ in rows("what", "limit", "set by")}
STATUSES = {int(code, 16) for code, *_ in rows("status", "meaning", "when")}
MAY = [may.strip("`") for *_, may, _, _ in rows("SOP class", "UID", "peer's `may` has", "peer as SCU", "peer as SCP")]
PLAIN = SYNTAXES[:2]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory):
    peer = {**rig.MODALITY, "may": MAY}
    with rig.inlet(tmp_path_factory.mktemp("inlet"), peers=[peer]) as running:
        yield running


@rig.needs("echoscu")
@pytest.mark.parametrize(
    ("proposed", "taken"), [(1, "LittleEndianImplicit"), (2, "LittleEndianExplicit"), (38, "LittleEndianExplicit")]
)
def test_what_dcmtk_is_told(shared: rig.Rig, proposed: int, taken: str) -> None:
    said = rig.dcmtk(
        *("echoscu", "-d", "-pts", proposed, "-aet", "CT1", "-aec", "EDGEMED", "127.0.0.1", shared.port)
    ).partition("Association Parameters Negotiated")[2]
    assert f"Accepted Transfer Syntax: ={taken}" in said
    assert re.search(
        rf"Their Implementation Class UID: +{re.escape(IMPLEMENTATION['Implementation Class UID'])}\n", said
    )
    assert re.search(rf"Their Implementation Version Name: +{IMPLEMENTATION['Implementation Version Name']}\n", said)
    assert f"Application Context Name:    {IMPLEMENTATION['Application Context Name']}\n" in said
    size, unit = LIMITS["PDU that we receive (Maximum Length)"].split()
    assert f"Their Max PDU Receive Size:  {int(size) * {'KiB': 1024}[unit]}\n" in said


@rig.needs("storescu")
@pytest.mark.parametrize(
    ("option", "proposed"),
    [
        ("-xe", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2"]),
        ("-xb", ["1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]),
        ("-xi", ["1.2.840.10008.1.2"]),
        ("-xr", ["1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]),
    ],
)
def test_of_several_syntaxes_the_first_of_the_order_is_taken(
    shared: rig.Rig, tmp_path: Path, option: str, proposed: list[str]
) -> None:
    file = kit.write(kit.image(), tmp_path / "a.dcm")
    rig.storescu(shared.port, file, options=(option, "+C", "-R"))
    assert shared.rows()[-1]["syntax"] == next(uid for uid in SYNTAXES if uid in proposed)


def test_each_class_is_taken_in_each_syntax_and_no_other(shared: rig.Rig) -> None:
    backwards = SYNTAXES[::-1]
    assert accepted(shared, [(uid, backwards) for uid in IMAGES]) == dict.fromkeys(IMAGES, SYNTAXES[0])
    for place in range(len(SYNTAXES)):
        taken = accepted(shared, [(kit.CT, SYNTAXES[place:][::-1])])
        assert taken == {kit.CT: SYNTAXES[place]}
    assert accepted(shared, [(COMPREHENSIVE_SR, PLAIN), (kit.CT, [MPEG4HP41])]) == {}


def test_what_is_offered_besides_storage(shared: rig.Rig) -> None:
    for _, _, uid, named in rows("for", "abstract syntax", "UID", "transfer syntaxes"):
        if uid != "see below":
            order = [next(each for each in SYNTAXES if UID(each).name == name) for name in named.split(", ")]
            assert accepted(shared, [(uid, order[::-1])]) == {uid: order[0]}


def accepted(shared: rig.Rig, wanted: list[tuple[str, list[str]]]) -> dict[str, str]:
    """Transfer syntax by SOP class of what is accepted of some contexts."""
    entity = AE("CT1")
    for uid, syntaxes in wanted:
        entity.add_requested_context(uid, syntaxes)
    association = entity.associate("127.0.0.1", shared.port, ae_title="EDGEMED")
    found = {str(each.abstract_syntax): str(each.transfer_syntax[0]) for each in association.accepted_contexts}
    association.release()
    return found


def test_only_roles_are_negotiated(shared: rig.Rig) -> None:
    window, extended, identity = (
        AsynchronousOperationsWindowNegotiation(),
        SOPClassExtendedNegotiation(),
        UserIdentityNegotiation(),
    )
    window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 8
    extended.sop_class_uid, extended.service_class_application_information = kit.CT, b"\x02"
    identity.user_identity_type, identity.primary_field, identity.positive_response_requested = 1, b"anna", True
    entity = AE("CT1")
    entity.add_requested_context(kit.CT)
    association = entity.associate("127.0.0.1", shared.port, ae_title="EDGEMED", ext_neg=[window, extended, identity])
    assert association.is_established
    answered = {type(item).__name__ for item in association.acceptor.primitive.user_information}
    association.release()
    assert answered == {
        "MaximumLengthNotification",
        "ImplementationClassUIDNotification",
        "ImplementationVersionNameNotification",
    }


def test_who_we_say_we_are_where_we_ask(tmp_path: Path) -> None:
    seen = []
    entity = AE("PACS")
    entity.add_supported_context(COMMITMENT, scu_role=True, scp_role=True)
    said = lambda event: seen.append(event.assoc.requestor)  # noqa: E731
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_ESTABLISHED, said)])
    assert server is not None
    port = server.server_address[1]
    try:
        peer = Peer(ae_title="PACS", addresses=("127.0.0.1",), port=port)
        send_report(DicomSection(), peer, "127.0.0.1", 1, partial(encode_report, "1.2.3", [(kit.CT, "1.2.4")], []))
        with Link(Target("127.0.0.1", port, "PACS", "EDGEMED", SECOND, None), [Wanted(COMMITMENT, tuple(PLAIN))]):
            pass
        wait_for(lambda: len(seen) == 2)
    finally:
        server.shutdown()
    told = {(str(who.implementation_class_uid), who.implementation_version_name) for who in seen}
    assert told == {tuple(IMPLEMENTATION[f"Implementation {part}"] for part in ("Class UID", "Version Name"))}


def test_statuses_are_those_of_the_page(shared: rig.Rig, tmp_path: Path) -> None:
    ds, other = kit.image(), kit.image(level=90)
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    uid = str(ds.SOPInstanceUID)
    with rig.raw(shared.port) as peer:
        peer.send(rig.associate((kit.CT, [rig.EXPLICIT]), (VERIFICATION, PLAIN))).pdu()
        seen = [
            peer.send(rig.p_data((context, 3, rig.store_command(sop_class, instance)), (context, 2, body))).status()
            for context, sop_class, instance, body in (
                (1, kit.CT, uid, data_set(ds)),
                (1, kit.CT, uid, data_set(ds)),
                (1, kit.CT, uid, data_set(other)),
                (1, kit.CT, "1.2.3", data_set(ds)),
                (1, kit.CR, uid, data_set(ds)),
                (1, kit.CT, "", data_set(ds)),
                (1, kit.CT, "1.2.4", b"no data set, but long enough to be one"),
                (3, kit.CT, uid, data_set(ds)),
            )
        ]
        peer.send(rig.p_data((1, 3, rig.echo_command())))
        seen.append(peer.status())
        find = rig.store_command(kit.CT, uid, data=False).replace(
            rig.element(0x0100, b"\1\0"), rig.element(0x0100, b"\x20\0")
        )
        seen.append(peer.send(rig.p_data((1, 3, find))).status())
    assert seen == [0, 0, 0xC111, 0xA900, 0x0122, 0x0117, 0xC000, 0x0122, 0x0122, 0x0211]
    assert set(seen) <= STATUSES


def data_set(ds: Dataset) -> bytes:
    data = kit.encode(ds)
    return data[read_meta(BytesIO(data)).offset :]
