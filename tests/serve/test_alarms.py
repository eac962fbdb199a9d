"""Alarms: what the journal says of them after a restart is what stood."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from edgemed.serve.alarms import Alarms
from edgemed.serve.journal.database import Journal


def test_one_that_is_cleared_while_it_is_raised_does_not_stand_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal(tmp_path / "j.sqlite3") as journal:
        alarms = Alarms(journal)
        clearing = threading.Thread(target=alarms.clear, args=("hot",))

        def submit(work, submit=journal.submit):  # type: ignore[no-untyped-def]
            if not clearing.ident:  # another thread comes between the memory and the journal, if it can
                clearing.start()
                clearing.join(0.5)
            return submit(work)

        monkeypatch.setattr(journal, "submit", submit)
        alarms.raise_("hot", "It is hot.")
        clearing.join()
        assert alarms.standing == []
    with Journal(tmp_path / "j.sqlite3") as journal:
        again = Alarms(journal)
        again.load()
        assert again.standing == []
