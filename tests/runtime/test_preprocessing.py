"""Where `edgemed run` prepares the frames of a stream on the TensorRT lane: both ways give the same, and it says which.

TensorRT is faked, CUDA is host-only, the kernels are their host twin; the answer of the engine is GAIN * sample +
OFFSET, so it shows the sample.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
import pytest
from numpy.typing import NDArray
from PIL import Image
from runtime.sources import camera, videos

from edgemed.base.runner import TensorSpec
from edgemed.bundle.model import specs_of
from edgemed.bundle.read import Bundle
from edgemed.recipe.schema import Recipe, load_recipe
from edgemed.runtime.cuda import open_cuda
from edgemed.runtime.kernels.plan import KernelPlan, plan_kernels
from edgemed.runtime.kernels.raw import RawFormat
from edgemed.runtime.preprocessing import Preprocessing
from edgemed.runtime.recipe_fill import RecipeFill
from edgemed.runtime.sources.clips import ClipSource
from edgemed.runtime.sources.memory import MemorySource
from edgemed.runtime.sources.peek import PeekedSource
from tests.runtime.fakecuda import fetch, handle
from tests.runtime.faked_device import Build, command, write
from tests.runtime.kernels import twin
from tests.runtime.standin import GAIN

REPO = Path(__file__).resolve().parents[2]

SCALED = b"[input.scaling]\ndivisor = 255.0\n"
AREA = b'[[input.steps]]\nop = "resize"\nfilter = "area"\n'
WINDOWED = b'[[input.steps]]\nop = "window"\ncenter = 40\nwidth = 400\n' + AREA
BY_FILE = b'[[input.steps]]\nop = "window"\nfile = true\n' + AREA
CONTENT = b'[[input.steps]]\nop = "content"\nabove = 10\n' + SCALED
SMALL = b"[input.contract]\nmin_rows = 200\n" + SCALED


@pytest.fixture(autouse=True)
def _twins(fakecuda: handle.FakeCudaHandle) -> None:
    fakecuda.kernels(twin.for_shim())


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write(tmp_path / "little.edgemed", recipe=SCALED)


@pytest.fixture
def ready(tmp_path: Path, device: Build) -> Callable[[bytes], Bundle]:
    """A bundle of a recipe, with its engine."""

    def make(recipe: bytes) -> Bundle:
        bundle = write(tmp_path / "little.edgemed", recipe=recipe)
        device(bundle)
        return bundle

    return make


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """Ten gray pictures."""
    np.save(tmp_path / "stack.npy", np.stack([videos.picture(n)[..., 0] for n in range(10)]))
    return tmp_path / "stack.npy"


def plan(bundle: Bundle, raw: RawFormat) -> KernelPlan:
    recipe = load_recipe(bundle.path / "recipe.toml")
    found = plan_kernels(recipe, specs_of(bundle).inputs[0], "NHWC", raw)
    assert isinstance(found, KernelPlan), found
    return found


def values(document: Any) -> NDArray[np.float64]:
    return np.array([result["outputs"]["score"]["values"] for result in document["results"]])


def apart(bundle: Bundle, raw: RawFormat, one: Any, other: Any) -> None:
    """That both answered all, alike as far as the plan's rounding and that of the engine's product and sum go."""
    first, second = values(one), values(other)
    assert first.shape == second.shape
    assert np.ptp(first) > 0.03  # thousands of times what may lie between the two
    np.testing.assert_allclose(first, second, rtol=0, atol=GAIN * plan(bundle, raw).tolerance + 5e-7)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """The command's document; its exit code has to be `code`."""

    def run_(bundle: Bundle, *arguments: str | Path, code: int = 0) -> Any:
        capsys.readouterr()
        assert command("run", bundle.path, *arguments, "--json") == code
        said = capsys.readouterr()
        document = json.loads(said.out) if said.out else {}
        document["stderr"] = " ".join(said.err.split())
        return document

    return run_


Run = Callable[..., Any]
Ready = Callable[[bytes], Bundle]


# ---- both ways


