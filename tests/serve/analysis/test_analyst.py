"""From a queued task to results in the spool."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, generate_uid

from edgemed.imaging.results import make
from edgemed.serve.daemon import Daemon
from edgemed.serve.journal.records import move_task
from edgemed.serve.services import Services
from edgemed.serve.states import Event, State
from tests.serve import kit
from tests.serve.analysis import bench, bundles
from tests.serve.analysis.bench import pixels_of, with_square


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root: Path = tmp_path_factory.mktemp("bedside")
    made = {name: getattr(bundles, name)(root / f"{name}.edgemed") for name in ("chest", "masks", "volume", "gated")}
    odd = bundles.nan_of_dark(root / "odd.edgemed")

    def model(name: str, bundle: Path, **more: Any) -> dict[str, Any]:
        return {"name": name, "bundle": bundle, "runner": "onnxruntime", **more}

    models = [
        model("chest", made["chest"]),
        model("masks", made["masks"]),
        model("gated", made["gated"], max_ood=10, results=["json"]),
        model("volume", made["volume"], level="series"),
        model("odd", odd),
        model("late", made["chest"], deadline="1ns", results=["json"]),
        model("dropped", made["chest"], deadline="1ns", late="drop"),
    ]
    with kit.running(kit.bedside(root, models=models)) as running:
        yield running


@pytest.fixture
def services(daemon: Daemon) -> Services:
    return daemon.services


def test_an_image_is_answered(services: Services) -> None:
    task = bench.queue(services, kit.image(level=200))
    (row,) = bench.ended(services, task)
    assert (row["state"], row["reason"], row["tries"]) == ("delivered", "", 1)
    assert row["digest"] == services.models.get("chest").bundle.digest
    found = bench.document(services, task)
    (reading,) = found["readings"]
    assert [(score["name"], score["found"]) for score in reading["scores"]] == [("normal", False), ("pneumonia", True)]
    assert reading["scores"][1]["code"]["value"] == "233604007"
    assert (found["model"]["backend"], found["model"]["precision"]) == ("onnxruntime", "fp32")
    assert found["ood"] is None  # it was not calibrated on images: it cannot tell
    assert len(bench.results(services, task, "sr")) == 1


def test_the_contract_is_asked_before_the_pixels(services: Services) -> None:
    damaged = kit.image(sop_class=kit.CR, level=200, Modality="MR")
    damaged.file_meta.TransferSyntaxUID = JPEG2000Lossless  # its pixels cannot be decoded
    damaged.PixelData = encapsulate([b"\xff\x4f\xff\x51rubbish."])
    damaged["PixelData"].is_undefined_length = True
    rows = bench.ended(services, bench.queue(services, damaged))
    assert rows[0]["state"] == "not-analysed"
    assert rows[0]["reason"] == "Modality is 'MR'; the recipe's contract takes CT, US."
    assert bench.document(services, rows[0]["id"])["refusal"] == rows[0]["reason"]
    assert len(bench.results(services, rows[0]["id"], "sr")) == 1


@pytest.mark.parametrize("data", [b"no image at all", b"\x00" * 132 + b"rubbish", b"\x89PNG\r\n\x1a\nrubbish"])
def test_what_cannot_be_read_is_not_analysed(services: Services, data: bytes) -> None:
    (row,) = bench.ended(services, bench.queue(services, data))
    assert row["state"] == "not-analysed"
    assert str(services.spool.root) not in row["reason"]
    assert row["reason"][0].isupper()
    assert row["tries"] == 1


def test_truncated_pixels_are_not_analysed(services: Services) -> None:
    ds = kit.image(level=200)
    data = kit.encode(ds)
    (row,) = bench.ended(services, bench.queue(services, data[:-1000]))
    assert row["state"] == "not-analysed"
    assert bench.row(services, row["id"])["reason"] == row["reason"] != ""


def test_every_frame_of_a_cine_is_answered(services: Services) -> None:
    cine = kit.image(sop_class=kit.US_MULTIFRAME, frames=6, level=30)
    pixels = pixels_of(cine).copy()
    pixels[4] = 220
    cine.PixelData = pixels.tobytes()
    task = bench.queue(services, cine)
    bench.ended(services, task)
    readings = bench.document(services, task)["readings"]
    assert [(r["input"], r["frame"]) for r in readings] == [(0, i) for i in range(6)]
    assert [r["scores"][1]["found"] for r in readings] == [False, False, False, False, True, False]


def test_of_a_long_cine_so_many_frames_are_analysed_and_the_result_says_so(services: Services) -> None:
    cine = kit.image(sop_class=kit.US_MULTIFRAME, frames=600, rows=8, columns=8)
    task = bench.queue(services, cine, model="late")
    (row,) = bench.ended(services, task)
    assert row["state"] == "delivered"
    found = bench.document(services, task)
    frames = [r["frame"] for r in found["readings"]]
    assert (len(frames), frames[0], frames[-1]) == (128, 0, 599)
    assert "128 of 600 frames were analysed, evenly spread." in found["notes"]


def test_a_mask_lies_on_the_pixels_of_the_source(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = make.make_results
    monkeypatch.setattr("edgemed.imaging.results.make_results", lambda c, k: (seen.append(c), real(c, k))[1])
    task = bench.queue(services, with_square(), model="masks")
    bench.ended(services, task)
    (reading,) = seen[0].readings
    assert reading.labels.shape == (1, 32, 48)
    marked = np.argwhere(reading.labels[0])
    # the model sees 8 x 8 pixels: an edge may be off by one of its pixels, 4 rows or 6 columns
    assert np.abs(marked.min(axis=0) - (4, 24)).tolist() <= [4, 6]
    assert np.abs(marked.max(axis=0) - (11, 35)).tolist() <= [4, 6]
    assert reading.scores[0].concept.meaning == "Neoplasm"


def slices(order: list[int], **attributes: Any) -> list[Any]:
    """Four slices of one series, the bright square in the third."""
    study, series = generate_uid(), generate_uid()
    made = []
    for place in order:
        draw = with_square if place == 2 else kit.image
        size = {} if place == 2 else {"rows": 32, "columns": 48, "level": 30}
        made.append(draw(study=study, series=series, position=float(place), **size, **attributes))
    return made


def test_a_series_is_one_volume_whatever_the_order_of_its_files(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = make.make_results
    monkeypatch.setattr("edgemed.imaging.results.make_results", lambda c, k: (seen.append(c), real(c, k))[1])
    task = bench.queue(services, *slices([3, 0, 2, 1]), model="volume", level="series")
    (row,) = bench.ended(services, task)
    assert (row["state"], row["reason"]) == ("delivered", "")
    (content,) = seen
    (reading,) = content.readings
    assert reading.labels.shape == (1, 4, 32, 48)
    assert reading.source is None
    assert content.planes == ((1, 0), (3, 0), (2, 0), (0, 0))
    assert reading.labels[0].any(axis=(1, 2)).tolist() == [False, False, True, False]


def test_a_series_with_a_hole_is_not_analysed(services: Services) -> None:
    task = bench.queue(services, *slices([0, 1, 3, 4]), model="volume", level="series")
    (row,) = bench.ended(services, task)
    assert row["state"] == "not-analysed"
    assert str(services.spool.root) not in row["reason"]


def test_of_several_files_what_does_not_fit_is_left_out_and_named(services: Services) -> None:
    study = generate_uid()
    images = [kit.image(study=study, level=200), kit.image(study=study, level=200, Modality="MR")]
    task = bench.queue(services, *images, level="study")
    (row,) = bench.ended(services, task)
    assert row["state"] == "delivered"
    found = bench.document(services, task)
    assert [r["input"] for r in found["readings"]] == [0]
    assert found["notes"][0].startswith("1 of 2 files was left out: Modality is 'MR'")


def test_nan_is_never_an_answer(services: Services) -> None:
    task = bench.queue(services, kit.image(level=40), model="odd")
    (row,) = bench.ended(services, task)
    assert (row["state"], row["reason"]) == ("failed", "The model answered NaN or infinity in score.")
    assert bench.results(services, task, "json") == []
    assert ("input-failed", "odd") in [(alarm.code, alarm.subject) for alarm in services.alarms.standing]


def test_what_is_too_unlike_the_models_images_is_not_analysed(services: Services) -> None:
    alike = Image.fromarray(np.random.default_rng(1).integers(0, 256, (8, 8), np.uint8))
    unlike = Image.fromarray(np.full((8, 8), 1.0e6, np.float32))
    tasks = [bench.queue(services, data, model="gated") for data in (as_file(alike), as_file(unlike))]
    one, other = bench.ended(services, *tasks)
    assert (one["state"], other["state"]) == ("delivered", "not-analysed")
    assert bench.document(services, tasks[0])["ood"] < 2
    assert other["reason"].startswith("The image is unlike those that the model was built with: its score is ")
    assert bench.document(services, tasks[1])["ood"] > 1000


def as_file(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "TIFF")
    return buffer.getvalue()


def test_a_late_answer_says_so_and_too_many_of_them_are_an_alarm(services: Services) -> None:
    missed = services.metrics.deadline_missed.labels("late")._value
    before = missed.get()
    tasks = [bench.queue(services, kit.image(level=200), model="late") for _ in range(3)]
    assert {row["state"] for row in bench.ended(services, *tasks)} == {"delivered"}
    assert bench.document(services, tasks[0])["notes"][0] == "It was answered after its deadline."
    assert ("deadline-missed", "late") in [(alarm.code, alarm.subject) for alarm in services.alarms.standing]
    assert missed.get() == before + 3


def test_a_late_answer_is_dropped_where_the_site_wants_it_so(services: Services) -> None:
    task = bench.queue(services, kit.image(level=200), model="dropped")
    (row,) = bench.ended(services, task)
    assert (row["state"], row["reason"]) == ("not-analysed", "There was no answer before the deadline.")


def test_a_calendar_that_was_set_meanwhile_drops_nothing(tmp_path: Path) -> None:
    """It was complete in 1970, by a clock without a battery; then the daemon was started again."""
    old = "1970-01-01T00:03:00.000000Z"
    chest = kit.write_classifier(tmp_path / "chest.edgemed")
    one = {"name": "chest", "bundle": chest, "runner": "onnxruntime", "deadline": "10min", "late": "drop"}
    config = kit.bedside(tmp_path, models=[one])
    with kit.resting(config) as services:
        task = bench.queue(services, kit.image(level=200), model="chest")
        services.journal.write(lambda c: c.execute("UPDATE task SET created = ?, completed = ?", (old, old)))
    with kit.running(config) as daemon:
        (row,) = bench.ended(daemon.services, task)
        assert (row["state"], row["reason"]) == ("delivered", "")


def test_plain_pictures_are_known_by_their_content(services: Services) -> None:
    task = bench.queue(services, as_file(Image.fromarray(np.full((16, 16), 220, np.uint8))), model="masks")
    (row,) = bench.ended(services, task)
    assert (row["state"], row["reason"]) == ("delivered", "")


def test_what_was_begun_too_often_has_failed_and_a_retry_begins_anew(services: Services) -> None:
    task = bench.queue(services, kit.image(level=200), model="nobody")
    old = "2020-01-01T00:00:00.000000Z"
    services.journal.write(
        lambda c: c.execute("UPDATE task SET tries = 3, model = 'chest', completed = ? WHERE id = ?", (old, task))
    )
    (row,) = bench.ended(services, task)
    assert row["state"] == "failed"
    assert "3 times" in row["reason"]
    services.journal.write(lambda c: move_task(c, task, Event.RETRY))
    (row,) = bench.ended(services, task, states=(State.DELIVERED,))
    assert row["tries"] == 1
    assert row["completed"] > old


def test_what_is_under_way_by_the_journal_alone_is_queued_again(services: Services) -> None:
    task = bench.queue(services, kit.image(level=200), model="nobody")
    services.journal.write(
        lambda c: c.execute("UPDATE task SET state = 'analysing', model = 'chest' WHERE id = ?", (task,))
    )
    (row,) = bench.ended(services, task)
    assert row["state"] == "delivered"


def test_a_file_that_is_gone_is_our_fault(services: Services) -> None:
    task = bench.queue(services, kit.image(level=200), model="nobody")
    with services.journal.read() as connection:
        (path,) = connection.execute(
            "SELECT path FROM object JOIN part ON part.object = object.id WHERE part.task = ?", (task,)
        ).fetchone()
    services.spool.path(path).unlink()
    services.journal.write(lambda c: c.execute("UPDATE task SET model = 'chest' WHERE id = ?", (task,)))
    (row,) = bench.ended(services, task)
    assert (row["state"], row["reason"]) == ("failed", "A file of it is not in the spool any more.")


def test_every_stage_is_in_the_timeline_and_the_metrics(services: Services) -> None:
    images = [kit.image(level=200)]
    task = bench.queue(services, *images)
    bench.ended(services, task)
    text = {
        sample.labels["stage"]
        for metric in services.metrics.registry.collect()
        if metric.name == "edgemed_stage_seconds"
        for sample in metric.samples
        if sample.name.endswith("_count") and sample.labels["model"] == "chest" and sample.value
    }
    assert {"decode", "preprocess", "infer", "postprocess", "write"} <= text
