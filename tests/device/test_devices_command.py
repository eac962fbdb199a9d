"""`edgemed devices`: the table and its JSON."""

from __future__ import annotations

import json

import typer
from typer.testing import CliRunner

from edgemed.cli.devices import devices
from edgemed.device.profile import shipped_profiles

app = typer.Typer()
app.command()(devices)


def output(*arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_json_is_one_document_with_everything() -> None:
    document = json.loads(output("--json"))
    assert [device["id"] for device in document["devices"]] == [profile.id for profile in shipped_profiles()]
    assert set(document["here"]) == {"board", "gpu", "flavours"}
    assert "tensorrt_rtx" in document["here"]["flavours"]


def test_table_has_a_row_for_each_device_and_marks_what_is_unverified() -> None:
    lines = output().splitlines()
    rows = {line.split()[0]: line for line in lines if line}
    assert {profile.id for profile in shipped_profiles()} <= set(rows)
    assert [rows[name].split()[4] for name in ("tx2", "nano", "orin-nano-8gb")] == ["no?", "no", "yes"]
    assert "6.1-6.2.2: 10.3" in rows["orin-nano-8gb"]
    assert "7.2.2: 11.4+" in rows["thor-t5000"]
    assert lines[-1].startswith("This machine is ")
