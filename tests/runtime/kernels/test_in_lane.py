"""Raw frames through a ring and the CUDA lane: prepared by the kernels, computed by the stand-in, in every mode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgemed.base.errors import InputError
from edgemed.base.runner import RunnerInfo
from edgemed.recipe.apply import Preprocessor
from edgemed.recipe.image import Facts, Image, LookupTable, Window
from edgemed.runtime.cuda import open_cuda
from edgemed.runtime.cuda_lane import CudaLane
from edgemed.runtime.frames import Answer, Failure, Frame
from edgemed.runtime.kernels.device import KernelPrepare
from edgemed.runtime.kernels.fill import RawFill
from edgemed.runtime.kernels.raw import RawFormat
from edgemed.runtime.ring import Ring
from tests.runtime.fakecuda.handle import FakeCudaHandle
from tests.runtime.kernels import twin
from tests.runtime.kernels.compare import planned, recipe, spec_of
from tests.runtime.standin import GAIN, OFFSET, StandIn

INFO = RunnerInfo("stand-in", "fp32", "shim")
WHOLE = recipe({"op": "window", "center": 40, "width": 400}, {"op": "resize", "filter": "area"}, color="gray")
RAW = RawFormat(50, 60, "int16")
SPEC = spec_of(24, 20, 1, "NCHW")


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(-500, 600, RAW.shape).astype(np.int16)


def frames(count: int) -> Iterator[Frame]:
    return (Frame(number, {"pixels": pixels(number)}, 0) for number in range(count))


@pytest.mark.parametrize("zero_copy", [False, True], ids=["copied", "mapped"])
@pytest.mark.parametrize("graphs", [False, True], ids=["enqueued", "replayed"])
def test_every_answer_is_that_of_the_recipes_sample(fakecuda: FakeCudaHandle, zero_copy: bool, graphs: bool):
    fakecuda.kernels(twin.for_shim())
    plan = planned(WHOLE, SPEC, "NCHW", RAW)
    execution = StandIn(open_cuda(), rows=(24, 24, 24), columns=20)  # the sample's 480 numbers in its own shape
    lane = CudaLane(open_cuda(), [execution], INFO, zero_copy=zero_copy, graphs=graphs, prepare=KernelPrepare(plan))
    assert [str(spec) for spec in lane.specs.inputs] == ["pixels int16 50×60"]
    right = 0
    with Ring(lane, fill=RawFill(plan, WHOLE)) as ring:
        for outcome in ring.run(frames(12)):
            assert isinstance(outcome, Answer)
            sample = Preprocessor(WHOLE, SPEC, "NCHW")(pixels(outcome.frame)).reshape(24, 20)
            found = outcome.outputs["y"]
            fakecuda.reads(found)
            close = GAIN * plan.tolerance + 5e-7  # FP32 near 3 rounds by 1.2e-7, the product and the sum
            np.testing.assert_allclose(found, GAIN * sample + OFFSET, rtol=0, atol=close)
            right += 1
        assert lane.graphs.startswith("replayed" if graphs else "not used")
    assert right == 12
    del lane, ring
    execution.close()


def image(**more: Any) -> Image:
    facts = Facts(*RAW.shape, modality="CT", spacing=(0.5, 0.5))
    return Image(pixels(0), facts, **{"stored_range": (0.0, 8.0), **more})


WINDOWS = (Window(40, 400),)
TABLES = (LookupTable(0, np.arange(9), 4),)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (image(windows=(Window(40, 401),), tables=TABLES), "other VOI windows than"),
        (image(windows=WINDOWS, tables=(replace(TABLES[0], data=np.arange(9) + 1),)), "other VOI LUTs than"),
        (image(windows=WINDOWS), "other VOI LUTs than"),
        (image(windows=WINDOWS, tables=TABLES, stored_range=(0.0, 9.0)), "other range of stored bits than"),
        (replace(image(windows=WINDOWS, tables=TABLES), facts=Facts(50, 60, modality="MR")), "Modality is 'MR'"),
        (
            replace(image(windows=WINDOWS, tables=TABLES), facts=Facts(50, 60, modality="CT", spacing=(0.5, 0.4))),
            "other pixel spacing than",
        ),
        (None, None),
        (image(windows=WINDOWS, tables=TABLES), None),
    ],
)
def test_a_frame_that_says_something_else_is_refused(other: Image | None, message: str | None):
    """The plan's window would be the wrong one."""
    whole = recipe({"op": "window", "file": True}, {"op": "spacing", "mm": [1, 1]}, contract={"modalities": ["CT"]})
    raw = RawFormat.of(image(windows=WINDOWS, tables=TABLES))
    fill = RawFill(planned(whole, spec_of(None, None, 1, "NCHW"), "NCHW", raw), whole)
    slot = {"pixels": np.zeros(RAW.shape, np.int16)}
    frame = Frame(0, {"pixels": pixels(3)}, 0, image=other)
    if message is None:
        fill(frame, lambda shapes: slot)
        np.testing.assert_array_equal(slot["pixels"], pixels(3))
        assert fill.prepared(0) == fill.prepared(1)
        assert fill.time is None
        return
    with pytest.raises(InputError, match=message):
        fill(frame, lambda shapes: slot)
    assert not slot["pixels"].any()


def test_a_frame_of_another_size_is_its_own_failure(fakecuda: FakeCudaHandle):
    fakecuda.kernels(twin.for_shim())
    plan = planned(WHOLE, SPEC, "NCHW", RAW)
    execution = StandIn(open_cuda(), rows=(24, 24, 24), columns=20)
    lane = CudaLane(open_cuda(), [execution], INFO, prepare=KernelPrepare(plan))
    given = [*frames(2), Frame(2, {"pixels": pixels(2)[:49]}, 0), Frame(3, {"pixels": pixels(3)}, 0)]
    with Ring(lane, fill=RawFill(plan, WHOLE)) as ring:
        kinds = {outcome.frame: type(outcome) for outcome in ring.run(iter(given))}
    assert kinds == {0: Answer, 1: Answer, 2: Failure, 3: Answer}
    del lane, ring
    execution.close()