@pytest.mark.parametrize("integrated", [0, 1], ids=["copies", "zero-copy"])
def test_a_stack_is_prepared_by_the_kernels_and_answers_as_on_the_cpu(
    fakecuda: handle.FakeCudaHandle, ready: Ready, stack: Path, run: Run, integrated: int
) -> None:
    fakecuda.set(integrated=integrated)
    bundle = ready(SCALED)
    found = run(bundle, stack, "--policy", "lossless")
    assert found["preprocessing"] == {"on": "gpu", "why": None}
    assert [result["index"] for result in found["results"]] == list(range(10))
    assert {result["backend"] for result in found["results"]} == {"tensorrt"}
    other = run(bundle, stack, "--preprocess", "cpu")
    assert other["preprocessing"] == {"on": "cpu", "why": "as was asked for"}
    apart(bundle, RawFormat(*videos.picture(0).shape[:2]), found, other)


def test_a_video_is(ready: Ready, tmp_path: Path, run: Run) -> None:
    videos.write(tmp_path / "cine.mkv", 12, "ffv1", "gray")
    bundle = ready(SCALED)
    found = run(bundle, tmp_path / "cine.mkv", "--frames", "7")
    assert found["preprocessing"]["on"] == "gpu"
    assert found["account"]["answered"] == 7
    live = run(bundle, tmp_path / "cine.mkv", "--live", "--policy", "lossless")
    assert (live["preprocessing"]["on"], live["account"]["answered"]) == ("gpu", 12)
    onnx = run(bundle, tmp_path / "cine.mkv", "--frames", "7", "--runner", "onnxruntime")
    assert onnx["preprocessing"] == {"on": "cpu", "why": None}
    apart(bundle, RawFormat(*videos.picture(0).shape[:2]), found, onnx)


@pytest.mark.parametrize(
    ("recipe", "name"), [(WINDOWED, "MR_small.dcm"), (SCALED, "examples_ybr_color.dcm")], ids=["gray", "colour"]
)
def test_a_dicom_file_is_planned_by_its_first_image(ready: Ready, run: Run, recipe: bytes, name: str) -> None:
    from edgemed.imaging.open import open_image

    path = Path(str(pydicom.data.get_testdata_file(name, download=False)))
    bundle = ready(recipe)
    found = run(bundle, path, "--policy", "lossless")
    assert found["preprocessing"]["on"] == "gpu"
    other = run(bundle, path, "--preprocess", "cpu")
    apart(bundle, RawFormat.of(open_image(path).frame(0)), found, other)


def test_clips_are_planned_by_the_first_frame(fakecuda: handle.FakeCudaHandle) -> None:
    time = {"frames": 4, "step": 2, "stride": 3}
    recipe = Recipe.model_validate({"input": {"time": time, "scaling": {"divisor": 255.0}}})
    cpu = RecipeFill(TensorSpec("clip", "float32", (1, 4, 20, 24, 3)), recipe)
    source = PeekedSource(MemorySource([videos.picture(n) for n in range(16)]))
    fill = Preprocessing(cpu, source)
    kernels = fill.kernels(open_cuda().facts)
    assert kernels is not None
    assert fill.time is not None
    slot = {"pixels": np.zeros(kernels.raw[0].shape, np.uint8)}
    own = {"clip": np.zeros((1, 4, 20, 24, 3), np.float32)}
    count = 0
    with ClipSource(source, fill.time) as clips:
        for frame in clips:
            fill(frame, lambda shapes: slot)
            cpu(frame, lambda shapes: own)
            made = twin.run(kernels.plan, slot["pixels"])
            np.testing.assert_allclose(made, own["clip"], rtol=0, atol=kernels.plan.tolerance)
            count += 1
    assert count == 4


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return camera.build(tmp_path_factory.mktemp("camera"))


