"""Questions to foreign code: whatever it does, the doctor lives and says so."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from edgemed.device.doctor.ask import GPU, PYCUDA, TENSORRT, Answer, ask, ask_module, version_of
from tests.runtime.fakecuda import fetch

FINE = "VERSION_TEXT = '2026.1'\n"
DRIVER = """
def get_version(): return (12, 6, 0)
def init(): {init}
class Device:
    @staticmethod
    def count(): return 1
"""


def package(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, **modules: str) -> None:
    (folder / name).mkdir()
    for module, code in modules.items():
        (folder / name / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))


def test_a_package_that_is_not_there_is_absent() -> None:
    assert ask_module("no_such_package_anywhere", TENSORRT).state == "absent"


def test_pycuda_tells_its_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, monkeypatch, "pycuda", __init__=FINE, driver=DRIVER.format(init="pass"))
    assert ask_module("pycuda", PYCUDA) == Answer("works", {"version": "2026.1", "built": "12.6", "devices": 1})


def test_pycuda_that_finds_no_device_still_tells_what_it_was_made_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = DRIVER.format(init="raise RuntimeError('cuInit failed: no CUDA-capable device is detected')")
    package(tmp_path, monkeypatch, "pycuda", __init__=FINE, driver=driver)
    answer = ask_module("pycuda", PYCUDA)
    assert (answer.state, answer.text("built")) == ("fails", "12.6")
    assert answer.error == "RuntimeError: cuInit failed: no CUDA-capable device is detected"


def test_a_crash_is_named_and_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"
    package(tmp_path, monkeypatch, "tensorrt_of_a_test", __init__=crash)
    answer = ask_module("tensorrt_of_a_test", "import tensorrt_of_a_test; answer(version='1')")
    assert answer == Answer("fails", {}, "it crashed (SIGSEGV)")


def test_what_never_answers_is_ended() -> None:
    answer = ask("import time\nprint('starting', flush=True)\ntime.sleep(600)", patience_s=0.5)
    assert answer == Answer("fails", error="it did not answer within 0.5 s")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise ImportError('libnvinfer.so.10: cannot open shared object file')", "ImportError: libnvinfer.so.10"),
        ("raise SystemExit(3)", "it ended with code 3 and said nothing"),
        ("pass", "it ended with code 0 and said nothing"),
        ("print('edgemed-answer:{broken')", "it ended with code 0"),
        ("print('edgemed-answer:[1]')", "it ended with code 0"),
    ],
)
def test_other_ends_are_failures(code: str, error: str) -> None:
    answer = ask(code)
    assert (answer.state, answer.facts) == ("fails", {})
    assert answer.error.startswith(error)


def test_noise_on_the_streams_does_not_hide_the_answer() -> None:
    noise = "import os\nos.write(1, b'\\xff[TRT] hello\\n' * 20000)\nos.write(2, b'\\xfe' * 200000)\n"
    assert ask(noise + "answer(version='10.3.0')") == Answer("works", {"version": "10.3.0"})


def test_the_working_folder_chooses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('taken from the working folder')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert ask("answer(version='1')").state == "works"


def test_the_driver_is_asked_in_a_child() -> None:
    answer = ask(GPU)
    assert answer.state == "works"
    assert set(answer.facts) == {"cuda", "name", "compute_capability"}


def test_versions_come_from_metadata() -> None:
    assert version_of("pytest") == pytest.__version__
    assert version_of("no-such-distribution-anywhere") is None


# ── the real pycuda and the driver's calls, over a libcuda that runs on the host ──────────────────────────────────────


@pytest.fixture
def host_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := fetch.unsupported():
        pytest.skip(reason)
    fake = fetch.ensure()
    monkeypatch.syspath_prepend(str(fake.site))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(fake.library.parent))  # children find it there; this process does not


@pytest.mark.usefixtures("host_cuda")
def test_the_real_pycuda_answers() -> None:
    answer = ask_module("pycuda", PYCUDA)
    assert answer.state == "works", answer
    assert re.fullmatch(r"20\d\d\.\d.*", answer.text("version") or "")
    assert (answer.text("built"), answer.facts["devices"]) == ("12.0", 1)


@pytest.mark.usefixtures("host_cuda")
def test_the_real_pycuda_without_a_device_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKECUDA_FAIL", "cuInit:1:100")  # CUDA_ERROR_NO_DEVICE
    answer = ask_module("pycuda", PYCUDA)
    assert (answer.state, answer.text("built")) == ("fails", "12.0")
    assert "cuInit failed" in answer.error


@pytest.mark.usefixtures("host_cuda")
def test_the_real_pycuda_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH")
    answer = ask_module("pycuda", PYCUDA)
    assert answer.state == "fails"
    assert "libcuda.so.1" in answer.error


@pytest.mark.usefixtures("host_cuda")
def test_the_driver_tells_its_cuda_and_its_gpu() -> None:
    answer = ask(GPU)
    assert answer.state == "works", answer
    assert re.fullmatch(r"\d+\.\d+", answer.text("cuda") or "")
    assert re.fullmatch(r"\d+\.\d", answer.text("compute_capability") or "")
