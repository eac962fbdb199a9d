"""Fixtures of the runtime's tests."""

import pytest

pytest.register_assert_rewrite("tests.runtime.cuda_fixture")

from tests.runtime.cuda_fixture import fakecuda  # noqa: E402

__all__ = ["fakecuda"]
