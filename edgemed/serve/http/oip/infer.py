"""One inference that was asked for over the network, whatever the protocol: the model, the deadline, the answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from numpy.typing import NDArray
from prometheus_client import Counter, Histogram

from edgemed.base.errors import EdgemedError, InputError
from edgemed.runtime.contained.requests import Reply
from edgemed.serve.http.answers import HttpError, late, of_error
from edgemed.serve.http.oip.tensors import finite
from edgemed.serve.models.served import Models, Served
from edgemed.serve.services import Services

EXTENSIONS: Final = ("binary_tensor_data", "model_configuration", "statistics", "model_repository", "schedule_policy")
_UNSUPPORTED: Final = {
    "sequence_id": "sequences",
    "sequence_start": "sequences",
    "sequence_end": "sequences",
    "classification": "classification of outputs",
    "shared_memory_region": "shared memory",
}


@dataclass(frozen=True, eq=False)
class Asked:
    """What a client asks for, checked.

    Attributes:
        served: the model.
        feeds: its inputs.
        outputs: names of those that are wanted, in the client's order.
        identity: the client's own id of the request, given back.
        deadline_ns: `time.monotonic_ns`.
        live: it goes before others.
    """

    served: Served
    feeds: Mapping[str, NDArray[Any]]
    outputs: tuple[str, ...]
    identity: str
    deadline_ns: int
    live: bool = False
    began_ns: int = field(default_factory=time.monotonic_ns)

    def submit(self) -> Future[Reply]:
        """Ask the model.

        Raises:
            EdgemedError: it does not take this.
        """
        return self.served.submit(self.feeds, deadline_ns=self.deadline_ns, live=self.live)

    def answer(self, reply: Reply) -> list[tuple[str, NDArray[Any]]]:
        """The outputs that are wanted.

        Raises:
            HttpError: one holds NaN or infinity: it is no answer. Or it comes after the deadline.
        """
        if time.monotonic_ns() > self.deadline_ns:
            raise late()
        outputs = [(name, reply.outputs[name]) for name in self.outputs]
        if all(finite(array) for _, array in outputs):
            return outputs
        if not all(finite(array) for array in self.feeds.values()):
            raise HttpError(400, "The input holds NaN or infinity. Send numbers.")
        raise HttpError(500, "The model's answer is not a number. Nothing of it is given out.")

    def about(self, reply: Reply) -> dict[str, str]:
        """Who answered: stands in every result."""
        info = reply.info
        about = {"backend": info.backend, "precision": info.precision, "device": info.device}
        return about | ({"bundle": info.bundle_digest} if info.bundle_digest else {})


class Desk:
    """Finds models, and counts what is asked for."""

    def __init__(self, services: Services) -> None:
        self._metrics = services.metrics
        self._models: Models = services.models
        self.request_ns = services.config.http.request_ns
        self._counters = lru_cache(maxsize=None)(self._counters_of)  # of few labels, which are looked up slowly

    def served(self, name: str, version: str | None = None) -> Served:
        """A model, or 404."""
        try:
            return self._models.get(name, version or None)
        except InputError as error:
            raise HttpError(404, str(error)) from error

    def names(self) -> list[str]:
        return self._models.names()

    def wanted(self, served: Served, names: list[str]) -> tuple[str, ...]:
        """Outputs to give: those that are named, or all.

        Raises:
            InputError: the model has no such output, or one is named twice.
        """
        have = [spec.name for spec in served.specs.outputs]
        for name in names:
            if name not in have:
                raise InputError("The model has no output of a name that is asked for.", f"It has: {', '.join(have)}.")
        if len(set(names)) < len(names):
            raise InputError("An output is asked for twice.", "Name each output once.")
        return tuple(names or have)

    def schedule(self, parameters: Mapping[str, Any], began_ns: int) -> tuple[int, bool]:
        """Deadline and precedence of a request: `timeout` (microseconds), `priority` (1: before others).

        Raises:
            InputError: they are no such numbers.
            HttpError: something is asked for that is not offered.
        """
        refuse_unsupported(parameters)
        timeout, priority = parameters.get("timeout", 0), parameters.get("priority", 0)
        if type(timeout) is not int or timeout < 0:
            raise InputError("timeout is no number of microseconds.", "Give a whole number, 0 for the server's own.")
        if type(priority) is not int or priority < 0:
            raise InputError("priority is no whole number.", "Give 0 for none, 1 for the highest.")
        allowed_ns = min(timeout * 1000 or self.request_ns, self.request_ns)
        return began_ns + allowed_ns, priority == 1

    def _counters_of(self, model: str, protocol: str, outcome: str) -> tuple[Counter, Histogram]:
        metrics = self._metrics
        return metrics.requests.labels(model, protocol, outcome), metrics.request_seconds.labels(model, protocol)

    def count(self, model: str | None, protocol: str, outcome: str, began_ns: int) -> None:
        """Count a request that has ended; models that there are not share one label."""
        requests, seconds = self._counters(model if model in self._models.names() else "-", protocol, outcome)
        requests.inc()
        seconds.observe((time.monotonic_ns() - began_ns) / 1e9)


def refuse_unsupported(parameters: Mapping[str, Any]) -> None:
    """Extensions whose silent absence would change the answer.

    Raises:
        HttpError: 501.
    """
    for name, what in _UNSUPPORTED.items():
        if parameters.get(name):
            raise HttpError(501, f"This server does not offer {what}. Leave out the parameter {name}.")


def outcome_of(error: HttpError) -> str:
    """Label of a request that was not answered, out of a short list."""
    if error.status in (503, 504):
        return {503: "unavailable", 504: "late"}[error.status]
    return "refused" if error.status < 500 else "failed"


def translated(error: Exception, deadline_ns: int | None = None) -> HttpError:
    """What is sent for an error of ours."""
    if isinstance(error, HttpError):
        return error
    assert isinstance(error, EdgemedError)
    return of_error(error, deadline_ns)
