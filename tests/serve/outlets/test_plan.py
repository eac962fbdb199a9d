"""Which results go where, and what is refused when the configuration is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edgemed.base.errors import InputError
from edgemed.serve.check import check
from edgemed.serve.clock import utc
from edgemed.serve.config import load_config
from edgemed.serve.outlets.plan import destinations
from edgemed.serve.outlets.webhook import signature
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


def test_a_destination_may_want_less(tmp_path: Path) -> None:
    config = configured(tmp_path, {"results": ["sr", "sc"]}, {**PACS, "results": ["sc", "seg"]}, FOLDER)
    assert destinations(config, config.models[0]) == {"pacs": ("sc",), "out": ("sr", "sc", "json")}


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


PAGE = Path(__file__).parents[3] / "docs" / "serve-outlets.md"


def block(language: str) -> str:
    return PAGE.read_text().split(f"```{language}\n")[1].split("```")[0]


def test_the_configuration_of_the_page_is_one(tmp_path: Path) -> None:
    file = tmp_path / "bedside.toml"
    file.write_text('[daemon]\nstate = "state"\n' + block("toml"))
    config = load_config(file)
    assert [place.kind for place in config.destinations] == ["dicom", "dicomweb", "webhook", "hl7", "folder"]
    file.write_text(file.read_text().replace('send_to = ["pacs", ', 'send_to = ["pacs2", '))
    with pytest.raises(InputError, match=r"bedside.toml: model chest sends to pacs2, which is no destination"):
        load_config(file)


def test_a_secret_that_is_not_there_is_found_by_the_check(tmp_path: Path) -> None:
    config = configured(tmp_path, {}, {**HOOK, "secret": tmp_path / "none"})
    lines = [line for line in check(config) if line.what == "destination hook"]
    assert [(line.verdict, line.text) for line in lines] == [
        (
            "error",
            "Destination hook: The file of its token or secret cannot be read."
            f" Write it into {tmp_path / 'none'}, as one line.",
        )
    ]


def test_the_check_of_the_page_knows_our_signature() -> None:
    names: dict[str, Any] = {}
    exec(block("python"), names)
    now = int(utc().timestamp())
    good = signature("s3cret", now, b"{}")
    assert names["is_ours"](b"s3cret", good, b"{}")
    assert not names["is_ours"](b"s3cret", good, b"[]")
    assert not names["is_ours"](b"other", good, b"{}")
    assert not names["is_ours"](b"s3cret", signature("s3cret", now - 600, b"{}"), b"{}")
