"""Everything that can go wrong: the right exit code, one clear sentence, and nothing left behind."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.build.conftest import edgemed, write_images
from tests.waiting import has_ended, wait_for

ENVIRONMENT_FAULT = 6


def build(cwd: Path, *arguments: str | Path, code: int, says: str, **options: object) -> str:
    """Run a build that must fail, and check that it left nothing."""
    before = {p.name for p in cwd.iterdir()}
    done = edgemed("build", *arguments, cwd=cwd, **options)  # type: ignore[arg-type]
    text = " ".join(done.stderr.split())
    assert done.returncode == code, done.stderr
    assert says in text
    assert "what to do:" in text
    assert "Traceback" not in text
    assert done.stdout == ""
    assert {p.name for p in cwd.iterdir()} == before
    return text


@pytest.fixture
def user(models: Path, tmp_path: Path) -> Path:
    """A working directory with `model.h5`."""
    shutil.copy(models / "seed.h5", tmp_path / "model.h5")
    return tmp_path


def test_int8_without_images_is_refused_and_says_what_to_do(user):
    text = build(user, "model.h5", "--int8", code=2, says="INT8 needs calibration images")
    assert "--fp32" in text


def test_too_few_images(user):
    write_images(user / "calibration", 5)
    build(user, "model.h5", code=2, says="holds 5 images; at least 8")


def test_constant_images_only(user):
    (user / "calibration").mkdir()
    for value in range(12):
        Image.fromarray(np.full((32, 32, 3), value * 20, np.uint8)).save(user / "calibration" / f"{value}.png")
    build(user, "model.h5", code=2, says="All calibration images are constant")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("bad.png", b"", "bad.png is empty"),
        ("bad.png", b"\x89PNG\r\n\x1a\n garbage", "bad.png is"),
        ("bad.npy", np.zeros((9, 9, 3), np.float32), "bad.npy has the shape 1×9×9×3"),
        ("bad.npy", np.zeros((0, 32, 3), np.float32), "bad.npy has no elements"),
        ("bad.npy", np.full((32, 32, 3), np.nan, np.float32), "bad.npy holds NaN"),
    ],
)
def test_one_bad_sample_is_named(user, name, content, says):
    folder = write_images(user / "calibration", 20)
    if isinstance(content, bytes):
        (folder / name).write_bytes(content)
    else:
        np.save(folder / name, content)
    build(user, "model.h5", code=2, says=says)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "model.bad.h5"), (b"not a model at all", "model.bad.h5"), (None, "model.bad.h5")],
    ids=["empty", "text", "missing"],
)
def test_not_a_model(user, images, content, says):
    if content is not None:
        (user / "model.bad.h5").write_bytes(content)
    build(user, "model.bad.h5", "--calibration", images, code=2, says=says)


def test_a_truncated_model(user, images):
    data = (user / "model.h5").read_bytes()
    (user / "model.h5").write_bytes(data[: len(data) // 2])
    build(user, "model.h5", "--calibration", images, code=2, says="model.h5")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--device", "orin-mini"], "orin-mini"),
        (["--device", "nano"], "has no INT8 in TensorRT"),
        (["--recipe", "unknown"], "There is no recipe 'unknown'"),
        (["--input", "image=1x0x3"], "is not NAME=1x512x512x1"),
        (["--input", "other=1x32x32x3"], "other"),
        (["--int8", "--fp32"], "exclude each other"),
        (["--calibration", "nowhere"], "nowhere is not a directory"),
        (["--allow-code", "none.py"], "none.py does not exist"),
    ],
)
def test_options_that_make_no_sense(user, images, arguments, says):
    rest = [] if "--calibration" in arguments else ["--calibration", images]
    build(user, "model.h5", *arguments, *rest, code=2, says=says)


def test_outputs_that_cannot_be_written(user, images):
    (user / "file").write_text("x")
    build(user, "model.h5", "--calibration", images, "--output", "none/m.edgemed", code=6, says="does not exist: none")
    build(user, "model.h5", "--calibration", images, "--output", "file/m.edgemed", code=6, says="is a file")
    build(user, "model.h5", "--calibration", images, "--output", "file", code=2, says="file is not a directory")
    build(user, "model.h5", "--calibration", images, "--output", "/proc/m.edgemed", code=6, says="/proc")


def test_force_replaces_bundles_and_nothing_else(user, images):
    (user / "precious").mkdir()
    (user / "precious" / "manifest.json").write_text('{"name": "my web site"}')
    build(user, "model.h5", "--calibration", images, "--output", "precious", "--force", code=2, says="is not a bundle")
    build(user, "model.h5", "--calibration", images, "--output", ".", "--force", code=2, says="is no name")
    assert "my web site" in (user / "precious" / "manifest.json").read_text()


def test_a_missing_model_is_the_first_thing_to_say(user):
    build(user, "nope.h5", code=2, says="nope.h5")


def test_the_largest_file_that_may_be_written_is_too_small(user, images):
    """The bundle's plan exceeds a file-size limit half-way: as a full disk, but without the rights to make one."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    build(user, "model.h5", "--calibration", images, code=ENVIRONMENT_FAULT, says="", preexec=limit)


