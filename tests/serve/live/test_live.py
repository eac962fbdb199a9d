"""Live sources: every frame accounted for, the newest answer on the board, and no old one taken for a new one."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgemed.imaging.results.content import Author, Reading, Score
from edgemed.runtime.sources.memory import MemorySource
from edgemed.serve.config import Config
from edgemed.serve.live import player
from edgemed.serve.live.board import Channel, Shown
from edgemed.serve.live.overlay import render
from edgemed.serve.live.player import by_outcome
from tests.serve import kit
from tests.serve.analysis import bundles
from tests.waiting import wait_for


def cine(path: Path, levels: list[int]) -> Path:
    """A cine of one gray level a frame, 25 frames a second, with a bright square on the even ones."""
    ds = kit.image(sop_class=kit.US_MULTIFRAME, frames=len(levels), rows=48, columns=64)
    pixels = np.repeat(np.array(levels, np.uint8), 48 * 64).reshape(-1, 48, 64)
    pixels[::2, 12:36, 16:48] = 250
    ds.PixelData = pixels.tobytes()
    return kit.write(ds, path)


def config(root: Path, *live: dict[str, Any]) -> Config:
    models = [
        {"name": "chest", "bundle": bundles.chest(root / "chest.edgemed"), "runner": "onnxruntime"},
        {"name": "masks", "bundle": bundles.masks(root / "masks.edgemed"), "runner": "onnxruntime"},
    ]
    return kit.bedside(root, models=models, live=list(live))


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    root = tmp_path_factory.mktemp("live")
    source = str(cine(root / "cine", [30] * 10))
    later = root / "later"
    sections = [
        {"name": "endless", "source": source, "model": "masks", "loop": True},
        {"name": "once", "source": source, "model": "chest", "policy": "lossless", "stale": "20s"},
        {"name": "absent", "source": str(later), "model": "chest"},
    ]
    with kit.running(config(root, *sections)) as daemon:
        yield daemon, later


def test_a_file_is_played_over_and_over_and_every_frame_is_accounted_for(played: Any) -> None:
    daemon, _ = played
    channel = daemon.services.board.channels["endless"]
    wait_for(lambda: channel.counts is not None and channel.counts.submitted >= 25 and channel.counts.answered >= 3)
    with channel.changed:
        counts, shown = channel.counts, channel.shown
    assert counts.unaccounted == 0
    assert counts.submitted == counts.answered + counts.failed + sum(counts.dropped.values()) + counts.in_flight
    wait_for(lambda: channel.shown is not None and channel.shown.frame > shown.frame)  # it goes on
    assert (shown.pixels.shape, shown.pixels.dtype) == ((48, 64), np.uint8)
    measured = {
        sample.labels["outcome"]: sample.value
        for metric in daemon.services.metrics.registry.collect()
        if metric.name == "edgemed_frames"
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.labels["source"] == "endless"
    }
    assert all(measured.get(outcome, 0) >= number for outcome, number in by_outcome(counts).items())


def test_the_newest_answer_lies_on_its_own_picture(played: Any) -> None:
    daemon, _ = played
    channel = daemon.services.board.channels["endless"]
    shown = wait_for(lambda: (one := channel.shown) and one.readings and one.readings[0].scores[0].found and one)
    marked = shown.readings[0].labels[0]
    bright = shown.pixels > 200
    assert bright.any()
    assert np.mean(marked == bright) > 0.9  # a mask of 8 x 8 pixels is coarse at the edges
    assert (shown.author.model, shown.author.backend) == ("masks", "onnxruntime")
    picture = Image.open(io.BytesIO(render(channel)))
    assert picture.size[0] == 480
    early, late = (shown.captured_ns + ms * 1_000_000 for ms in (10, 90))
    aged = [render(channel, shown=shown, now_ns=at) for at in (early, late)]
    plain = [render(channel, shown=shown, now_ns=at, with_age=False) for at in (early, late)]
    assert aged[0] != aged[1]
    assert plain[0] == plain[1]  # whose age stands beside it


def test_a_file_that_has_been_played_has_ended(played: Any) -> None:
    daemon, _ = played
    channel = daemon.services.board.channels["once"]
    wait_for(lambda: channel.state == "ended")
    counts = channel.counts
    assert (counts.submitted, counts.in_flight, counts.unaccounted) == (10, 0, 0)
    assert counts.answered + counts.failed == 10
    beat = daemon.services.loops.beats["live once"]
    then_ns = beat.last_ns
    daemon.services.loops.wake("live once")
    wait_for(lambda: beat.last_ns > then_ns, "a beat of who has nothing more to do")


def test_a_lost_source_is_an_alarm_until_it_is_there_again(played: Any) -> None:
    daemon, later = played
    channel = daemon.services.board.channels["absent"]
    wait_for(lambda: channel.state == "lost")
    assert channel.reason

    def alarmed() -> bool:
        standing = daemon.services.alarms.standing
        return ("source-lost", "absent") in [(alarm.code, alarm.subject) for alarm in standing]

    wait_for(alarmed)
    cine(later.with_suffix(".part"), [30] * 100).rename(later)
    wait_for(lambda: channel.state == "running")
    wait_for(lambda: not alarmed())


def test_a_source_that_never_gives_a_picture_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[MemorySource] = []

    def silent(*_: object, **__: object) -> MemorySource:
        opened.append(MemorySource([np.zeros((48, 64), np.uint8)] * 2, live=True, rate=Fraction(1, 10_000)))
        frames = opened[-1]._frames
        opened[-1]._frames = lambda: itertools.islice(frames(), 1, None)  # type: ignore[method-assign]
        return opened[-1]

    monkeypatch.setattr(player, "open_source", silent)
    monkeypatch.setattr(player, "_FIRST_NS", 1_000_000_000)
    section = {"name": "silent", "source": str(tmp_path / "a"), "model": "chest", "loop": True}
    with kit.running(config(tmp_path, section)) as daemon:
        channel = daemon.services.board.channels["silent"]
        wait_for(lambda: channel.state == "lost")
        assert channel.reason == "There was no frame for 1 s."
        wait_for(lambda: daemon.services.alarms.stands("source-lost", "silent"))
        wait_for(lambda: len(opened) == 3)  # the watch lets go of each
        assert daemon.services.loops.beats["live silent"].failures == 0


def test_an_address_that_is_none_does_not_start(tmp_path: Path) -> None:
    from edgemed.base.errors import UsageError

    bad = {"name": "bad", "source": "/dev/video0?sise=3x3", "model": "chest"}
    with pytest.raises(UsageError, match="sise"), kit.running(config(tmp_path, bad)):
        pass


# -- the picture -------------------------------------------------------------------------------------------------------

AUTHOR = Author("m", "v", "0" * 64, "int8", "onnxruntime", "cpu", "bedside", "edgemed")


def channel(age_ms: int, *, stale_ms: int = 500, **changes: Any) -> tuple[Channel, int]:
    mask = np.zeros((1, 300, 480), bool)
    mask[0, 100:200, 100:300] = True
    reading = Reading("mask", "segmentation", scores=(Score("bright", 0.97, True),), labels=mask)
    shown = Shown(7, 1_000_000_000, np.full((300, 480), 90, np.uint8), (reading,), AUTHOR)
    made = Channel("theatre", "m", stale_ms * 1_000_000, replace(shown, **changes), state="running")
    return made, 1_000_000_000 + age_ms * 1_000_000


def drawn(age_ms: int, **changes: Any) -> np.ndarray:
    made, now_ns = channel(age_ms, **changes)
    return np.asarray(Image.open(io.BytesIO(render(made, now_ns=now_ns))).convert("RGB")).astype(int)


def tinted(picture: np.ndarray) -> bool:
    """Whether the mask is on it: amber, where all else is gray."""
    return bool((picture[..., 0] - picture[..., 2] > 40)[60:250, 90:310].mean() > 0.2)


def test_a_fresh_result_is_drawn_a_stale_one_marked_an_old_one_gone() -> None:
    fresh, stale, old = drawn(100), drawn(700), drawn(1200)
    assert (tinted(fresh), tinted(stale), tinted(old)) == (True, True, False)
    edges = [picture[picture.shape[0] // 2, 1] for picture in (fresh, stale, old)]
    red = [bool(edge[0] > edge[1] + 80) for edge in edges]
    assert red == [False, True, True]
    assert old[60:250].mean() < stale[60:250].mean() / 2  # the picture is as old: it is no window


def test_gray_colour_and_none_at_all() -> None:
    assert drawn(0, pixels=np.full((300, 480, 3), 90, np.uint8)).shape == drawn(0).shape
    nothing = Channel("theatre", "m", 1, state="lost", reason="There was no frame for 5 s.")
    assert Image.open(io.BytesIO(render(nothing))).size[0] == 480
    note = drawn(0, readings=(), note="The model is being loaded.")
    assert not tinted(note)
