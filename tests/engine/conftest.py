"""What the real bindings say of themselves, asked once."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.wheels import cache_dir
from tests.engine import fetch_bindings

CACHE = cache_dir()  # now: fixtures move XDG_CACHE_HOME to a private place later
ROWS = pytest.mark.parametrize("row", fetch_bindings.ROWS, ids=lambda row: row.version)


@pytest.fixture(scope="session")
def surveys() -> dict[str, dict[str, Any]]:
    return {row.version: fetch_bindings.survey(row, CACHE) for row in fetch_bindings.ROWS if not row.unsupported}


def surveyed(surveys: dict[str, dict[str, Any]], row: fetch_bindings.Bindings) -> dict[str, Any]:
    """The survey of one release, where this Python has it."""
    if row.unsupported:
        pytest.skip(row.unsupported)
    return surveys[row.version]
