"""Fixtures of the runtime's tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.register_assert_rewrite("tests.runtime.cuda_fixture")

from tests.runtime.cuda_fixture import fakecuda  # noqa: E402

__all__ = ["fakecuda"]


@pytest.fixture
def script() -> Any:
    """What the engines of `device` do."""
    from tests.runtime.faked_device import script_of  # here: tests on a real GPU need none of what it imports

    return script_of()


@pytest.fixture
def device(fakecuda: Any, script: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A machine with a GPU and TensorRT; builds a bundle's engine there."""
    from tests.runtime.faked_device import device_of

    with device_of(script, monkeypatch) as build:
        yield build
