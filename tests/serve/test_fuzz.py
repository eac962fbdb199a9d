"""The short form of `make bench-fuzz`."""

from __future__ import annotations

from pathlib import Path

from benchmarks.fuzz import Bedside, run
from benchmarks.fuzz_pdu import held_against
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.records import NewObject, add_object
from edgemed.serve.states import State


def test_a_few_of_each_target(tmp_path: Path) -> None:
    score = run(tmp_path, {"pdu": 100, "file": 30, "folder": 8, "grpc": 30}, seed=7)
    assert score.inputs == 168
    assert score.answered > 50  # most are near enough to something good
    assert score.clean, "\n".join(score.notes)


def test_what_the_journal_does_not_know_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with Journal(tmp_path / "state" / "journal.sqlite3") as journal:
        refused = NewObject("dicom", "CT1", "1.2", "1.2.1", "", 0, "")
        journal.write(lambda connection: add_object(connection, refused, State.REFUSED, "why"))
        bedside = Bedside(process=None, folder=tmp_path, dicom=0, http=0, rpc=0, inbox=tmp_path)  # type: ignore[arg-type]
        assert held_against(bedside, {"1.2.1": [0xA900]}) == []
        lost = held_against(bedside, {"1.2.1": [0], "1.2.2": [0], "1.2.3": [0xA700]})
    assert [line.split(" ")[0] for line in lost] == ["1.2.1", "1.2.2", "1.2.3"]
