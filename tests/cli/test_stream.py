"""`edgemed run` on streams, as processes: videos, a camera (the stand-in), pipelines; ends of every kind."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
import pytest
from evaluate.bundles import write_bundle, write_images
from runtime.sources import camera, videos

from edgemed.base.errors import EdgemedError
from edgemed.cli.app import invoke

COMMAND = [sys.executable, "-m", "edgemed", "run"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose INT8 answers grow with the brightness, a video of 40 numbered pictures, an image, a stack."""
    folder = tmp_path_factory.mktemp("streams")
    write_bundle(folder / "little.edgemed", boundaries={"float": 0.4, "int8": 0.41}, classes=("dark", "bright"))
    videos.write(folder / "cine.mkv", 40, "ffv1", "gray")
    next(write_images(folder / "data", {"a": [100]}).rglob("*.png")).rename(folder / "image.png")
    np.save(folder / "stack.npy", np.stack([videos.picture(n)[..., 0] for n in range(10)]))
    return folder


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return camera.build(tmp_path_factory.mktemp("camera"))


@dataclass
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def in_process(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> Done:
    """As a user's shell runs it."""
    done = subprocess.run(
        [*COMMAND, "little.edgemed", *arguments], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60, env=env,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def run(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> Done:
    """The command in this process, which has paid for its imports; in one of its own where a camera is preloaded."""
    if env is not None:
        return in_process(folder, *arguments, env=env)
    out, errors = io.StringIO(), io.StringIO()
    before = Path.cwd()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        os.chdir(folder)
        try:
            code = invoke(["run", "little.edgemed", *arguments])
        except EdgemedError as error:
            code = error.exit_code
            errors.write(f"error: {error.what}\nwhat to do: {error.hint}\n")
        finally:
            os.chdir(before)
    return Done(code, out.getvalue(), errors.getvalue())


def document(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> Any:
    done = run(folder, *arguments, "--json", env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    account = found["account"]
    assert account["frames"] == account["answered"] + account["failed"] + sum(account["dropped"].values())
    assert len(found["results"]) == account["answered"] + account["failed"]
    return found


def test_a_video_is_answered_picture_by_picture(folder: Path) -> None:
    done = in_process(folder, "cine.mkv")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    shown = re.compile(
        r"cine\.mkv #(\d+)  (dark|bright) \(0\.\d{4}\)  \[int8 on onnxruntime/cpu, [\d.]+ ms, [\d.]+ ms old\]"
    )
    found = [shown.fullmatch(line) for line in lines[:40]]
    assert all(found)
    assert [int(match[1]) for match in found if match] == list(range(40))
    assert lines[40] == "40 frames = 40 answered + 0 dropped + 0 failed"
    assert {line.split()[0] for line in lines[42:]} == {"age", "wait", "fill", "queue", "compute"}


def test_a_stream_answers_as_the_files_do(folder: Path) -> None:
    """The same pictures, as a video, as a stack, and as images one after the other."""
    from PIL import Image

    names = []
    for number in range(10):
        names.append(f"picture{number}.png")
        Image.fromarray(videos.picture(number)[..., 0]).save(folder / names[-1])
    files = [result["score"] for result in json.loads(run(folder, *names, "--json").stdout)["results"]]
    assert len(set(files)) > 3
    for inputs in (["cine.mkv", "--frames", "10"], ["stack.npy", "--slots", "1"], [*names, "--policy", "lossless"]):
        found = document(folder, *inputs)
        assert [result["score"] for result in found["results"]] == files
        assert [result["index"] for result in found["results"]] == list(range(10))


def test_policies_and_what_they_drop(folder: Path) -> None:
    found = document(folder, "cine.mkv", "--policy", "every-3")
    assert [result["index"] for result in found["results"]] == list(range(0, 40, 3))
    assert found["account"]["dropped"]["every-n"] == 26
    live = document(folder, "cine.mkv", "--live", "--fps", "400", "--slots", "2")
    assert live["policy"] == "latest"
    assert live["account"]["frames"] == 40
    late = document(folder, "cine.mkv", "--policy", "deadline:1us")
    assert late["account"]["dropped"]["late"] == 40


def test_a_dicom_cine_plays_as_a_stream_where_it_is_asked_for(folder: Path) -> None:
    cine = str(pydicom.data.get_testdata_file("examples_ybr_color.dcm", download=False))
    as_file = json.loads(run(folder, cine, "--json").stdout)["results"]
    stream = document(folder, cine, "--policy", "lossless")["results"]
    assert [result["score"] for result in stream] == [result["score"] for result in as_file]
    assert "age_ns" in stream[0]
    assert "age_ns" not in as_file[0]
    done = run(folder, cine, "--live", "--frames", "3")
    assert done.returncode == 0, done.stderr
    assert "3 frames = " in done.stdout


def test_a_camera(folder: Path, library: Path) -> None:
    env = camera.environment(library, fps=100, gap_at=5, gap_by=7)
    found = document(folder, f"{camera.DEVICE}?format=GREY", "--frames", "30", env=env)
    assert found["policy"] == "latest"
    assert found["account"]["frames"] == 30
    assert found["account"]["lost"] >= 7
    assert all(result["age_ns"] > 0 for result in found["results"])


def test_a_camera_for_some_seconds(folder: Path, library: Path) -> None:
    found = document(folder, camera.DEVICE, "--seconds", "0.5", env=camera.environment(library, fps=100))
    assert found["account"]["frames"] > 1


def test_a_camera_that_is_unplugged_ends_with_the_account_and_code_4(folder: Path, library: Path) -> None:
    done = run(folder, camera.DEVICE, "--policy", "lossless", env=camera.environment(library, fps=10, unplug_at=6))
    assert done.returncode == 4
    # pictures that wait in the driver when the cable is pulled are gone with it
    (account,) = re.findall(r"(\d) frames? = (\d) answered \+ 0 dropped \+ 0 failed", done.stdout)
    assert 1 <= int(account[0]) == int(account[1]) <= 6
    assert done.stderr.splitlines()[-2].startswith("error: The camera /dev/video77 was unplugged.")
    done = run(folder, camera.DEVICE, "--json", env=camera.environment(library, fps=10, unplug_at=6))
    assert done.returncode == 4
    assert 1 <= json.loads(done.stdout)["account"]["frames"] <= 6


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 143, "Term")]
)
@pytest.mark.parametrize("as_json", [False, True])
def test_an_interrupt_ends_in_order(
    folder: Path, library: Path, number: signal.Signals, code: int, word: str, as_json: bool
) -> None:
    process = subprocess.Popen(
        [*COMMAND, "little.edgemed", camera.DEVICE, *(["--json"] if as_json else [])], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**camera.environment(library, fps=100), "PYTHONUNBUFFERED": "1"},
        # pytest in the background ignores SIGINT, and a child would inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        read = [process.stdout.readline() for _ in range(5)]
        process.send_signal(number)
        text = "".join(read) + process.stdout.read()
        assert word in process.stderr.read()
    assert process.wait(60) == code
    if as_json:
        account = json.loads(text)["account"]
        assert account["frames"] == account["answered"] + account["failed"] + sum(account["dropped"].values())
        assert account["answered"] >= 3
    else:
        assert re.search(r"\d+ frames = \d+ answered \+ \d+ dropped", text)


def test_a_reader_that_goes_away_ends_a_stream(folder: Path, library: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, "little.edgemed", camera.DEVICE], cwd=folder, stdout=writing, stderr=subprocess.PIPE, text=True,
        timeout=60, env=camera.environment(library, fps=100),
    )  # fmt: skip
    os.close(writing)
    assert done.returncode == 141
    assert done.stderr == ""


def test_frames_that_fail_are_told_and_end_in_an_error(folder: Path) -> None:
    """Pictures of 16 bits: the little bundle's recipe is for 8, and says so for each."""
    np.save(folder / "wide.npy", np.full((3, 6, 6), np.nan, np.float32))
    done = run(folder, "wide.npy", "--policy", "lossless")
    assert done.returncode == 2
    assert done.stdout.count("failed: The image holds NaN") == 3
    assert "3 frames = 0 answered + 0 dropped + 3 failed" in done.stdout
    assert "3 of 3 frames failed; the first: The image holds NaN" in done.stderr
    done = run(folder, "wide.npy", "--policy", "lossless", "--json")
    assert done.returncode == 2
    assert [result["error"] for result in json.loads(done.stdout)["results"]] == [
        "The image holds NaN or infinity."
    ] * 3


def test_a_trace_is_written(folder: Path) -> None:
    done = run(folder, "cine.mkv", "--trace", "trace.json")
    assert done.returncode == 0, done.stderr
    events = json.loads((folder / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    assert sum(event["name"] == "compute" for event in events) == 40
    assert run(folder, "cine.mkv", "--trace", "none/trace.json").returncode == 6


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["cine.mkv", "--policy", "newest"], 2, "no frame policy"),
        (["cine.mkv", "--policy", "latest", "--slots", "1"], 2, "two slots"),
        (["cine.mkv", "--save", "out"], 2, "--save keeps the outputs of files"),
        (["cine.mkv", "--frames", "0"], 2, "frames"),
        (["cine.mkv", "--seconds", "-1"], 2, "no time to run"),
        (["cine.mkv", "--live", "--fps", "0"], 2, "no rate"),
        (["cine.mkv", "image.png"], 2, "Only image files make one stream"),
        (["image.png", "--live"], 2, "--fps"),
        (["none.mp4"], 6, "does not exist"),
        (["/dev/video98"], 4, "no camera /dev/video98"),
        (["/dev/video98?zoom=3"], 2, "no setting 'zoom'"),
        (["/dev/video98?size=big"], 2, "make no sense"),
        (["/dev/video98?size=0x7"], 2, "cannot be 0x7"),
        (["rtsp://me:hunter2@127.0.0.1:1/x"], 4, "rtsp://me:***@127.0.0.1:1/x refuses the connection"),
        (["gst:"], 2, "pipeline is empty"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, arguments: list[str], code: int, words: str) -> None:
    done = run(folder, *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    assert done.stdout == ""
