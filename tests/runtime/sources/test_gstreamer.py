"""Pipelines of the real GStreamer, in children that run the Python it is bound to."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime.sources import system_python, videos

from edgemed.base.errors import InputError, MissingSoftwareError
from edgemed.runtime.sources.gstreamer import GstSource

CHILD = Path(__file__).parent / "gst_child.py"


def read(action: str = "read", **settings: Any) -> Any:
    done = subprocess.run(
        [system_python.require(), str(CHILD), action, json.dumps(settings)],
        env=system_python.environment(), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_pipeline_that_is_no_camera_waits_and_ends() -> None:
    """Every picture comes, however slowly they are taken; rows of 66 pixels have padding in GStreamer."""
    found = read(pipeline="videotestsrc num-buffers=12 pattern=red ! video/x-raw,width=66,height=50", nap=0.02)
    frames = found["frames"]
    assert [frame["id"] for frame in frames] == [frame["sequence"] for frame in frames] == list(range(12))
    assert all(frame["shape"] == [50, 66, 3] and frame["first"] == [255, 0, 0] * 3 for frame in frames)
    assert all(frame["mean"] == 85 for frame in frames)
    assert (found["live"], found["lost"]) == (False, 0)


def test_a_live_pipeline_gives_the_newest_picture_with_its_time() -> None:
    pipeline = "videotestsrc is-live=true ! video/x-raw,format=GRAY16_LE,width=66,height=50,framerate=100/1"
    found = read(pipeline=pipeline, count=5, nap=0.1)
    numbers = [frame["sequence"] for frame in found["frames"]]
    times = [frame["captured_ns"] for frame in found["frames"]]
    assert found["live"] is True
    assert found["lost"] == numbers[-1] - numbers[0] + 1 - 5
    assert found["lost"] >= 4  # 10 pictures pass during each nap
    # the pipeline's own times, exactly: they do not depend on when the picture was taken
    assert [b - a for a, b in itertools.pairwise(times)] == [
        10_000_000 * (b - a) for a, b in itertools.pairwise(numbers)
    ]
    assert all(frame["age_ns"] >= 0 for frame in found["frames"])
    assert {(tuple(frame["shape"]), frame["dtype"]) for frame in found["frames"]} == {((50, 66), "uint16")}


def test_the_user_may_say_that_a_pipeline_is_live() -> None:
    found = read(pipeline="videotestsrc num-buffers=40 ! video/x-raw,width=66,height=50", live=True, nap=0.01)
    assert found["live"] is True
    assert len(found["frames"]) + found["lost"] <= 40


def test_a_file_is_played_through_gstreamer(tmp_path: Path) -> None:
    path = videos.write(tmp_path / "a.avi", 6, "mjpeg", "yuvj420p")
    found = read(pipeline=f"filesrc location={path} ! avidemux ! jpegdec")
    means = [videos.picture(number).mean() for number in range(6)]
    assert np.allclose([frame["mean"] for frame in found["frames"]], means, atol=2)  # JPEG at FFmpeg's usual quality


@pytest.mark.parametrize(
    ("pipeline", "kind", "words"),
    [
        ("nosuchelement", "InputError", "no element"),
        ("videotestsrc ! ! x", "InputError", "does not take the pipeline"),
        ("videotestsrc name=edgemed", "InputError", "edgemed"),
        ("filesrc location=/nonexistent ! decodebin", "DeviceStateError", "/nonexistent"),
        ("audiotestsrc", "InputError", "does not take the pipeline"),
    ],
)
def test_what_is_wrong_is_said(pipeline: str, kind: str, words: str) -> None:
    found = read(pipeline=pipeline)
    assert found["error"][0] == kind
    assert words in found["error"][1]


def test_a_pipeline_that_falls_silent_is_told() -> None:
    slow = "videotestsrc is-live=true ! video/x-raw,width=66,height=50,framerate=1/100"
    found = read(pipeline=slow, timeout_s=0.5)
    assert len(found["frames"]) <= 1
    assert "no picture for 0.5 s" in found["error"][1]


def test_closing_wakes_who_waits() -> None:
    slow = "videotestsrc is-live=true ! video/x-raw,width=66,height=50,framerate=1/100"
    found = read("close", pipeline=slow, timeout_s=50)
    assert "error" not in found


def test_without_gstreamer_the_way_is_said() -> None:
    script = (
        "import sys; sys.modules['gi'] = None\n"
        "from edgemed.runtime.sources.gstreamer import GstSource\n"
        "try: GstSource('videotestsrc').open()\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(MissingSoftwareError.__name__)
    assert "python3-gi" in done.stdout
    with pytest.raises(InputError, match="empty"):
        GstSource(" ")
