"""Streams: the recipe gives what it gives for files, every frame is accounted for, however a stream ends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgemed.base.errors import DeviceStateError, InputError, UsageError
from edgemed.base.runner import RunnerSpecs, TensorSpec
from edgemed.base.spans import Span
from edgemed.imaging.open import open_image
from edgemed.imaging.samples import SampleReader
from edgemed.recipe.clips import clip_frames
from edgemed.recipe.parts import Time
from edgemed.recipe.schema import Recipe
from edgemed.runners.null import NullRunner
from edgemed.runtime.durations import Durations
from edgemed.runtime.frames import Answer, Drop, Failure, Frame, Outcome
from edgemed.runtime.policy import LATEST, LOSSLESS, Policy
from edgemed.runtime.recipe_fill import RecipeFill
from edgemed.runtime.runner_lane import RunnerLane
from edgemed.runtime.source_run import SourceRun, Trace
from edgemed.runtime.sources.base import FrameSource
from edgemed.runtime.sources.clips import ClipSource
from edgemed.runtime.sources.files import FileSource
from edgemed.runtime.sources.limit import LimitedSource
from edgemed.runtime.sources.memory import MemorySource

SPEC = TensorSpec("image", "float32", (1, 24, 32, 3))
ECHO = RunnerSpecs((SPEC,), (TensorSpec("echo", "float32", SPEC.shape),))
RECIPE = Recipe.model_validate({"input": {"scaling": {"divisor": 255.0}}})


def echo(specs: RunnerSpecs = ECHO, latency_ns: int = 0) -> NullRunner:
    name, out = specs.inputs[0].name, specs.outputs[0].name
    return NullRunner(specs, lambda feeds: {out: feeds[name].copy()}, latency_ns=latency_ns)


def sample(name: str) -> Path:
    return Path(str(pydicom.data.get_testdata_file(name, download=False)))


def outputs(source: Any, fill: RecipeFill, specs: RunnerSpecs) -> list[NDArray[Any]]:
    run = SourceRun(RunnerLane(echo(specs), 2), source, fill, LOSSLESS)
    found = []
    for outcome in run:
        assert isinstance(outcome, Answer), outcome
        found.append(outcome.keep()[specs.outputs[0].name])
    assert run.account.counts.unaccounted == 0
    return found


# --- the same pixels as files give


FILES = [
    ("examples_ybr_color.dcm", {"scaling": {"divisor": 255.0}}, (1, 64, 80, 3)),
    ("examples_ybr_color.dcm", {"color": "gray", "steps": [{"op": "zscore"}]}, (1, 32, 32, 1)),
    ("CT_small.dcm", {"steps": [{"op": "window", "center": -600, "width": 1500}]}, (1, 96, 96, 1)),
    ("CT_small.dcm", {"steps": [{"op": "window", "center": 40, "width": 400}]}, (1, None, None, 1)),
    ("examples_rgb_color.dcm", {"contract": {"max_frames": 1}}, (1, 48, 48, 3)),
]


@pytest.mark.parametrize(("name", "given_", "shape"), FILES)
def test_a_stream_feeds_what_files_feed(name: str, given_: dict[str, Any], shape: tuple[int | None, ...]) -> None:
    spec = TensorSpec("image", "float32", shape)
    recipe = Recipe.model_validate({"input": given_})
    specs = RunnerSpecs((spec,), (TensorSpec("echo", "float32", shape),))
    reader = SampleReader((spec,), recipe, {"image": "NHWC"})
    want = [feeds["image"] for item in reader.items(sample(name)) for feeds in item.feeds]
    found = outputs(FileSource([sample(name)], open_image), RecipeFill(spec, recipe), specs)
    assert len(found) == len(want) > 0
    assert all((a == b).all() and a.dtype == b.dtype for a, b in zip(found, want, strict=True))


def test_a_cine_model_gets_the_clips_of_the_file() -> None:
    spec = TensorSpec("clip", "float32", (1, 4, 16, 20, 3))
    time_ = {"frames": 4, "step": 2, "stride": 5, "last": "shift"}
    recipe = Recipe.model_validate({"input": {"time": time_, "scaling": {"divisor": 255.0}}})
    specs = RunnerSpecs((spec,), (TensorSpec("echo", "float32", spec.shape),))
    path = sample("examples_ybr_color.dcm")
    reader = SampleReader((spec,), recipe, {"clip": "NHWC"})
    want = [feeds["clip"] for item in reader.items(path) for feeds in item.feeds]
    fill = RecipeFill(spec, recipe)
    assert fill.time is not None
    found = outputs(ClipSource(FileSource([path], open_image), fill.time), fill, specs)
    assert len(found) == len(want) > 3
    assert all((a == b).all() for a, b in zip(found, want, strict=True))


times = st.builds(
    Time, frames=st.integers(1, 5), step=st.integers(1, 4), stride=st.none() | st.integers(1, 9),
    last=st.sampled_from(["shift", "drop", "repeat"]),
)  # fmt: skip


@given(count=st.integers(1, 40), time_=times)
def test_clips_of_a_stream_are_the_clips_of_a_stored_cine(count: int, time_: Time) -> None:
    arrays = [np.full((2, 3), number, np.uint8) for number in range(count)]
    returned: list[int] = []
    try:
        want = [list(clip) for clip in clip_frames(count, time_)]
    except InputError:
        with pytest.raises(InputError):
            list(ClipSource(MemorySource(arrays), time_))
        return
    with ClipSource(_Lending(arrays, returned), time_) as source:
        frames = list(source)
    clips = [[int(value) for value in frame.data["pixels"][:, 0, 0]] for frame in frames]
    assert clips == want
    assert returned == list(range(count))
    assert [frame.id for frame in frames] == list(range(len(frames)))


class _Lending(MemorySource):
    """A camera that writes over a buffer as soon as it comes back."""

    def __init__(self, arrays: list[NDArray[Any]], returned: list[int]) -> None:
        super().__init__(arrays)
        self._returned = returned

    def _frames(self) -> Iterator[Frame]:
        for frame in super()._frames():
            lent = frame.data["pixels"].copy()
            frame.data = {"pixels": lent}

            def back(number: int = frame.id, buffer: NDArray[Any] = lent) -> None:
                buffer[...] = 255
                self._returned.append(number)

            frame.done = back
            yield frame


def test_recipes_that_no_stream_can_follow_are_refused() -> None:
    def recipe(**given_: Any) -> Recipe:
        return Recipe.model_validate({"input": given_})

    with pytest.raises(InputError, match="tile"):
        RecipeFill(SPEC, recipe(tiles={"size": [8, 8]}))
    volume = TensorSpec("image", "float32", (1, 8, 24, 32, 1))
    with pytest.raises(InputError, match="volumes"):
        RecipeFill(volume, recipe())
    with pytest.raises(InputError, match="how long a clip"):
        RecipeFill(volume, recipe(kind="cine"))


def test_a_raw_recipe_takes_arrays_as_they_are() -> None:
    raw = Recipe.model_validate({"raw": True})
    arrays = [np.full(SPEC.shape[1:], value, np.float32) for value in range(3)]
    found = outputs(MemorySource([arrays[0], arrays[1][None], arrays[2]]), RecipeFill(SPEC, raw), ECHO)
    assert [float(value.max()) for value in found] == [0, 1, 2]
    run = SourceRun(RunnerLane(echo(), 1), MemorySource([arrays[0].astype(np.uint8)]), RecipeFill(SPEC, raw), LOSSLESS)
    (failure,) = list(run)
    assert isinstance(failure, Failure)
    assert "uint8" in failure.error.what


# --- accounts


def pictures(count: int) -> list[NDArray[np.uint8]]:
    return [np.full((24, 32, 3), number % 256, np.uint8) for number in range(count)]


@pytest.mark.parametrize("policy", ["lossless", "latest", "every-3", "deadline:5ms"])
@pytest.mark.parametrize("live", [False, True])
def test_every_frame_is_in_the_account(policy: str, live: bool) -> None:
    """A camera of 500 frames a second with 3 buffers, and a model that takes 4 ms."""
    source = MemorySource(pictures(100), rate=500, live=live, buffers=3)
    drops: list[Drop] = []
    run = SourceRun(
        RunnerLane(echo(latency_ns=4_000_000), 3), source, RecipeFill(SPEC, RECIPE), Policy.parse(policy),
        on_drop=drops.append,
    )  # fmt: skip
    ids = [outcome.frame for outcome in run]
    counts = run.account.counts
    assert counts.submitted == counts.answered + counts.failed + sum(counts.dropped.values())
    assert counts.submitted + source.lost == 100
    assert counts.lost == source.lost
    assert counts.answered == len(ids)
    assert sorted([*ids, *(drop.frame for drop in drops)]) == list(range(counts.submitted))
    assert ids == sorted(ids)
    document = run.account.to_json()
    assert document["frames"] == document["answered"] + document["failed"] + sum(document["dropped"].values())
    for name in ("age", "wait", "fill", "queue", "compute"):
        stage = document["stages"][name]
        assert stage["count"] == counts.answered
        assert 0 <= stage["median_ns"] <= stage["p99_ns"] <= stage["max_ns"]
    assert document["stages"]["compute"]["median_ns"] >= 4_000_000 * 0.996  # the buckets' width
    assert any(f"{counts.submitted} frames" in line for line in run.account.lines())


def test_a_loop_that_is_left_early_is_accounted_for() -> None:
    source = MemorySource(pictures(50))
    run = SourceRun(RunnerLane(echo(), 3), source, RecipeFill(SPEC, RECIPE), LOSSLESS)
    with closing(iter(run)) as outcomes:  # type: ignore[type-var]
        for outcome in outcomes:
            if outcome.frame == 5:
                break
    counts = run.account.counts
    assert counts.in_flight == 0
    assert counts.answered == 6
    assert counts.submitted == 6 + counts.dropped["closed"]


class _Unplugged(FrameSource):
    def __init__(self) -> None:
        super().__init__(live=True)

    def _frames(self) -> Iterator[Frame]:
        for picture in pictures(7):
            yield self._frame(picture, time.monotonic_ns())
        raise DeviceStateError("The camera was unplugged.", "Plug it in.")


def test_a_source_that_fails_ends_the_stream_after_its_frames() -> None:
    run = SourceRun(RunnerLane(echo(), 2), _Unplugged(), RecipeFill(SPEC, RECIPE), LOSSLESS)
    seen: list[Outcome] = []
    with pytest.raises(DeviceStateError, match="unplugged"):
        seen.extend(run)
    assert len(seen) == run.account.counts.answered == 7


def test_a_frame_that_the_recipe_refuses_fails_alone() -> None:
    strict = Recipe.model_validate({"input": {"contract": {"min_rows": 24}}})
    arrays = [*pictures(2), np.zeros((5, 5, 3), np.uint8), *pictures(1)]
    run = SourceRun(RunnerLane(echo(), 2), MemorySource(arrays), RecipeFill(SPEC, strict), LOSSLESS)
    kinds = [type(outcome).__name__ for outcome in run]
    assert kinds == ["Answer", "Answer", "Failure", "Answer"]
    assert run.account.counts.failed == 1


def test_the_way_back_is_kept_for_what_is_computed_only() -> None:
    fill = RecipeFill(SPEC, RECIPE, keep=True)
    run = SourceRun(
        RunnerLane(echo(latency_ns=2_000_000), 3), MemorySource(pictures(60), rate=2000, live=True), fill, LATEST,
        on_drop=fill.dropped,
    )  # fmt: skip
    for outcome in run:
        assert fill.prepared(outcome.frame) is not None
        assert fill.prepared(outcome.frame) is None
        assert len(fill._prepared) <= 3
    assert fill._prepared == {}
    assert run.account.counts.dropped["superseded"] > 0


def test_limits_end_a_stream() -> None:
    def endless() -> Iterator[NDArray[np.uint8]]:
        while True:
            yield pictures(1)[0]

    for live in (False, True):
        source = LimitedSource(MemorySource(endless(), rate=1000, live=live), frames=12)
        run = SourceRun(RunnerLane(echo(), 3), source, RecipeFill(SPEC, RECIPE), LOSSLESS)
        assert len(list(run)) == run.account.counts.submitted == 12
        source = LimitedSource(MemorySource(endless(), rate=1000, live=live), seconds=0.1)
        run = SourceRun(RunnerLane(echo(), 3), source, RecipeFill(SPEC, RECIPE), LOSSLESS)
        assert len(list(run)) == run.account.counts.submitted > 0
    waits = LimitedSource(MemorySource(endless(), rate=Fraction(1, 1000), live=True), seconds=0.1)
    assert len(list(waits)) == 1  # the second frame is due in 1000 s
    for wrong in ({"frames": 0}, {"seconds": 0.0}, {"seconds": float("nan")}):
        with pytest.raises(UsageError):
            LimitedSource(MemorySource([]), **wrong)  # type: ignore[arg-type]


# --- figures


@given(st.lists(st.integers(0, 10**13), min_size=1, max_size=300), st.floats(0, 1))
def test_quantiles_are_those_of_the_values(values: list[int], share: float) -> None:
    durations = Durations()
    for value in values:
        durations.add(value)
    exact = sorted(values)[max(1, int(-(-share * len(values) // 1))) - 1]
    assert abs(durations.quantile(share) - exact) <= exact / 256  # half a bucket
    assert (durations.count, durations.max_ns, durations.total_ns) == (len(values), max(values), sum(values))
    assert Durations().quantile(0.5) == 0


def test_a_trace_is_what_browsers_open(tmp_path: Path) -> None:
    trace = Trace()
    run = SourceRun(RunnerLane(echo(), 2), MemorySource(pictures(5)), RecipeFill(SPEC, RECIPE), LOSSLESS, trace=trace)
    count = sum(1 for _ in run)
    trace.write(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    complete = [event for event in events if event["ph"] == "X"]
    assert count == 5
    assert {(event["name"], event["args"]["frame"]) for event in complete} == {
        (name, frame) for name in ("fill", "queue", "compute") for frame in range(5)
    }
    assert all(event["dur"] >= 0 for event in complete)
    named = {event["args"]["name"]: event["tid"] for event in events if event["ph"] == "M"}
    assert all(event["tid"] == named[event["name"]] for event in complete)


def test_a_trace_does_not_grow_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgemed.runtime.source_run._MOST_TRACED", 3)
    trace = Trace()
    for frame in range(4):
        trace.add((Span("fill", 0, 1, frame), Span("compute", 1, 2, frame)))
    assert (len(trace._spans), trace.left_out) == (3, 5)
