"""Fixtures of the runtime's tests."""

from tests.runtime.cuda_fixture import fakecuda

__all__ = ["fakecuda"]
