"""Clips of a cine: which frames, and what becomes of those left over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.base.errors import InputError
from edgemed.recipe.clips import clip_frames
from edgemed.recipe.parts import Time


def clips(count: int, **time: object) -> list[tuple[int, ...]]:
    return list(clip_frames(count, Time.model_validate(time)))


def test_clips_as_one_would_draw_them():
    assert clips(8, frames=4) == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert clips(10, frames=4) == [(0, 1, 2, 3), (4, 5, 6, 7), (6, 7, 8, 9)]
    assert clips(10, frames=4, last="drop") == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert clips(10, frames=4, last="repeat") == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 9, 9)]
    assert clips(8, frames=4, stride=2) == [(0, 1, 2, 3), (2, 3, 4, 5), (4, 5, 6, 7)]
    assert clips(8, frames=2, step=3) == [(0, 3), (4, 7)]
    assert clips(2, frames=4, last="repeat") == [(0, 1, 1, 1)]


@pytest.mark.parametrize("last", ["shift", "drop"])
def test_short_cines_are_refused(last: str):
    with pytest.raises(InputError, match="has 6 frames; one sample takes 7"):
        clips(6, frames=3, step=3, last=last)


@given(
    st.integers(1, 60),
    st.integers(1, 8),
    st.integers(1, 4),
    st.integers(1, 12) | st.none(),
    st.sampled_from(["shift", "drop", "repeat"]),
)
def test_clips_lie_inside_and_hold_every_frame_they_can(count, frames, step, stride, last):
    try:
        found = clips(count, frames=frames, step=step, stride=stride, last=last)
    except InputError:
        assert last != "repeat"
        assert count < (frames - 1) * step + 1
        return
    assert all(len(clip) == frames and list(clip) == sorted(clip) for clip in found)
    assert all(0 <= index < count for clip in found for index in clip)
    assert found == sorted(set(found), key=lambda clip: clip)
    if last != "drop":
        gaps = (stride or frames * step) > (frames - 1) * step + 1
        assert max(index for clip in found for index in clip) == count - 1 or gaps
    if last != "drop" and step == 1 and (stride is None or stride <= frames):
        assert {index for clip in found for index in clip} == set(range(count))