@pytest.mark.parametrize(("asked", "pad"), [("YUYV", 0), ("YUYV", 16), ("NV12", 0), ("GREY", 0), ("MJPG", 0)])
def test_a_camera_gives_its_bytes_to_the_kernels(library: Path, tmp_path: Path, asked: str, pad: int) -> None:
    """But for MJPG, which is decoded first. Six frames fit into the driver's buffers: none can be lost."""
    jpeg = tmp_path / "picture.jpg"
    Image.fromarray(videos.picture(3)).resize((64, 48)).save(jpeg)
    bundle = write(tmp_path / "little.edgemed", recipe=SCALED)

    def seen(*arguments: str) -> Any:
        env = camera.environment(library, jpeg if asked == "MJPG" else None, fps=50, pad=pad, buffers=8)
        env |= {"EDGEMED_CACHE": str(fetch.CACHE), **handle.environment()}
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("stream_child.py")), str(bundle.path),
             f"{camera.DEVICE}?format={asked}&buffers=8", "--json", "--frames", "6", "--policy", "lossless",
             *arguments],
            env={**env, "PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "tests")])},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr.strip()) == (0, "")
        document = json.loads(done.stdout)
        assert (document["account"]["answered"], document["account"]["lost"]) == (6, 0)
        return document

    found, other = seen(), seen("--preprocess", "cpu")
    assert found["preprocessing"] == {"on": "gpu", "why": None}
    assert other["preprocessing"]["on"] == "cpu"
    apart(bundle, RawFormat(48, 64, "uint8", "gray" if asked == "GREY" else "rgb"), found, other)


# ---- the CPU's way


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        (CONTENT, "step content: the box is that of each image; crop a fixed box"),
        (SMALL, "the first frame would be refused"),
        (b"raw = true\n", "fed as they are"),
    ],
)
def test_a_recipe_that_the_kernels_do_not_take_over_is_the_cpus(
    ready: Ready, stack: Path, run: Run, recipe: bytes, why: str
) -> None:
    bundle = ready(recipe)
    fails = recipe is not CONTENT
    found = run(bundle, stack, "--policy", "lossless", code=2 if fails else 0)
    assert found["preprocessing"]["on"] == "cpu"
    assert why in found["preprocessing"]["why"]
    assert found["account"]["failed"] == (10 if fails else 0)
    if not fails:
        onnx = run(bundle, stack, "--policy", "lossless", "--runner", "onnxruntime")
        np.testing.assert_array_equal(values(found), values(onnx))
    refused = run(bundle, stack, "--preprocess", "gpu", code=2)
    assert "The GPU cannot prepare these frames: " in refused["stderr"]
    assert "results" not in refused


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.zeros((3, 6, 6), np.float32), "no pictures that kernels know"),
        (np.zeros((3, 6, 6, 4), np.uint8), "no pictures that kernels know"),
        (np.zeros((3, 6), np.uint8), "no pictures that kernels know"),
        (np.zeros((3, 6, 6), ">u2"), "frames are gray of"),
        (np.zeros((3, 6, 6), np.uint32), "frames are gray of uint32"),
    ],
)
def test_what_is_no_picture_for_kernels_goes_where_it_always_went(
    ready: Ready, tmp_path: Path, run: Run, array: NDArray[Any], why: str
) -> None:
    np.save(tmp_path / "odd.npy", array)
    bundle = ready(SCALED)
    code = {2: 70, 3: 0, 4: 0}[array.ndim]  # what the CPU makes of them is its own matter
    found = run(bundle, tmp_path / "odd.npy", "--policy", "lossless", code=code)
    assert why in found["preprocessing"]["why"]
    assert found["account"]["frames"] == len(array)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"compute_capability": "7.5"}, "has compute capability 7.5, the kernels need 8.0"),
        ({"driver_version": "11.8"}, "the driver knows CUDA 11.8, the kernels need 12.0"),
        ({"compute_capability": "8.0", "driver_version": "12.0"}, None),
        ({"compute_capability": "12.1", "driver_version": "13.0"}, None),
    ],
)
def test_a_gpu_that_cannot_load_the_kernels_is_told_from_one_that_can(
    bundle: Bundle, fakecuda: handle.FakeCudaHandle, changes: dict[str, Any], why: str | None
) -> None:
    source = PeekedSource(MemorySource([videos.picture(0)]))
    fill = Preprocessing(RecipeFill.of(bundle), source)
    assert str(fill.way) == "CPU"
    kernels = fill.kernels(replace(open_cuda().facts, **changes))
    assert (kernels is None) == (why is not None)
    assert (why or "GPU kernels") in str(fill.way)


def test_a_source_without_frames_has_no_kernels(bundle: Bundle, fakecuda: handle.FakeCudaHandle) -> None:
    fill = Preprocessing(RecipeFill.of(bundle), PeekedSource(MemorySource([])))
    assert fill.kernels(open_cuda().facts) is None
    assert str(fill.way) == "CPU (there is no frame)"


