"""The daemon as a whole."""

from __future__ import annotations

from pathlib import Path

from tests.serve import kit


def test_it_starts_and_ends(tmp_path: Path) -> None:
    with kit.running(kit.bedside(tmp_path)) as daemon:
        assert daemon.services.models.names() == ["chest"]
    assert (tmp_path / "state" / "journal.sqlite3").exists()