@pytest.mark.skipif(os.geteuid() != 0, reason="a full disk needs the right to mount one (root)")
def test_a_full_disk_half_way(user, images):
    """A tmpfs of 1 MB: room for the manifest's files, not for the graphs."""
    disk = user / "disk"
    disk.mkdir()
    script = 'mount -t tmpfs -o size=1m none "$1" && shift && "$@"; code=$?; ls -A disk; exit $code'
    command = [sys.executable, "-m", "edgemed", "build", "model.h5", "--calibration", str(images)]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(disk), *command, "--output", "disk/m.edgemed"],
        cwd=user,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == ENVIRONMENT_FAULT, done.stderr
    assert "The disk is full" in done.stderr
    assert done.stdout == ""  # `ls -A disk`: nothing is left on it


def _start(user: Path, images: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "edgemed", "build", "model.h5", "--calibration", str(images)],
        cwd=user,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _child_of(process: subprocess.Popen[str]) -> int:
    """Process id of the conversion child, once it is there."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

    def running() -> list[int]:
        pids = [int(pid) for pid in children.read_text().split()]
        return [pid for pid in pids if b"edgemed.convert.child" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    return wait_for(running, "the conversion's child")[0]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_build_and_its_child(user, images, sent, code):
    process = _start(user, images)
    child = _child_of(process)
    process.send_signal(sent)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert stdout == ""
    wait_for(lambda: has_ended(child))  # by the kernel, where the signal came while it was being started
    assert {p.name for p in user.iterdir()} == {"model.h5"}


def test_a_killed_child_is_an_environment_fault(user, images):
    process = _start(user, images)
    os.kill(_child_of(process), signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == ENVIRONMENT_FAULT, stderr
    assert "what to do:" in stderr
    assert {p.name for p in user.iterdir()} == {"model.h5"}


def test_a_bug_is_code_seventy_and_a_sentence(user):
    script = (
        "import edgemed.build.pipeline as p\n"
        "def broken(*a): raise KeyError('oops')\n"
        "p.build = broken\n"
        "from edgemed.cli.main import main\n"
        "import sys; sys.argv = ['edgemed', 'build', 'model.h5']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=user, capture_output=True, text=True)
    assert done.returncode == 70
    assert "bug in edgemed: KeyError" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_board_build_without_a_gpu_says_so(user, images, models, tmp_path):
    assert edgemed("build", "model.h5", "--calibration", images, cwd=user).returncode == 0
    done = edgemed("build", "model.edgemed", cwd=user)
    assert done.returncode == 4, done.stderr
    assert "what to do:" in done.stderr
    (user / "model.edgemed" / "recipe.toml").write_text("changed")
    assert edgemed("build", "model.edgemed", cwd=user).returncode == 5
    json.loads((user / "model.edgemed" / "report.json").read_text())
