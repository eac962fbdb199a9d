"""`edgemed profile bedside.toml`: the site's daemon, a study, and what comes of it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import tomli_w

from edgemed.base.errors import ChildError, EdgemedError
from edgemed.cli.app import invoke
from edgemed.cli.way import WayRequest, walk
from edgemed.serve.observing import Observed
from tests.serve import kit
from tests.serve.test_replay import series, site, tripwire


def write_config(root: Path, config) -> Path:
    """As a file of a site."""
    file = root / "bedside.toml"
    plain = config.model_dump(mode="json", exclude_none=True, by_alias=False)
    file.write_text(tomli_w.dumps(plain), encoding="utf-8")
    return file


def test_a_study_goes_its_way_and_the_site_hears_nothing(tmp_path, capsys):
    series(tmp_path / "study", 2)
    (tmp_path / "slo.toml").write_text('schema = "edgemed/slo/1"\ndeadline_ms = 60000\n[latency]\np50_ms = 60000\n')
    with tripwire() as (port, seen):
        file = write_config(tmp_path, site(tmp_path, port))
        out, trace = tmp_path / "out", tmp_path / "trace.json"
        options = ["--study", tmp_path / "study", "--repeat", 6, "--pace", "100ms", "--slo", tmp_path / "slo.toml"]
        assert invoke(["profile", *map(str, [file, *options, "--output", out, "--trace", trace, "--json"])]) == 0
    assert seen == []
    assert not list((tmp_path / "results").iterdir())
    assert not (tmp_path / "state").exists()
    way = json.loads(capsys.readouterr().out)
    assert way == json.loads((out / "way.json").read_text())
    assert way["sent"]["accepted"] == 12
    (model,) = way["models"]
    assert model["counts"]["arrived"] == model["counts"]["answered"] == model["latency"]["n"] == 6
    assert {"wait", "receive", "collect", "queue", "compute", "write", "deliver"} <= model["stages"].keys()
    assert model["misses"]["rate"]["count"] == 0
    assert way["verdict"]["outcome"] == "pass"
    rows = list(csv.DictReader((out / "samples.csv").read_text().splitlines()))
    assert [int(row["repetition"]) for row in rows] == list(range(6))
    for row in rows:
        spent = sum(int(value) for name, value in row.items() if name.endswith("_ns") and value)
        assert spent == int(row["sent"]) - int(row["intended"])
    assert {"wait", "compute", "deliver"} <= {event["name"] for event in json.loads(trace.read_text())["traceEvents"]}
    told = (out / "way.json").read_text() + (out / "report.html").read_text() + (out / "samples.csv").read_text()
    assert "2.25." not in told
    assert "Doe" not in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bedside.toml"], "with a study"),
        (["bedside.toml", "--study", ".", "--frames", "3"], "has no --frames"),
        (["bedside.toml", "--study", ".", "--runner", "auto"], "has no --runner"),
        (["chest.edgemed", "--repeat", "3"], "has no --repeat"),
        (["nowhere.toml", "--study", "."], "nowhere.toml"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, words, capsys):
    with pytest.raises(EdgemedError, match=words) as refused:
        invoke(["profile", *arguments])
    assert refused.value.exit_code in (2, 6)
    assert capsys.readouterr().out == ""


def test_a_daemon_that_cannot_start_says_why(tmp_path):
    series(tmp_path / "study", 1)
    file = write_config(tmp_path, kit.bedside(tmp_path, trust={"allow_unsigned": False}))
    with pytest.raises(EdgemedError, match="sign"):
        walk(WayRequest(file, tmp_path / "study", 1, "1s"), lambda _: None)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["Ctrl-C", "the daemon is killed"])
def test_a_run_that_ends_early(tmp_path, monkeypatch, how):
    series(tmp_path / "study", 1)
    file = write_config(tmp_path, kit.bedside(tmp_path))
    sent = []

    def step() -> None:
        sent.append(None)
        if how == "Ctrl-C" and len(sent) == 3:
            raise KeyboardInterrupt

    started = Observed.__enter__

    def kill(observed: Observed) -> Observed:
        started(observed)
        if how != "Ctrl-C":
            observed._child.kill()
            observed._child.wait()
        return observed

    monkeypatch.setattr(Observed, "__enter__", kill)
    request = WayRequest(file, tmp_path / "study", 50, "50ms", output=tmp_path / "out")
    if how == "Ctrl-C":
        walked = walk(request, lambda _: None, step)
        assert isinstance(walked.stop, KeyboardInterrupt)
        assert walked.way.ended.reason == "interrupted"
        assert walked.way.sent.begun == 3
        assert (tmp_path / "out" / "way.json").exists()
    else:
        with pytest.raises(ChildError, match="was killed"):
            walk(request, lambda _: None, step)
        assert len(sent) < 50
