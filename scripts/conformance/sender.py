"""What we send, ask, and make of the answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from edgemed.serve.against import Delivered
from edgemed.serve.dicom.contexts import PLAIN
from edgemed.serve.dicom.find import STUDY_ROOT_FIND, query_of
from edgemed.serve.dicom.sender import DicomCourier, proposed
from edgemed.serve.outlets.plan import IMAGE
from edgemed.serve.outlets.status import of_status
from scripts.conformance.objects import meta_of, results
from scripts.conformance.tables import name_of, ranges, status, table

_SAID: Final = {
    "delivered": "delivered",
    "later": "tried again, after a pause",
    "refused": "failed at once: an alarm stands, the object is kept",
}


def proposals() -> str:
    """Presentation contexts of what we have made."""
    rows = []
    for result in results():
        several = proposed(result.kind, meta_of(result))
        syntaxes = "; ".join(", ".join(map(name_of, wanted.syntaxes)) for wanted in several)
        rows.append((name_of(result.sop_class), result.sop_class, syntaxes))
    return table(("abstract syntax", "UID", "transfer syntax of each context"), rows)


def answers() -> str:
    """What every one of the 65,536 statuses means for us, of results and of images that are sent on."""
    found: dict[tuple[str, str], dict[str, list[int]]] = {}
    for kind in ("sr", IMAGE):
        for code in range(0x10000):
            outcome = of_status(code, kind)
            reason = outcome.reason.replace(f"0x{code:04X}", "").replace(" ()", "").rstrip(": .")
            found.setdefault((outcome.verdict, reason), {}).setdefault(kind, []).append(code)
    most = max(found, key=lambda key: sum(map(len, found[key].values())))
    rows = []
    for (verdict, reason), codes in found.items():
        both = list(codes.values())
        of = "" if len(both) == 2 and both[0] == both[1] else " / ".join(_KINDS[kind] for kind in codes)
        which = "all others" if (verdict, reason) == most else ranges(both[0], status)
        rows.append((which, "" if which == "all others" else of, _SAID[verdict], reason))
    rows.sort(key=lambda row: (row[0] == "all others", row[0]))
    return table(("status", "of", "it is", "because"), rows)


_KINDS: Final = {"sr": "a result", IMAGE: "an image"}


def keys() -> str:
    """Of a query."""
    one = Delivered(1, "pacs", 1, 1, "sr", "1.2.3", "1.2", None)
    return table(
        ("key", "tag", "value"),
        [
            (element.name, str(element.tag), str(element.value) if element.keyword == "QueryRetrieveLevel" else _KEYS)
            for element in query_of(one)
        ],
    )


_KEYS: Final = "that of the instance; empty where it is not known"

FILLS: Final[dict[str, Callable[[], str]]] = {
    "most_together": lambda: str(DicomCourier.most),
    "proposals": proposals,
    "store_answers": answers,
    "find_class": lambda: f"{name_of(STUDY_ROOT_FIND)} ({STUDY_ROOT_FIND})",
    "find_syntaxes": lambda: ", ".join(map(name_of, PLAIN)),
    "find_keys": keys,
}
