"""The command line as a process: exit codes, signals, streams that fail, names that would steer the terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from evaluate.bundles import write_bundle, write_images
from evaluate.hostile import with_golden

from edgemed.base.child import package_environment

COMMAND = [sys.executable, "-m", "edgemed"]


def run(
    *arguments: str | Path, cwd: Path | None = None, stdout: int = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sound bundle and one image."""
    folder = tmp_path_factory.mktemp("user")
    with_golden(write_bundle(folder / "little.edgemed", boundaries={"float": 0.5}))
    image = next(write_images(folder / "data", {"a": [100]}).rglob("*.png"))
    image.rename(folder / "image.png")
    return folder


@pytest.mark.parametrize("arguments", [["nothing"], ["build"], ["devices", "--unknown"], ["run", "x.edgemed"]])
def test_wrong_usage_is_two_and_says_nothing_on_stdout(arguments):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "error: " in done.stderr
    assert "what to do: Usage: edgemed" in done.stderr


def test_no_arguments_show_the_help_and_are_wrong_usage():
    done = run()
    assert done.returncode == 2
    assert "COMMAND" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", ""],
        ["build", ""],
        ["run", "x.edgemed", ""],
        ["build", "m.h5", "--output", ""],
        ["build", "--recipe="],
    ],
)
def test_an_empty_argument_is_not_the_working_directory(folder, arguments):
    done = run(*arguments, cwd=folder / "little.edgemed")
    assert done.returncode == 2
    assert "is empty" in done.stderr


@pytest.mark.parametrize("command", ["build", "inspect", "verify"])
def test_a_name_that_no_file_can_have_is_wrong_input(command):
    done = run(command, "a" * 300)
    assert done.returncode == 2
    assert "cannot be looked up: File name too long" in done.stderr


def test_files_that_never_end_are_refused(folder):
    reading, writing = os.pipe()
    done = subprocess.run(
        [*COMMAND, "run", "little.edgemed", f"/dev/fd/{reading}"],
        cwd=folder,
        pass_fds=[reading],
        capture_output=True,
        text=True,
        timeout=60,
    )
    os.close(reading)
    os.close(writing)
    assert done.returncode == 2
    assert "is not a regular file" in done.stderr


@pytest.mark.parametrize("arguments", [["devices"], ["devices", "--json"], ["--help"], ["--version"]])
def test_results_that_cannot_be_written_are_an_environment_fault(arguments):
    with Path("/dev/full").open("w") as full:
        done = run(*arguments, stdout=full.fileno())
    assert done.returncode == 6
    assert done.stderr.startswith("error: The disk is full.\nwhat to do: ")
    assert "Exception" not in done.stderr


