"""The weekly report: sketches that stay small and fair, verdicts with the error that they claim, the command."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluate.hostile import reseal

from edgemed.base.errors import GateError, InconclusiveError, InputError, UsageError
from edgemed.bundle.read import open_bundle
from edgemed.cli.app import invoke
from edgemed.evaluate.likeness import FILE, document
from edgemed.report.drift import render_drift
from edgemed.serve.analysis import mix, sketches
from edgemed.serve.analysis.analyst import Analyst
from edgemed.serve.analysis.distribution import samples_of
from edgemed.serve.analysis.drift import MOST_WATCHED
from edgemed.serve.analysis.sketches import KEPT, Sketch, Sketches, load, week_of
from edgemed.serve.config import Config
from edgemed.serve.daemon import Daemon
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.recovery import JOURNAL
from edgemed.serve.services import Part, Services
from edgemed.serve.weekly import BLIND, LEVEL, ModelWeek, keep_report, report, to_document, weekly_of
from tests.serve import kit
from tests.serve.analysis.bench import ended, queue
from tests.waiting import wait_for

MONDAY = datetime(2026, 11, 23, tzinfo=timezone.utc)
DIGEST = "d" * 64
Clock = Callable[[int], None]


@pytest.fixture
def week(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Sets the calendar to a week from that of `MONDAY`."""

    def turn(weeks: int) -> None:
        moment = MONDAY + timedelta(days=7 * weeks, hours=5)
        monkeypatch.setattr(sketches, "utc", lambda: moment)
        monkeypatch.setattr("edgemed.serve.weekly.utc", lambda: moment)

    turn(0)
    return turn


@pytest.fixture
def state(tmp_path: Path) -> Path:
    random.seed(3)  # reservoirs
    with Journal(tmp_path / JOURNAL):
        pass
    return tmp_path


def fill(state: Path, values: Any, *, kind: str = "CT", unlike: int = 0, reference: Any = ()) -> None:
    """Tasks of this week with one score each."""
    kept = Sketches(weekly_of(state))
    own = {"score": [float(value) for value in reference]} if len(reference) else {}
    for index, value in enumerate(values):
        kept.add("chest", DIGEST, {"score": float(value)}, {"modality": kind}, index < unlike, own)
    kept.keep()


def the_one(state: Path, weeks: int = 4) -> ModelWeek:
    (one,) = report(state, weeks=weeks)
    return one


def verdicts(one: ModelWeek) -> dict[str, str]:
    return {f"{line.number} {line.against}": line.verdict for line in one.numbers} | {
        line.name: line.verdict for line in one.shares
    }


def test_a_sketch_is_a_fair_sample_and_stays_small() -> None:
    random.seed(5)
    sketch = Sketch()
    for value in np.linspace(0, 1, 20_000):  # in order: the first ones alone would be a bad sample
        sketch.add({"score": float(value), "wrong": float("nan")}, {"modality": "CT"}, None)
    kept = np.sort(sketch.kept["score"])
    assert (sketch.tasks, sketch.seen, len(kept)) == (20_000, {"score": 20_000}, KEPT)
    assert np.max(np.abs(kept - np.linspace(0, 1, KEPT))) < 0.1  # of such samples, 1 in 10,000 is farther off
    assert sketch.judged == 0
    many = Sketch()
    many.add({f"class {n}": 0.5 for n in range(100)}, {}, True)
    assert len(many.kept) == MOST_WATCHED
    assert (many.judged, many.unlike) == (1, 1)


def test_weeks_are_files_that_outlive_the_daemon_for_a_while(
    state: Path, week: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sketches, "WEEKS", 3)
    for number in range(5):
        week(number)
        fill(state, [0.1])
        fill(state, [0.2, 0.3])
    folder = weekly_of(state) / "chest"
    assert sorted(path.stem for path in folder.iterdir()) == ["2026-W50", "2026-W51", "2026-W52"]
    assert load(folder / "2026-W50.json")[DIGEST].kept == {"score": [0.1, 0.2, 0.3]}
    (folder / "2026-W50.json").write_text("{}")
    assert load(folder / "2026-W50.json") == {}
    assert week_of(datetime(2027, 1, 1, tzinfo=timezone.utc)) == "2026-W53"


def test_weeks_alike_are_called_shifted_no_more_often_than_is_said(state: Path, week: Clock) -> None:
    rng, wrong = np.random.default_rng(1), 0
    for number in range(60):
        week(number)
        fill(state, rng.beta(2, 5, 60), unlike=rng.binomial(60, 0.1), reference=rng.beta(2, 5, 32))
        wrong += number > 0 and the_one(state).verdict == "shifted"
    assert wrong <= 3  # each with a chance of LEVEL at most: so many have one of 1 in 300
    assert LEVEL == 0.01