# ---- frames that differ


def pictures(folder: Path, *shapes: tuple[int, int]) -> list[Path]:
    found = []
    for number, shape in enumerate(shapes):
        found.append(folder / f"{number}.png")
        Image.fromarray(np.random.default_rng(number).integers(0, 255, shape).astype(np.uint8)).save(found[-1])
    return found


def test_several_files_may_differ_and_go_to_the_cpu(ready: Ready, tmp_path: Path, run: Run) -> None:
    bundle = ready(SCALED)
    files = pictures(tmp_path, (8, 8), (9, 8), (8, 8))
    found = run(bundle, *files, "--policy", "lossless")
    assert found["preprocessing"] == {"on": "cpu", "why": "files may differ from one to the next"}
    assert found["account"]["answered"] == 3


def test_on_the_gpu_a_file_that_differs_fails_alone(ready: Ready, tmp_path: Path, run: Run) -> None:
    bundle = ready(SCALED)
    files = pictures(tmp_path, (8, 8), (9, 8), (8, 8))
    found = run(bundle, *files, "--preprocess", "gpu", code=2)
    assert found["preprocessing"]["on"] == "gpu"
    assert ["error" in result for result in found["results"]] == [False, True, False]
    assert "planned for uint8 (8, 8)" in found["results"][1]["error"]
    assert "--preprocess cpu" in found["stderr"]
    right = run(bundle, files[0], files[2], "--preprocess", "cpu")
    np.testing.assert_allclose(values({"results": found["results"][::2]}), values(right), rtol=0, atol=GAIN * 1e-6)


def test_a_file_of_another_window_fails_where_the_recipe_takes_the_files(
    ready: Ready, tmp_path: Path, run: Run
) -> None:
    files = []
    for number, width in enumerate((400, 400, 350)):
        data = pydicom.dcmread(str(pydicom.data.get_testdata_file("MR_small.dcm", download=False)))
        data.WindowCenter, data.WindowWidth = 40, width
        files.append(tmp_path / f"{number}.dcm")
        data.save_as(files[-1])
    bundle = ready(BY_FILE)
    found = run(bundle, *files, "--preprocess", "gpu", code=2)
    assert ["error" in result for result in found["results"]] == [False, False, True]
    assert "other VOI windows" in found["results"][2]["error"]


def test_a_window_of_the_recipes_own_does_not_ask_for_the_files(ready: Ready, tmp_path: Path, run: Run) -> None:
    data = pydicom.dcmread(str(pydicom.data.get_testdata_file("MR_small.dcm", download=False)))
    data.save_as(tmp_path / "0.dcm")
    data.WindowCenter, data.WindowWidth = 40, 350
    data.save_as(tmp_path / "1.dcm")
    found = run(ready(WINDOWED), tmp_path / "0.dcm", tmp_path / "1.dcm", "--preprocess", "gpu")
    assert found["account"]["answered"] == 2
    assert found["results"][0]["outputs"] == found["results"][1]["outputs"]


# ---- what is said


def test_the_summary_names_the_way(ready: Ready, stack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = ready(SCALED)
    assert command("run", bundle.path, stack, "--policy", "lossless") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "preprocessing: GPU kernels"
    assert command("run", bundle.path, stack, "--preprocess", "cpu") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "preprocessing: CPU (as was asked for)"
    assert command("run", bundle.path, stack, "--policy", "lossless", "--runner", "onnxruntime") == 0
    assert "preprocessing" not in capsys.readouterr().out  # there was no choice


def test_onnx_runtime_has_no_kernels(ready: Ready, stack: Path, run: Run) -> None:
    bundle = ready(SCALED)
    refused = run(bundle, stack, "--preprocess", "gpu", "--runner", "onnxruntime", code=2)
    assert "runs no preprocessing kernels" in refused["stderr"]


def test_a_source_that_cannot_be_opened_leaves_no_engine_behind(ready: Ready, tmp_path: Path, run: Run) -> None:
    """The fixture looks for what is alive."""
    bundle = ready(SCALED)
    failed = run(bundle, tmp_path / "none.mkv", code=6)
    assert "does not exist" in failed["stderr"]
    assert "account" not in failed
