"""Getting a frame into a slot's input memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.base.runner import RunnerSpecs
from edgemed.runners.ort import check_feeds
from edgemed.runtime.frames import Frame
from edgemed.runtime.lane import Shapes

Memory = Callable[[Shapes | None], Mapping[str, NDArray[Any]]]
"""Gives a slot's input memory for the shapes of this frame; `None` where no input varies."""

Fill = Callable[[Frame, Memory], None]
"""Writes a frame into a slot. What it raises becomes the frame's failure."""


def copy_feeds(specs: RunnerSpecs) -> Fill:
    """A fill for frames whose data are the model's feeds: it copies them as they are.

    The fill raises `InputError` where a feed is missing, unknown, or has another dtype or shape.
    """
    dtypes = {spec.name: np.dtype(spec.dtype) for spec in specs.inputs}
    varies = any(None in spec.shape for spec in specs.inputs)

    def fill(frame: Frame, memory: Memory) -> None:
        feeds = frame.data
        if feeds.keys() != dtypes.keys():
            check_feeds(specs, feeds)
        if varies:
            check_feeds(specs, feeds)
            slot = memory({name: feed.shape for name, feed in feeds.items()})
        else:
            slot = memory(None)
        for name, feed in feeds.items():
            target = slot[name]
            if feed.shape != target.shape or feed.dtype != dtypes[name]:
                check_feeds(specs, feeds)
                raise InputError(f"Input {name} does not fit its slot.", "Give what the model takes.")
            np.copyto(target, feed)

    return fill
