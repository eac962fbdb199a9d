"""All that is measured, by name, in one place: Prometheus' counters, gauges and histograms. No label names a patient.

Labels take few values (inlets, models, destinations, reasons of a fixed list), so that their number stays bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

STAGES: Final = ("receive", "collect", "queue", "decode", "preprocess", "infer", "postprocess", "write", "deliver")
"""What an input goes through; their sum, from the first byte on, is what a clinician waits for."""

_EDGES_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """One set for each daemon; `deadlines_s` become edges, so that what was late can be read off exactly."""

    def __init__(self, deadlines_s: Sequence[float] = ()) -> None:
        self.registry = CollectorRegistry()
        edges = sorted({*_EDGES_S, *deadlines_s})

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"edgemed_{name}", what, labels, registry=self.registry)

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"edgemed_{name}", what, labels, registry=self.registry)

        def histogram(name: str, what: str, *labels: str) -> Histogram:
            return Histogram(f"edgemed_{name}", what, labels, registry=self.registry, buckets=edges)

        self.objects = counter("objects", "Objects that came in.", "inlet", "verdict")
        self.ends = counter("inputs_ended", "Tasks by their end.", "model", "end")
        self.stage = histogram("stage_seconds", "Time in each stage.", "model", "stage")
        self.latency = histogram(
            "latency_seconds", "From the last image of a task to its result in the spool.", "model"
        )
        self.deadline_missed = counter("deadline_missed", "Results after their deadline.", "model")
        self.open_tasks = gauge("open_tasks", "Tasks by where they stand.", "model", "state")
        self.oldest = gauge("oldest_task_seconds", "Age of the oldest task that has no result yet.", "model")
        self.requests = counter("requests", "Inferences asked for over HTTP and gRPC.", "model", "protocol", "outcome")
        self.request_seconds = histogram("request_seconds", "Time of such a request.", "model", "protocol")
        self.dropped = counter("inferences_dropped", "Inferences asked for and not computed.", "model", "reason")
        self.frames = counter("frames", "Frames of live sources by what became of them.", "source", "outcome")
        self.deliveries = counter("deliveries", "Tries to deliver.", "destination", "outcome")
        self.waiting_deliveries = gauge("waiting_deliveries", "Results that wait for a destination.", "destination")
        self.associations = gauge("associations", "DICOM associations that are open.")
        self.rejected = counter("associations_rejected", "DICOM associations that were not accepted.", "reason")
        self.ready = gauge("ready", "1 where the last golden inference was right.", "model")
        self.golden = counter("golden_inferences", "Golden inferences.", "model", "outcome")
        self.rebuilds = counter("worker_rebuilds", "Workers that were lost and built anew.", "model")
        self.shadow = counter("shadow_comparisons", "Answers compared with another precision.", "model", "outcome")
        self.alarms = gauge("alarms", "Alarms that stand.", "severity")
        self.free_bytes = gauge("spool_free_bytes", "Free space where the spool is.")
        self.certificate_days = gauge("certificate_days", "Days until a certificate expires.", "use")
        self.temperature = gauge("temperature_celsius", "Of each thermal zone.", "zone")
        self.power = gauge("power_watts", "Of each rail.", "rail")
        self.clock = gauge("clock_hertz", "Of each clock.", "clock")
