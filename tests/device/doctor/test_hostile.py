"""Files that are damaged, missing, endless, or written to steer a terminal: the doctor neither raises nor waits."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.device.doctor.checks import examine
from edgemed.device.doctor.diagnosis import Diagnosis
from edgemed.device.profile import load_profile
from tests.device.doctor.test_checks import BUNDLE, record, scene_of
from tests.device.roots.builder import alive, healthy

PROFILE, ROW = load_profile("orin-nano-8gb@6.2")
STEERING = b"\x1b[2J\x1b]0;owned\x07\r\n\x00\x9b31m\xe2\x80\xae\xff" * 3


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template")
    healthy(root, PROFILE, ROW)
    record(root)
    return root


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def diagnose(root: Path) -> Diagnosis:
    return examine(scene_of(root, alive(PROFILE, ROW, root / "state"), BUNDLE))


def assert_is_safe(diagnosis: Diagnosis) -> None:
    texts = [diagnosis.machine, *(text for line in diagnosis.lines for text in (line.found, line.remedy))]
    texts += [str(part) for line in diagnosis.lines for fact in line.facts.items() for part in fact]
    for text in texts:
        assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")], text
        assert len(text) < 2000
    Diagnosis.model_validate_json(diagnosis.model_dump_json(by_alias=True))


CONTENTS = st.one_of(
    st.binary(max_size=200),
    st.just(STEERING),
    st.sampled_from([b"", b"-1", b"9" * 400, b"max\n", b"{", b"[" * 5000, b"\xff" * 70000, b"0\n", b"nan", b"-256000"]),
    st.builds(lambda text, cut: text.encode()[:cut], st.text(max_size=100), st.integers(0, 100)),
)


@given(seed=st.integers(0, 2**32), contents=st.lists(CONTENTS, min_size=1, max_size=8), removed=st.integers(0, 6))
def test_damaged_and_missing_files_are_judged_all_the_same(
    template: Path, seed: int, contents: list[bytes], removed: int
) -> None:
    chance = random.Random(seed)
    touched = chance.sample(files(template), len(contents) + removed)
    sound = {path: path.read_bytes() for path in touched}
    try:
        for path, content in itertools.zip_longest(touched, contents):
            path.unlink() if content is None else path.write_bytes(content)
        assert_is_safe(diagnose(template))
    finally:
        for path, data in sound.items():
            path.write_bytes(data)


@pytest.mark.parametrize("content", [STEERING, b"\xe2\x80\xae1 kB"], ids=["steering", "direction"])
def test_no_file_steers_the_terminal(template: Path, content: bytes) -> None:
    for path in files(template):
        sound = path.read_bytes()
        half = len(sound) // 2
        for hostile in (sound + content, content + sound, sound[:half] + content + sound[half:]):
            path.write_bytes(hostile)
            assert_is_safe(diagnose(template))
        path.write_bytes(sound)


REPLACEMENTS = (
    os.mkfifo,
    Path.mkdir,
    lambda path: path.symlink_to(path.name),
    lambda path: path.symlink_to("/dev/zero"),
)


def test_pipes_folders_circles_and_devices_in_place_of_files(template: Path) -> None:
    """Each file in turn becomes something that a plain reader would wait for, or fail on."""
    for path in files(template):
        sound = path.read_bytes()
        path.unlink()
        for replace in REPLACEMENTS:
            replace(path)
            assert_is_safe(diagnose(template))
            path.rmdir() if path.is_dir() else path.unlink()
        path.write_bytes(sound)


def test_files_that_may_not_be_read(template: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(template, tmp_path / "root", symlinks=True))
    for path in files(root):
        path.chmod(0)
    for path in root.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
    assert_is_safe(diagnose(root))


def test_links_of_another_root_stay_inside_it(template: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("5.15.148-tegra-of-the-host\n")
    root = Path(shutil.copytree(template, tmp_path / "root", symlinks=True))
    release = root / "proc/sys/kernel/osrelease"
    for target in (str(outside), "../" * 40 + str(outside)[1:]):
        release.unlink()
        release.symlink_to(target)
        kernel = next(line for line in diagnose(root).lines if line.check == "kernel")
        assert kernel.status == "unknown"
