"""One task through one model, without a daemon: cines, clips, tiles, several series."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluate.hostile import reseal
from evaluate.masks.bundles import write_mask_bundle
from pydicom.uid import generate_uid

from edgemed.base.errors import ChildError, DeviceStateError, ResourceError
from edgemed.bundle.model import specs_of
from edgemed.bundle.read import open_bundle
from edgemed.evaluate.bundled import reader_of, runner_of
from edgemed.evaluate.readings import Readings
from edgemed.runtime.contained.requests import Reply
from edgemed.serve.analysis import examine
from edgemed.serve.analysis.examine import Examination, Findings
from edgemed.serve.analysis.task import Broken, Declined, Interrupted, Task, TaskFile
from edgemed.serve.clock import utc
from edgemed.serve.config.models import ModelSection
from tests.serve import kit
from tests.serve.analysis.bench import pixels_of, with_square

MASKS = '[input]\nkind = "{kind}"\n{more}\n[input.scaling]\ndivisor = 255.0\n[output]\ntask = "segmentation"\n'


class InProcess:
    """A model that is answered by ONNX Runtime in this process."""

    name, version, on_fallback, finding = "m", "1", False, None

    def __init__(self, path: Path, **section: Any) -> None:
        self.bundle = open_bundle(path)
        self.section = ModelSection.model_validate({"name": "m", "bundle": path, **section})
        self.reader = reader_of(self.bundle)
        self.specs = specs_of(self.bundle)
        self.runner = runner_of(self.bundle)
        self.error: Exception | None = None
        self.asked: list[dict[str, Any]] = []

    @property
    def info(self) -> Any:
        return self.runner.info

    def submit(self, feeds: Any, **how: Any) -> Future[Reply]:
        self.asked.append(how)
        future: Future[Reply] = Future()
        if self.error is not None:
            future.set_exception(self.error)
        else:
            future.set_result(Reply(dict(self.runner.infer(feeds)), self.runner.info, (), 1, 1))
        return future


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Any]:
    entered: list[Any] = []

    def make(kind: str, shape: tuple[int, ...], more: str = "", **section: Any) -> InProcess:
        path = write_mask_bundle(tmp_path / "m.edgemed", int8=None, shape=shape)
        reseal(path, files={"recipe.toml": MASKS.format(kind=kind, more=more).encode()})
        model = InProcess(path, **section)
        entered.append(model.runner.__enter__())
        return model

    yield make
    for runner in entered:
        runner.__exit__(None, None, None)


def task(root: Path, *images: Any) -> Task:
    files = []
    for index, image in enumerate(images):
        path = kit.write(image, root / f"{index}")
        files.append(TaskFile(path, str(image.SeriesInstanceUID)))
    return Task(1, "m", "study", 1, "", utc(), utc(), 1, tuple(files))


def look(model: InProcess, what: Task, deadline_ns: int | None = None) -> Findings:
    due_ns = time.monotonic_ns() + 10**10
    readings = Readings.of(model.bundle)
    nothing = lambda *_: None  # noqa: E731
    return Examination(
        what, model, readings, due_ns=due_ns, deadline_ns=deadline_ns, progress=nothing, on_sample=nothing
    ).run()


def cine(frames: int) -> Any:
    return with_square(sop_class=kit.US_MULTIFRAME, frames=frames)


def test_a_whole_cine_has_a_plane_for_each_frame(tmp_path: Path, served: Any) -> None:
    found = look(served("cine", (1, 4, 8, 8, 1)), task(tmp_path, cine(4)))
    (reading,) = found.readings
    assert reading.labels is not None
    assert reading.labels.shape == (1, 4, 32, 48)
    assert found.planes == tuple((0, frame) for frame in range(4))
    assert (reading.source, reading.frame) == (0, None)


def test_clips_are_shown_by_the_frame_in_their_middle_and_keep_no_masks(tmp_path: Path, served: Any) -> None:
    found = look(served("cine", (1, 4, 8, 8, 1), "time = { frames = 4 }"), task(tmp_path, cine(8)))
    assert [(r.source, r.frame, r.labels) for r in found.readings] == [(0, 2, None), (0, 6, None)]
    assert found.readings[0].scores[0].found
    assert found.notes == ["Masks of clips are not kept: a frame may be in several."]


def test_tiles_are_put_together_again(tmp_path: Path, served: Any) -> None:
    model = served("image", (1, 8, 8, 1), "tiles = { size = [8, 8], overlap = [0, 0] }")
    image = with_square()
    found = look(model, task(tmp_path, image))
    (reading,) = found.readings
    assert len(model.asked) == 4 * 6
    assert reading.labels is not None
    assert np.array_equal(reading.labels[0], pixels_of(image)[0] > 127)
    assert all(how["frame"] == 1 for how in model.asked)


def test_of_several_series_the_one_with_most_images_is_the_volume(tmp_path: Path, served: Any) -> None:
    study, few, many = (generate_uid() for _ in range(3))
    size = {"rows": 32, "columns": 48, "level": 30, "study": study}
    images = [kit.image(series=few, position=float(z), **size) for z in range(3)]
    images += [kit.image(series=many, position=float(z), **size) for z in range(4)]
    found = look(served("volume", (1, 4, 8, 8, 1)), task(tmp_path, *images))
    assert found.planes == ((3, 0), (4, 0), (5, 0), (6, 0))
    assert found.notes == ["Of several series, the one with most images that fits was analysed."]


def test_masks_are_held_within_bounds(tmp_path: Path, served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "MOST_MASKED", 3 * 32 * 48)
    found = look(served("image", (1, 8, 8, 1)), task(tmp_path, cine(9)))
    assert [r.frame for r in found.readings] == [0, 4, 8]
    assert found.notes == ["3 of 9 frames were analysed, evenly spread."]


@pytest.mark.parametrize(
    ("error", "when_lost", "end", "counts"),
    [
        (ChildError("The worker died.", ""), "queue", Interrupted, True),
        (DeviceStateError("It is being loaded.", ""), "queue", Interrupted, False),
        (ResourceError("7 requests wait already.", ""), "onnxruntime", Interrupted, False),
        (ChildError("The worker died.", ""), "refuse", Declined, None),
    ],
)
def test_what_it_means_that_the_model_does_not_answer(
    tmp_path: Path, served: Any, error: Exception, when_lost: str, end: type[Exception], counts: bool | None
) -> None:
    model = served("image", (1, 8, 8, 1), when_lost=when_lost)
    model.error = error
    with pytest.raises(end) as caught:
        look(model, task(tmp_path, with_square()))
    assert getattr(caught.value, "counts", None) is counts
    with pytest.raises(Declined, match="before the deadline"):
        look(model, task(tmp_path, with_square()), deadline_ns=time.monotonic_ns())


def test_what_is_not_there_is_our_fault(tmp_path: Path, served: Any) -> None:
    what = task(tmp_path, with_square())
    what.files[0].path.unlink()
    with pytest.raises(Broken, match="spool"):
        look(served("image", (1, 8, 8, 1)), what)


def test_a_result_says_so_where_the_fallback_answered(tmp_path: Path, served: Any) -> None:
    model = served("image", (1, 8, 8, 1))
    model.on_fallback = True
    found = look(model, task(tmp_path, with_square()))
    assert found.notes == ["The model's own worker did not answer: the fallback on the CPU did."]
