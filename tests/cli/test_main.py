"""The command line as a process: exit codes, streams that fail, names that would steer the terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "edgemed"]


def run(
    *arguments: str | Path, cwd: Path | None = None, stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], cwd=cwd, stdout=stdout, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("arguments", [["nothing"], ["build"], ["devices", "--unknown"], ["run", "x.edgemed"]])
def test_wrong_usage_is_two_and_says_nothing_on_stdout(arguments):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Usage" in done.stderr


def test_results_that_cannot_be_written_are_an_environment_fault():
    with Path("/dev/full").open("w") as full:
        done = run("devices", "--json", stdout=full.fileno())
    assert done.returncode == 6
    assert "The disk is full" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_failed_gate():
    reading, writing = os.pipe()
    os.close(reading)
    done = run("devices", "--json", stdout=writing)
    os.close(writing)
    assert done.returncode == 141
    assert done.stderr == ""


def test_json_is_one_document_in_ascii():
    done = run("devices", "--json")
    assert done.returncode == 0
    assert done.stdout.isascii()
    json.loads(done.stdout)


@pytest.mark.parametrize("name", ["a[red]b.edgemed", "q[bold]b.edgemed", "e\x1b[2Jf.edgemed", "n\nm.edgemed"])
def test_names_neither_steer_the_terminal_nor_break_the_message(tmp_path, name):
    (tmp_path / name).mkdir()
    done = run("verify", name, cwd=tmp_path)
    assert done.returncode in (2, 5)
    assert "\x1b" not in done.stderr
    assert "what to do:" in done.stderr
    missing = run("verify", f"x{name}", cwd=tmp_path)
    assert missing.returncode == 2
    assert name.replace("\x1b", "\\x1b").replace("\n", "\\x0a") in missing.stderr


def test_help_shows_the_form_of_a_device():
    done = run("build", "--help")
    assert "NAME[@JETPACK]" in done.stdout
