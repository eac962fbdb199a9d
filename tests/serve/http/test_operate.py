"""Metrics, traces, versions of models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from edgemed.base.spans import Span
from edgemed.serve.http.trace import chrome_trace
from edgemed.serve.timeline import Timeline
from tests.serve import kit

LABELS = {"model", "inlet", "verdict", "end", "stage", "state", "protocol", "outcome", "source", "destination"}
LABELS |= {"reason", "severity", "use", "zone", "rail", "clock", "le"}


def test_metrics_parse_and_their_labels_are_few(running: Any, client: httpx.Client) -> None:
    for i in range(50):  # what clients make up becomes no label
        client.post(f"/v2/models/Doe-Jane-{i}/infer", content=b"{}")
    client.post("/v2/models/chest/infer", content=bytes(64), headers={"Inference-Header-Content-Length": "0"})
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    families = {family.name: family for family in prometheus(answer.text)}
    samples = [sample for family in families.values() for sample in family.samples]
    assert {name for sample in samples for name in sample.labels} <= LABELS
    assert {s.labels["model"] for s in families["edgemed_requests"].samples} == {"chest", "-"}
    answered = {"model": "chest", "protocol": "http", "outcome": "answered"}
    assert any(s.labels == answered and s.value >= 1 for s in families["edgemed_requests"].samples)
    assert len(samples) < 2000
    assert "Doe" not in answer.text


def test_openmetrics_where_it_is_accepted(client: httpx.Client) -> None:
    answer = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert any(family.name == "edgemed_ready" for family in openmetrics(answer.text))


def test_a_trace_of_what_has_ended() -> None:
    points = {"first_byte": 1_000, "last_object": 2_000, "complete": 3_000, "started": 4_000, "written": 9_000}
    lines = [
        Timeline(7, "chest", points, [Span("compute", 5_000, 8_000)]),
        Timeline(8, "chest", {"written": -(10**12)}),
    ]
    events = chrome_trace(lines, seconds=1, now_ns=10_000)["traceEvents"]
    assert events[0] == {"name": "process_name", "ph": "M", "pid": 1, "args": {"name": "chest"}}
    assert [(e["name"], e["ts"], e["dur"], e["tid"]) for e in events[1:]] == [
        ("receive", 1.0, 1.0, 7),
        ("collect", 2.0, 1.0, 7),
        ("queue", 3.0, 1.0, 7),
        ("analyse", 4.0, 5.0, 7),
        ("compute", 5.0, 3.0, 7),
    ]


def test_a_trace_over_http(client: httpx.Client) -> None:
    assert client.get("/trace").json()["traceEvents"] == []
    for seconds in ("0", "-1", "x", "100000"):
        assert client.get("/trace", params={"seconds": seconds}).status_code == 400


def test_an_alarm_of_the_longest_name_can_be_seen_to(running: Any, client: httpx.Client) -> None:
    alarms, name = running[0].services.alarms, f"outlet {'a' * 64}"
    alarms.raise_("loop-silent", "It is silent.", name)
    answer = client.post("/admin/alarms/loop-silent/seen", params={"subject": name}, follow_redirects=False)
    assert answer.status_code == 303
    assert not alarms.stands("loop-silent", name)


def test_versions_are_listed_and_proposed(running: Any, client: httpx.Client, tmp_path: Path) -> None:
    (model,) = client.get("/admin/models").json()
    assert (model["name"], model["version"], model["ready"]) == ("chest", "1", True)
    newer = kit.write_classifier(tmp_path / "newer.edgemed", boundary=0.5001)
    answer = client.post("/admin/models/chest/propose", json={"path": str(newer)})
    assert (answer.status_code, answer.json()) == (202, {"version": "2"})
    assert client.post("/admin/models/none/propose", json={"path": str(newer)}).status_code == 404
    damaged = kit.write_classifier(tmp_path / "damaged.edgemed", boundary=0.7)
    next((damaged / "graphs").iterdir()).write_bytes(b"another graph")
    refused = client.post("/admin/models/chest/propose", json={"path": str(damaged)})
    assert (refused.status_code, "retry-after" in refused.headers) == (409, False)
    for body in ({}, {"path": "relative"}, {"path": str(tmp_path / "none")}, {"path": str(newer), "more": 1}):
        assert client.post("/admin/models/chest/propose", json=body).status_code == 400
    assert client.post("/admin/models/none/rollback").status_code == 404