@pytest.mark.parametrize(("shift", "tasks"), [(0.0, 400), (0.3, 400), (0.3, 4000), (0.6, 300)])
def test_the_true_distance_is_in_its_interval(state: Path, week: Clock, shift: float, tasks: int) -> None:
    """Of two uniform distributions of width 1, it is how far they lie apart."""
    rng = np.random.default_rng(int(tasks + 10 * shift))
    fill(state, rng.random(tasks))
    week(1)
    fill(state, rng.random(tasks) + shift)
    (line,) = the_one(state).numbers
    assert line.low <= shift <= line.high
    assert (line.tasks, line.others) == (min(tasks, KEPT), min(tasks, KEPT))
    assert line.verdict == ("shifted" if shift else "no shift seen")


def test_few_tasks_do_not_cry_wolf(state: Path, week: Clock) -> None:
    fill(state, [0.1] * 3)
    week(1)
    fill(state, [0.9] * 3, kind="MR", unlike=3)
    one = the_one(state)
    assert set(verdicts(one).values()) == {"too few"}
    assert one.verdict == "too few"
    week(2)
    fill(state, [0.9] * one.needed)
    week(3)
    fill(state, [0.9] * one.needed)
    (line,) = the_one(state, weeks=1).numbers
    assert line.resolution == pytest.approx(BLIND, rel=0.02)


def test_what_shifts_is_named(state: Path, week: Clock) -> None:
    rng = np.random.default_rng(2)
    own = rng.beta(2, 5, 32)
    for number in range(3):
        week(number)
        fill(state, rng.beta(2, 5, 200), unlike=10, reference=own)
    week(3)
    fill(state, rng.beta(5, 2, 150), unlike=60, reference=own)
    fill(state, rng.beta(5, 2, 150), kind="CR", reference=own)
    one = the_one(state)
    assert verdicts(one) == {
        "score bundle": "shifted",
        "score weeks before": "shifted",
        "not analysed": "too few",  # the journal has no task of it
        "failed": "too few",
        "unlike the bundle's images": "shifted",
        "modality CR": "shifted",
        "modality CT": "shifted",
    }
    assert one.weeks_before == ("2026-W48", "2026-W49", "2026-W50")
    counts = one.histograms["score"]["counts"]
    assert [sum(counts[what]) for what in ("week", "bundle", "weeks before")] == [300, 32, 600]
    week(4)
    fill(state, rng.beta(5, 2, 300), kind="CR", reference=own)
    assert verdicts(the_one(state, weeks=1))["score weeks before"] == "no shift seen"


def test_the_report_of_a_week_is_kept_once_it_is_over(state: Path, week: Clock) -> None:
    keep_report(state)
    assert not (state / "drift").exists()
    fill(state, [0.1, 0.2])
    keep_report(state)
    assert not (state / "drift" / "reports").exists()
    week(1)
    fill(state, [0.3])
    keep_report(state)
    (path,) = (state / "drift" / "reports").iterdir()
    made = json.loads(path.read_bytes())
    assert (path.stem, made["models"][0]["week"], made["models"][0]["tasks"]) == ("2026-W48", "2026-W48", 2)
    before = path.stat().st_mtime_ns
    keep_report(state)
    assert path.stat().st_mtime_ns == before