@pytest.mark.parametrize("arguments", [["devices"], ["devices", "--json"], ["--help"], ["--version"]])
def test_a_reader_that_goes_away_is_no_failed_gate(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    done = run(*arguments, stdout=writing)
    os.close(writing)
    assert done.returncode == 141
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", ["devices", "devices --json"])
def test_a_closed_stdout_is_an_environment_fault(arguments):
    command = f"exec {sys.executable} -m edgemed {arguments} >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 6
    assert done.stderr.startswith("error: Standard output is closed.")


def test_a_closed_stderr_changes_no_code(folder):
    command = f"exec {sys.executable} -m edgemed inspect none 2>&-"
    assert subprocess.run(["sh", "-c", command], cwd=folder).returncode == 2


def test_json_is_one_document_in_ascii(folder):
    name = os.fsdecode(b"image \xff \xc3\xa9.png")
    shutil.copy(folder / "image.png", folder / name)
    done = run("run", "little.edgemed", name, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert json.loads(done.stdout)["results"][0]["file"] == name


def test_a_poor_encoding_is_no_failure(folder):
    done = run("inspect", "little.edgemed", cwd=folder, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert r"1\xd74\xd74\xd71" in done.stdout


def test_a_pipe_has_no_edge_to_wrap_at(folder):
    name = "n" * 150 + ".edgemed"
    shutil.copytree(folder / "little.edgemed", folder / name)
    (line,) = run("verify", name, cwd=folder, COLUMNS="80").stdout.splitlines()
    assert line.startswith(f"{name} is whole: sha256 ")
    lines = run("inspect", "little.edgemed", cwd=folder, COLUMNS="20").stdout.splitlines()
    assert [line.split()[-1] for line in lines if line.startswith("source sha256")] == ["1" * 64]
    assert all(line == line.rstrip() for line in lines)


def test_a_terminal_wraps(folder):
    ours, theirs = pty.openpty()
    done = run("inspect", "little.edgemed", cwd=folder, stdout=theirs, COLUMNS="40")
    os.close(theirs)
    assert done.returncode == 0, done.stderr
    lines = re.sub(r"\x1b\[\d*m", "", os.read(ours, 1 << 16).decode()).splitlines()
    os.close(ours)
    assert max(map(len, lines)) <= 40


@pytest.mark.parametrize(
    "name", ["a[red]b.edgemed", "q[/]b.edgemed", "b\\[x.edgemed", "e\x1b[2Jf.edgemed", "n\nm.edgemed"]
)
def test_names_neither_steer_the_terminal_nor_break_the_message(tmp_path, folder, name):
    shutil.copytree(folder / "little.edgemed", tmp_path / name)
    done = run("verify", name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = name.replace("\x1b", "\\x1b").replace("\n", "\\x0a")
    assert done.stdout.startswith(f"{shown} is whole")
    missing = run("verify", f"x{name}", cwd=tmp_path)
    assert missing.returncode == 2
    assert f"error: x{shown} does not exist." in missing.stderr
    assert "\x1b" not in done.stdout + done.stderr + missing.stderr


def test_no_option_steers_the_terminal():
    done = run("\x1b[2J[red]")
    assert done.returncode == 2
    assert r"\x1b[2J[red]" in done.stderr


def test_help_shows_how_arguments_are_written():
    shown = run("build", "--help").stdout
    assert "NAME[@JETPACK]" in shown
    assert "edgemed build [OPTIONS] MODEL" in shown
    assert "edgemed run [OPTIONS] BUNDLE INPUTS..." in run("run", "--help").stdout
    assert "edgemed evaluate [OPTIONS] BUNDLE DATA" in run("evaluate", "--help").stdout


IMPORTING = """
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            print("ready", flush=True)
            time.sleep(30)
sys.meta_path.insert(0, Slow())
from edgemed.cli.main import main
main()
"""
CLEANING = """
import time
import edgemed.device.here as here
def detect_here():
    try:
        print("ready", flush=True)
        time.sleep(30)
    finally:
        print("cleaning", flush=True)
        time.sleep(1)
        print("clean", flush=True)
here.detect_here = detect_here
from edgemed.cli.main import main
main()
"""


def started(code: str) -> subprocess.Popen[str]:
    """The code with the arguments `devices`, once it has said that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, "devices"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    ("sent", "code", "word"), [(signal.SIGINT, 130, "Interrupted.\n"), (signal.SIGTERM, 143, "Terminated.\n")]
)
def test_a_signal_during_imports_is_a_word_and_a_code(sent, code, word):
    with started(IMPORTING) as process:
        process.send_signal(sent)
        assert process.communicate(timeout=20) == ("", word)
    assert process.returncode == code


@pytest.mark.parametrize(
    ("sent", "code", "word"), [(signal.SIGINT, 130, "Interrupted.\n"), (signal.SIGTERM, 143, "Terminated.\n")]
)
def test_a_second_signal_does_not_interrupt_the_cleaning_up(sent, code, word):
    with started(CLEANING) as process:
        process.send_signal(sent)
        assert process.stdout.readline() == "cleaning\n"
        for _ in range(3):
            process.send_signal(sent)
        assert process.communicate(timeout=20) == ("clean\n", word)
    assert process.returncode == code


def test_ctrl_c_stays_ignored_where_it_was():
    """As a shell starts what runs in the background."""
    done = subprocess.run(
        ["sh", "-c", f'trap "" INT; exec {sys.executable} -c "$0"', "import signal\n" + CHECK], capture_output=True
    )
    assert done.stdout == b"ignored\n", done.stderr


CHECK = """
from edgemed.cli.main import take_signals
take_signals()
print("ignored" if signal.getsignal(signal.SIGINT) is signal.SIG_IGN else "taken")
"""


@pytest.mark.parametrize(("package", "arguments"), [
    ("prometheus_client", ["serve", "--demo", "any.edgemed"]),
    ("prometheus_client", ["serve", "bedside.toml", "--check"]),
    ("pynetdicom", ["profile", "bedside.toml", "--study", "."]),
])  # fmt: skip
def test_the_daemon_without_its_packages_names_the_extra(tmp_path: Path, package: str, arguments: list[str]) -> None:
    site = '[daemon]\nname = "one"\nstate = "state"\n[[models]]\nname = "chest"\nbundle = "any.edgemed"\n'
    (tmp_path / "bedside.toml").write_text(site, encoding="utf-8")
    code = f"import sys; sys.modules[{package!r}] = None; from edgemed.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env=package_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    assert f"{package} is needed to" in done.stderr
    assert "pip install 'edgemed[serve]'" in done.stderr
