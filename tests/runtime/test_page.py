"""docs/runtime.md: its Python runs as it stands there, its commands parse, its table of options is the command's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from evaluate.bundles import write_bundle
from evaluate.hostile import with_golden
from runtime.sources import videos

from edgemed.cli.app import app
from edgemed.runtime.frames import DROP_REASONS
from edgemed.runtime.policy import Policy
from edgemed.runtime.sources.open import parse_address
from edgemed.runtime.sources.video import SUFFIXES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "runtime.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_python_shown_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_golden(write_bundle(tmp_path / "model.edgemed", boundaries={"float": 0.4, "int8": 0.41}))
    videos.write(tmp_path / "cine.mp4", 25)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks("python"):
        exec(compile(block, "docs/runtime.md", "exec"), names)
    assert len(names["scores"]) == 25
    assert names["seen"] == sorted(names["seen"])
    assert names["seen"][-1] == 24  # the newest frame is never superseded
    assert names["answered"] == list(range(25))
    assert names["answer"].outputs["score"].shape == (1, 1)
    assert names["mark"].number == 7
    assert (names["reply"].info.backend, names["reply"].tries) == ("onnxruntime", 1)
    assert len(names["answers"]) == 25
    assert (names["count"], str(names["fill"].way)) == (25, "CPU")  # here is no engine


def test_the_commands_shown_parse() -> None:
    import typer

    command: Any = typer.main.get_command(app)
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    lines += [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines() if line[0] == "$"]
    kinds = set()
    for line in lines:
        words = shlex.split(line.partition(" > ")[0])
        assert words[0] == "edgemed"
        parsed = command.commands[words[1]].make_context(words[1], words[2:])
        if words[1] != "run":
            continue
        if parsed.params["policy"] is not None:
            Policy.parse(parsed.params["policy"])
        kinds |= {parse_address(text).kind for text in parsed.params["inputs"]}
    assert kinds == {"video", "v4l2", "network", "gst", "file"}


def test_options_policies_and_reasons_are_described() -> None:
    import typer

    command: Any = typer.main.get_command(app)
    streams = {
        option.opts[0]
        for option in command.commands["run"].params
        if getattr(option, "rich_help_panel", "") == "Streams"
    }
    words = set(re.findall(r"--[a-z]+", PAGE))
    assert streams - words == set()
    for reason in DROP_REASONS:
        assert f"*{reason}*" in PAGE or f"`{reason}`" in PAGE
    for text in re.findall(r"^\| `(lossless|latest|every-\d|deadline:\w+)` \|", PAGE, re.MULTILINE):
        assert str(Policy.parse(text)) == text
    shown = re.findall(r"also ([a-z, ]+), …", PAGE)[0].split(", ")
    assert {f".{suffix}" for suffix in shown} <= SUFFIXES
