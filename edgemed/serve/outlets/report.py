"""What the rest of the daemon is told of deliveries: metrics, alarms, the audit trail, the timeline."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from edgemed.serve.audit.trail import AuditEvent, Result
from edgemed.serve.outlets.courier import Parcel
from edgemed.serve.services import Services
from edgemed.serve.states import State

log = logging.getLogger(__name__)


class Report:
    """Of one destination."""

    def __init__(self, services: Services, name: str, address: str) -> None:
        self._services = services
        self._name = name
        self._address = address
        self._sent: dict[str, list[str]] = {}  # instances by study
        self._late = ""

    def tried(self, outcome: str) -> None:
        """A try has ended."""
        self._services.metrics.deliveries.labels(self._name, outcome).inc()

    def entered(self, parcel: Parcel, state: str, end: State | None) -> None:
        """The journal has it: state of the delivery, and the end of its task where that was the last one."""
        services = self._services
        log.info("%s: %s %s of task %d", self._name, state, parcel.kind, parcel.task)
        if state in ("sent", "delivered") and not (parcel.state == "sent" and state == "delivered"):
            self._sent.setdefault(parcel.study, []).append(parcel.sop_instance)
            self._reached(parcel)
        if state == "failed":
            services.alarms.raise_(
                "delivery-failed", f"Results for {self._name} were not delivered; they are kept.", self._name
            )
            self._audit("serious", parcel.study, [parcel.sop_instance], "It was not delivered.")
        if end is not None:
            ended(services, parcel.task, parcel.model, end)

    def _reached(self, parcel: Parcel) -> None:
        timelines = self._services.timelines
        timelines.reached(parcel.task, "sent")
        line = timelines.get(parcel.task)
        if line is not None and "written" in line.points:
            seconds = (line.points["sent"] - line.points["written"]) / 1e9
            self._services.metrics.stage.labels(parcel.model, "deliver").observe(max(0.0, seconds))

    def sent(self) -> None:
        """Enter what was sent since into the audit trail: one entry for each study."""
        sent, self._sent = self._sent, {}
        for study, instances in sent.items():
            self._audit("success", study, instances)

    def _audit(self, result: Result, study: str, instances: Sequence[str], detail: str = "") -> None:
        named = tuple(uid for uid in instances if uid)
        self._services.audit.record(AuditEvent("sent", result, self._name, self._address, study, named, detail))

    def standing(self, struggle: str | None) -> None:
        """Raise or clear the alarm that the destination does not take what it should."""
        alarms = self._services.alarms
        if struggle is not None and struggle != self._late:
            alarms.raise_("delivery-late", f"{self._name} does not take results; they wait. {struggle}", self._name)
        elif struggle is None:
            alarms.clear("delivery-late", self._name)
        self._late = struggle or ""


def ended(services: Services, task: int, model: str, end: State) -> None:
    """A task has ended with its last delivery."""
    services.timelines.ended(task)
    services.metrics.ends.labels(model, end.value).inc()