def test_the_command(state: Path, week: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(4)
    with pytest.raises(InputError, match="no sketch of any model yet"):
        invoke(["drift", str(state)])
    assert "No task has been counted yet." in render_drift(to_document(state, []))  # as the daemon's page says it
    fill(state, rng.random(10))
    with pytest.raises(InconclusiveError, match="too few tasks"):
        invoke(["drift", str(state)])
    assert "chest dddddddddddd, 2026-W48, none before: 10 tasks here" in capsys.readouterr().out
    fill(state, rng.random(400))
    week(1)
    fill(state, rng.random(400))
    assert invoke(["drift", str(state)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "weeks before" in said
    assert "400 / 410" in said
    assert "no shift seen" in said
    week(2)
    fill(state, rng.random(400) / 2)
    with pytest.raises(GateError, match="What comes in for chest, or is answered, has shifted"):
        invoke(["drift", str(state), "--json"])
    made = json.loads(capsys.readouterr().out)
    assert made["schema"] == "edgemed/drift-report/1"
    assert made["models"][0]["verdict"] == "shifted"
    assert [line["verdict"] for line in made["models"][0]["numbers"]] == ["shifted"]
    assert invoke(["drift", str(state), "--week", "2026-W49", "--html", str(state / "drift.html")]) == 0
    page = (state / "drift.html").read_text(encoding="utf-8")
    assert "No shift is seen." in page
    assert page.count("<figure>") == 1
    assert page.count("the weeks before</li>") == 1
    assert "that the bundle was built with" not in page  # nothing of it is drawn
    assert "http" not in page.replace("http-equiv", "")  # it loads nothing
    with pytest.raises(UsageError, match="no week"):
        invoke(["drift", str(state), "--week", "last"])
    with pytest.raises(InputError, match="2020-W01"):
        invoke(["drift", str(state), "--week", "2020-W01"])


# -- from images to sketches -------------------------------------------------------------------------------------------


class Answering(Daemon):
    """The daemon as far as results."""

    def _all_parts(self, services: Services) -> list[Part]:
        self.analyst = Analyst(services)
        return [services.models, self.analyst]  # type: ignore[list-item]


def site(root: Path) -> Config:
    bundle = kit.write_classifier(root / "chest.edgemed", int8=0.5)
    shadow = {"share": 1.0, "tolerance": 0.5}
    model = {"name": "chest", "bundle": bundle, "runner": "onnxruntime", "shadow": shadow, "results": ["json"]}
    return kit.bedside(root, models=[model])


def test_tasks_become_a_sketch_without_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark = "CANARYZQX"
    images = [kit.image(level=level, Manufacturer=f"SIEMENS {mark}", BodyPartExamined="CHEST") for level in (90, 220)]
    images += [kit.image(Manufacturer=mark, BodyPartExamined=mark), kit.image(sop_class=kit.CR)]
    with Answering(site(tmp_path)) as daemon:
        services = daemon.services
        wait_for(lambda: services.models.get("chest").finding is None)
        tasks = [queue(services, ds) for ds in images]
        ended(services, *tasks)

        def compared() -> bool:  # a shadow that is busy, or not there yet, is not waited for
            services.models.get("chest").submit({"image": np.full((1, 4, 4, 1), 0.4, np.float32)}).result(60)
            return services.models.describe("chest")["shadow"]["agree"] >= 4

        wait_for(compared)
        daemon.analyst._distributions.keep()
        digest = services.models.get("chest").bundle.digest
    (path,) = weekly_of(tmp_path / "state").glob("chest/*.json")
    assert mark not in path.read_text()
    sketch = load(path)[digest]
    assert (sketch.tasks, sketch.disagree, sketch.judged) == (4, 0, 4)
    assert sketch.agree >= 4
    assert sketch.mix == {
        "modality": {"CT": 3, "CR": 1},
        "body part": {"CHEST": 2, "other": 1, "none": 1},
        "manufacturer": {"siemens": 2, "other": 2},
    }
    scores = [name for name in sketch.kept if not name.startswith("input")]
    assert set(sketch.kept) == set(sketch.reference)  # by the same names: what they are held against
    assert scores
    assert all(len(values) == 4 for values in sketch.kept.values())
    with pytest.raises(InconclusiveError):
        invoke(["drift", str(tmp_path / "state"), "--json"])
    (made,) = json.loads(capsys.readouterr().out)["models"]
    assert made["ends"] == {"answered": 4, "not analysed": 0, "failed": 0}
    assert {line["against"] for line in made["numbers"]} == {"bundle"}


def test_numbers_of_a_bundle(tmp_path: Path) -> None:
    assert samples_of(open_bundle(kit.write_classifier(tmp_path / "noise.edgemed"))) == {}  # golden inputs are noise
    path = kit.write_classifier(tmp_path / "chest.edgemed", int8=0.5)
    assert {len(values) for values in samples_of(open_bundle(path)).values()} == {8}
    feeds = [{"x": np.full((1, 4, 4, 1), level, np.float32)} for level in (0.1, 0.2, 0.3)]
    manifest = open_bundle(path).manifest
    layouts = {tensor.name: tensor.layout for tensor in manifest.inputs}
    named = [{manifest.inputs[0].name: each["x"]} for each in feeds]
    reseal(path, files={FILE: json.dumps(document(named, layouts)).encode()})
    assert samples_of(open_bundle(path))["input mean"] == pytest.approx([0.1, 0.2, 0.3])
    output = manifest.outputs[0].name
    answers = [{output: np.asarray([[level]], np.float32)} for level in (0.25, 0.5, 0.75)]
    reseal(path, files={FILE: json.dumps(document(named, layouts, answers)).encode()})
    scores = {name: values for name, values in samples_of(open_bundle(path)).items() if name.startswith(output)}
    assert [0.25, 0.5, 0.75] in list(scores.values())


def test_words_are_of_fixed_lists(tmp_path: Path) -> None:
    def kind(**attributes: Any) -> list[str]:
        path = kit.write(kit.image(**attributes), tmp_path / "one.dcm")
        return list(mix.kind_of(path).values())

    assert kind(Manufacturer="GE MEDICAL SYSTEMS", BodyPartExamined="CHEST") == ["CT", "CHEST", "ge"]
    assert kind(Manufacturer="Doe, George", Modality="JANE") == ["other", "none", "other"]
    (tmp_path / "one.png").write_bytes(b"\x89PNG")
    assert mix.kind_of(tmp_path / "one.png") == dict.fromkeys(mix.FIELDS, mix.NONE)
