"""The verdict of bench-soak: a leak is seen, and noise is none. The soak itself takes minutes."""

from __future__ import annotations

import os

import numpy as np
import pytest

from benchmarks import soak


def samples(per_image: float, *, noise: float = 1e5, seed: int = 0) -> list[soak.Sample]:
    """Memory that wanders, and grows by so much with each image."""
    wander = np.random.default_rng(seed).normal(0, noise, 300).cumsum() * 0.05
    moments = np.arange(300)
    return [soak.Sample(int(n * 4), 3e8 + wander[n] + per_image * n * 4, 50, 20, 4e6, 1e7, n * 4e3) for n in moments]


def verdict(per_image: float, seed: int) -> bool:
    rise, error = soak.slope(samples(per_image, seed=seed), "memory")
    daily = soak.STUDIES * (soak.IMAGES + 1)
    return (rise + soak.T95 * error) * daily < soak.FLAT["memory"][0]


@pytest.mark.parametrize("seed", range(5))
def test_one_row_of_pixels_lost_for_each_image_is_seen(seed: int) -> None:
    assert verdict(0, seed)
    assert not verdict(64 << 10, seed)  # 64 KiB for each of 2000 images: 125 MiB a day


def test_a_slope_is_that_of_the_line() -> None:
    rise, error = soak.slope(samples(1000, noise=0), "memory")
    assert rise == pytest.approx(1000)
    assert error == pytest.approx(0, abs=1e-6)


def test_this_process_can_be_looked_at(tmp_path_factory: pytest.TempPathFactory) -> None:
    found = soak.look(tmp_path_factory.mktemp("state"), os.getpid(), 7)
    assert found.images == 7
    assert found.memory > 1 << 20
    assert found.files >= 3
    assert found.threads >= 1
    assert (found.wal, found.spool, found.journal) == (0, 0, 0)
