"""Which results go where, and what is refused when the configuration is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edgemed.serve.outlets.plan import destinations, forwarding
from tests.serve import kit

PACS = {"kind": "dicom", "name": "pacs", "ae_title": "PACS", "host": "pacs.local", "port": 104}
RIS = {"kind": "hl7", "name": "ris", "host": "ris.local", "port": 2575}
HOOK = {"kind": "webhook", "name": "hook", "url": "https://hook.local/in"}
FOLDER = {"kind": "folder", "name": "out", "path": "out"}


def configured(root: Path, model: dict[str, Any], *places: dict[str, Any]) -> Any:
    section = {"name": "chest", "bundle": root / "x.edgemed", "send_to": [p["name"] for p in places], **model}
    return kit.bedside(root, models=[section], destinations=list(places))


def test_each_kind_goes_to_who_can_carry_it(tmp_path: Path) -> None:
    config = configured(tmp_path, {"results": ["sr", "sc"]}, PACS, RIS, HOOK, FOLDER)
    assert destinations(config, config.models[0]) == {
        "pacs": ("sr", "sc"),
        "ris": ("json",),
        "hook": ("json",),
        "out": ("sr", "sc", "json"),
    }
    assert forwarding(config) == {}


def test_a_destination_may_want_less(tmp_path: Path) -> None:
    config = configured(tmp_path, {"results": ["sr", "sc"]}, {**PACS, "results": ["sc", "seg"]}, FOLDER)
    assert destinations(config, config.models[0]) == {"pacs": ("sc",), "out": ("sr", "sc", "json")}


def test_images_go_where_it_says_forward(tmp_path: Path) -> None:
    config = configured(tmp_path, {}, {**PACS, "forward": True}, FOLDER)
    assert forwarding(config) == {"pacs": ("image",)}


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([{**HOOK, "results": ["sr"]}], "webhook, which cannot carry sr"),
        ([{**RIS, "forward": True}], "hl7, which cannot carry images"),
        ([{**PACS, "results": ["seg"]}], "makes sr, json, none of which destination pacs takes"),
    ],
)
def test_what_could_never_be_delivered_is_refused(tmp_path: Path, places: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        configured(tmp_path, {}, *places)
