"""Every other row of the matrix, small."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.matrix.small import build_and_check, rows

pytestmark = pytest.mark.usefixtures("shared_child")


@pytest.mark.parametrize("name", rows("segmentation", "sequences", "other", "layers"))
def test_row(zoo: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    build_and_check(zoo, tmp_path, name)
