"""Kernels beside the recipe on one frame: what the tests of equality share."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgemed.base.runner import TensorSpec
from edgemed.recipe.apply import Preprocessor
from edgemed.recipe.image import Image, plain
from edgemed.recipe.schema import Layout, Recipe
from edgemed.runtime.kernels.plan import KernelPlan, Refusal, plan_kernels
from edgemed.runtime.kernels.raw import RawFormat
from tests.runtime.kernels import twin

HALF = 2.0**-10
"""Of the value: where FP32 values lie on either side of the middle of two float16 values, those differ by one step."""


def recipe(*steps: dict[str, Any], **given: Any) -> Recipe:
    return Recipe.model_validate({"input": {"steps": steps, **given}})


def spec_of(rows: int | None, columns: int | None, channels: int, layout: Layout, dtype: str = "float32") -> TensorSpec:
    shape = (1, channels, rows, columns) if layout == "NCHW" else (1, rows, columns, channels)
    return TensorSpec("x", dtype, shape)


def planned(whole: Recipe, spec: TensorSpec, layout: Layout, raw: RawFormat) -> KernelPlan:
    plan = plan_kernels(whole, spec, layout, raw)
    assert not isinstance(plan, Refusal), str(plan)
    return plan


def difference(
    whole: Recipe,
    spec: TensorSpec,
    layout: Layout,
    image: Image | np.ndarray,
    raw: RawFormat | None = None,
) -> float:
    """Greatest difference as a share of the greatest value that a sample can have; asserts that it is small.

    Args:
        whole: the recipe.
        spec: of the model's input.
        layout: of `spec`.
        image: what the recipe takes; its pixels are the raw frame.
        raw: of the frame, where it says more than the image.
    """
    image = image if isinstance(image, Image) else plain(image)
    plan = planned(whole, spec, layout, raw or RawFormat.of(image))
    return agree(plan, Preprocessor(whole, spec, layout).prepare(image).sample, image.pixels)


def agree(plan: KernelPlan, expected: np.ndarray, frame: np.ndarray) -> float:
    """The same for a plan and what the recipe made of the frame."""
    found = twin.run(plan, frame)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    scale = max(abs(bound) for bound in plan.bounds) or 1.0
    apart = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    half = HALF * np.abs(expected.astype(np.float64)) + 2.0**-24 if plan.dtype == "float16" else np.zeros_like(apart)
    allowed = plan.tolerance + half
    low, high = plan.bounds
    edge = 1e-6 * scale + half.max()  # bounds are themselves FP32
    assert low - edge - plan.tolerance <= expected.min()
    assert expected.max() <= high + edge + plan.tolerance
    assert (apart <= allowed).all(), f"{apart.max() / scale:.2e} of the range apart"
    return float(apart.max() / scale)
