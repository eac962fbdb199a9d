"""`bedside.toml`: the example is valid, units are read, and what is misspelt is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edgemed.base.errors import InputError
from edgemed.base.quantity import SECOND
from edgemed.cli import main as cli
from edgemed.serve.check import check
from edgemed.serve.config import load_config
from edgemed.serve.config.network import Tls
from tests.serve import kit

EXAMPLE = Path("examples/bedside/bedside.toml")


def test_the_example_is_valid_and_its_paths_are_its_own(repo: Path) -> None:
    config = load_config(repo / EXAMPLE)
    assert config.models[0].bundle == repo / "examples/bedside/chest.edgemed"
    assert config.models[0].deadline_ns == 10 * SECOND
    assert config.spool.reserve_bytes == 1 << 30
    assert config.destinations[0].retry.give_up_ns == 72 * 3600 * SECOND


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (("port = 11112", "prot = 11112"), "dicom.prot"),
        (('drain = "20s"', "drain = 0"), "daemon.drain"),
        (('deadline = "10s"', 'deadline = "10"'), "deadline.*not a duration"),
        (('max_object = "2GiB"', 'max_object = "2Gib"'), "not a size"),
        (('send_to = ["pacs", "ris"]', 'send_to = ["pax"]'), "pax, which is no destination"),
        (('model = "chest"\npolicy', 'model = "breast"\npolicy'), "breast, which is no model"),
        (('name = "liver"', 'name = "chest"'), "two of the models are named chest"),
        (('addresses = ["192.0.2.10"]', "addresses = []"), "dicom.peers.0.addresses"),
        (('addresses = ["192.0.2.10"]', 'addresses = ["192.0.2"]'), "dicom.peers.0.addresses"),
        (('ae_title = "CT_ROOM_2"', 'ae_title = "A TITLE THAT IS LONG"'), "ae_title"),
        (('kind = "hl7"', 'kind = "fax"'), "destinations"),
        (("warm_c = 85.0", "warm_c = nan"), "thermal.warm_c"),
    ],
)
def test_what_is_wrong_is_named(repo: Path, tmp_path: Path, change: tuple[str, str], what: str) -> None:
    text = (repo / EXAMPLE).read_text()
    assert change[0] in text
    path = tmp_path / "bedside.toml"
    path.write_text(text.replace(*change, 1))
    with pytest.raises(InputError, match=what):
        load_config(path)


def write(tmp_path: Path, bundle: str) -> Path:
    path = tmp_path / "bedside.toml"
    path.write_text(
        f'[daemon]\nstate = "state"\n[http]\nport = 0\n[[models]]\nname = "chest"\nbundle = "{bundle}"\n'
        "[trust]\nallow_unsigned = true\n"
    )
    return path


def test_check_looks_and_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kit.write_classifier(tmp_path / "chest.edgemed")
    path = write(tmp_path, "chest.edgemed")
    assert cli._run(["serve", str(path), "--check"]) == 0
    out = capsys.readouterr().out
    assert "✓ state" in out
    assert "! model chest" in out
    assert not (tmp_path / "state").exists()
    assert cli._run(["serve", str(path), "--check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]


def test_check_ends_with_the_code_of_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._run(["serve", str(write(tmp_path, "none.edgemed")), "--check"]) == 2
    assert "✗ model chest" in capsys.readouterr().out
    bundle = kit.write_classifier(tmp_path / "chest.edgemed")
    (bundle / "recipe.toml").write_text("# other")
    assert cli._run(["serve", str(write(tmp_path, "chest.edgemed")), "--check"]) == 5
    shutil.rmtree(bundle)
    assert cli._run(["serve"]) == 2


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"models": [{"name": "chest", "bundle": "chest.edgemed", "match": {"sop_classes": ["CTImage"]}}]}, "models"),
        ({"folders": [{"name": "drop", "path": "state/drop"}]}, "folders"),
    ],
)
def test_check_sees_what_would_stop_the_start(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    kit.write_classifier(tmp_path / "chest.edgemed")
    for section in change.get("models", []):
        section["bundle"] = tmp_path / section["bundle"]
    for section in change.get("folders", []):
        section["path"] = tmp_path / section["path"]
    assert what in [line.what for line in check(kit.bedside(tmp_path, **change)) if line.verdict == "error"]


def test_check_warns_of_folders_that_are_not_there(tmp_path: Path) -> None:
    shelf, drop = tmp_path / "shelf", tmp_path / "drop"
    config = kit.bedside(
        tmp_path,
        destinations=[{"name": "shelf", "kind": "folder", "path": shelf}],
        folders=[{"name": "drop", "path": drop}],
    )

    def missing() -> list[tuple[str, str]]:
        return [(line.what, line.verdict) for line in check(config) if line.text.endswith("is not there (yet).")]

    assert missing() == [("folder drop", "warning"), ("destination shelf", "warning")]
    shelf.mkdir()
    drop.mkdir()
    assert missing() == []


def test_a_name_that_is_not_looked_at_wants_an_authority_of_the_site() -> None:
    with pytest.raises(ValidationError, match="give a ca"):
        Tls(certificate=Path("a"), key=Path("b"), verify_host=False)


TLS = {"certificate": "us.pem", "key": "us.key"}
HL7 = {"kind": "hl7", "name": "his", "host": "192.0.2.1", "port": 2575}
CLEAR = {"kind": "dicomweb", "name": "archive", "url": "http://192.0.2.1/dicom-web"}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"http": {"host": "0.0.0.0", "port": 0, "tokens": "tokens"}}, "http"),
        ({"destinations": [CLEAR]}, "destination archive"),
        ({"destinations": [{**CLEAR, "kind": "webhook"}]}, "destination archive"),
        ({"destinations": [{**CLEAR, "url": "http://127.0.0.1:8042/dicom-web"}]}, None),
        ({"destinations": [{**CLEAR, "url": "http://localhost/dicom-web"}]}, None),
        ({"destinations": [{**CLEAR, "url": "https://192.0.2.1/dicom-web"}]}, None),
        ({"http": {"port": 0, "tokens": "tokens"}}, None),
        ({"dicom": {"host": "0.0.0.0", "port": 0}}, "dicom"),
        ({"dicom": {"host": "127.0.0.1", "port": 0}}, None),
        ({"dicom": {"host": "0.0.0.0", "port": 0, "tls": TLS}}, None),
        ({"destinations": [HL7]}, "destination his"),
        ({"destinations": [{**HL7, "host": "::1"}]}, None),
        ({"destinations": [{**HL7, "tls": TLS}]}, None),
        ({"destinations": [{**HL7, "kind": "dicom", "ae_title": "PACS"}]}, "destination his"),
        ({"destinations": [{**HL7, "kind": "dicom", "ae_title": "PACS", "host": "localhost"}]}, None),
        ({"destinations": [{**HL7, "kind": "dicom", "ae_title": "PACS", "tls": TLS}]}, None),
        ({"live": [{"name": "probe", "source": "rtsp://192.0.2.1/probe", "model": "chest"}]}, "live probe"),
        ({"live": [{"name": "probe", "source": "rtsp://127.0.0.1:8554/probe", "model": "chest"}]}, None),
        ({"live": [{"name": "probe", "source": "rtsps://192.0.2.1/probe", "model": "chest"}]}, None),
        ({"live": [{"name": "probe", "source": "/dev/video0", "model": "chest"}]}, None),
    ],
)
def test_check_warns_of_what_travels_in_clear(tmp_path: Path, change: dict[str, Any], what: str | None) -> None:
    (tmp_path / "tokens").touch()
    if "http" in change:
        change = {"http": {**change["http"], "tokens": tmp_path / "tokens"}}
    found = [line for line in check(kit.bedside(tmp_path, **change)) if "in clear" in line.text]
    assert [(line.what, line.verdict) for line in found] == ([] if what is None else [(what, "warning")])
