"""What is kept of requests and answers: the same to who asks for the same, to each what it may have."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from pynetdicom.ae import ApplicationEntity as AE
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.presentation import build_context

from edgemed.serve.dicom import negotiation
from edgemed.serve.dicom.negotiation import Accepted, Offer, accept, parse_request
from edgemed.serve.dicom.wire import Malformed

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
LITTLE = "1.2.840.10008.1.2.1"


def request(calling: str = "SCANNER", classes: tuple[str, ...] = (CT, MR)) -> bytes:
    asked = A_ASSOCIATE()
    asked.application_context_name = negotiation.APPLICATION_CONTEXT
    asked.calling_ae_title, asked.called_ae_title = calling, "EDGEMED"
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16384
    implementation.implementation_class_uid = AE().implementation_class_uid
    asked.user_information = [length, implementation]
    contexts = [build_context(uid, LITTLE) for uid in classes]
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    asked.presentation_context_definition_list = contexts
    return bytes(A_ASSOCIATE_RQ(asked).encode())


def offer(*classes: str) -> Offer:
    return Offer(tuple(build_context(uid, LITTLE) for uid in classes))


def classes(answer: tuple[bytes, Mapping[int, Accepted]]) -> set[str]:
    return {context.sop_class for context in answer[1].values()}


def test_the_same_request_has_the_same_answer_but_only_from_the_same_offer() -> None:
    asked, again = parse_request(request()), parse_request(bytes(bytearray(request())))
    both, one = offer(CT, MR), offer(MR)
    assert again is asked
    assert accept(again, both, 16384) is accept(asked, both, 16384)
    assert classes(accept(asked, both, 16384)) == {CT, MR}
    assert classes(accept(asked, one, 16384)) == {MR}
    assert accept(asked, both, 16384)[0] != accept(asked, both, 32768)[0]
    assert classes(accept(parse_request(request("OTHER")), offer(CT), 16384)) == {CT}


def test_what_is_damaged_is_refused_each_time() -> None:
    for _ in range(2):
        with pytest.raises(Malformed):
            parse_request(request()[:100])


def test_the_largest_requests_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negotiation, "_KEPT_BYTES", 100)
    data = request("LARGE")
    assert parse_request(data) is not parse_request(data)
