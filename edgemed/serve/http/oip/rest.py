"""Open Inference Protocol over HTTP: health, metadata, inference."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from edgemed.base.errors import EdgemedError
from edgemed.base.runner import TensorSpec
from edgemed.serve.http.answers import HttpError, busy, late, send_parts
from edgemed.serve.http.asgi import (
    GONE,
    Disconnected,
    Receive,
    Scope,
    Send,
    content_length,
    header,
    read_body,
)
from edgemed.serve.http.oip.body import LENGTH_HEADER, Body, RestAsked, parse, respond
from edgemed.serve.http.oip.infer import EXTENSIONS, Asked, Desk, outcome_of, translated
from edgemed.serve.http.oip.tensors import datatype, shown
from edgemed.serve.models.served import Served
from edgemed.serve.readiness import Finding
from edgemed.serve.services import Services

_PARSED_HERE = 64 << 10  # bytes of JSON; longer ones are parsed beside the loop, which serves others meanwhile
_BODIES = 2  # of the greatest size may be in memory at a time
_GRACE_S = 0.5  # the model's own clock looks at deadlines from time to time


class Room:
    """Memory for bodies that are under way."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._lock = threading.Lock()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """So many bytes of it, for as long as they are needed.

        Raises:
            HttpError: there is not enough.
        """
        with self._lock:
            if size > self._free:
                raise too_much()
            self._free -= size
        try:
            yield
        finally:
            with self._lock:
                self._free += size


def too_much() -> HttpError:
    """What is said where there is no room."""
    return busy("Too much is being sent at a time. Try again in a moment.")


class Rest:
    """The protocol over one set of services."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.desk = Desk(services)
        self._most = services.config.http.max_body_bytes
        self.room = Room(_BODIES * self._most)

    # -- inference -------------------------------------------------------------------------------------------------

    async def infer(self, scope: Scope, receive: Receive, send: Send, model: str, version: str | None) -> None:
        """`POST v2/models/{model}[/versions/{version}]/infer`, straight on ASGI: it is what has to be fast."""
        began_ns = time.monotonic_ns()
        outcome = "failed"
        try:
            parts, length = await self._answer(scope, receive, model, version)
            outcome = "answered"
        except Disconnected:
            outcome = "gone"
            raise
        except HttpError as error:
            outcome = outcome_of(error)
            raise
        finally:
            self.desk.count(model, "http", outcome, began_ns)
        if length is None:
            await send_parts(send, 200, parts, b"application/json")
        else:
            await send_parts(send, 200, parts, b"application/octet-stream", [(LENGTH_HEADER, str(length).encode())])

    async def _answer(
        self, scope: Scope, receive: Receive, model: str, version: str | None
    ) -> tuple[list[bytes], int | None]:
        """Parts of the body, and the length of its JSON where raw tensors follow."""
        served = self.desk.served(model, version)
        header_length = _header_length(scope)
        length = content_length(scope)
        with self.room.taken(self._most if length is None else min(length, self._most)):
            body = await read_body(scope, receive, self._most)
            if body is None:
                raise HttpError(413, f"The body has more than {self._most} bytes. Send less at a time.")
            rest = await self._parsed(served, Body.of(body, header_length), header_length)
            return await self._answered(rest, scope.get(GONE, []))

    async def _answered(self, rest: RestAsked, gone: list[Callable[[], object]]) -> tuple[list[bytes], int | None]:
        try:
            return respond(rest, await self._reply(rest.asked, gone))
        except EdgemedError as error:
            raise translated(error, rest.asked.deadline_ns) from error

    async def _parsed(self, served: Served, body: Body, header_length: int | None) -> RestAsked:
        try:
            if len(body.head) <= _PARSED_HERE:
                return parse(self.desk, served, body, header_length)
            return await asyncio.to_thread(parse, self.desk, served, body, header_length)
        except EdgemedError as error:
            raise translated(error) from error

    async def _reply(self, asked: Asked, gone: list[Callable[[], object]]) -> Any:
        """The model's answer. A client that goes away meanwhile takes its request with it."""
        asking = asked.submit()
        answer = asyncio.wrap_future(asking)
        loop, left_s = asyncio.get_running_loop(), (asked.deadline_ns - time.monotonic_ns()) / 1e9
        end = loop.call_later(max(0.0, left_s) + _GRACE_S, answer.cancel)
        gone.append(asking.cancel)
        try:
            return await answer
        except asyncio.CancelledError as error:
            if loop.time() >= end.when():
                raise late() from error
            if asking.cancelled():
                raise Disconnected from error
            raise
        finally:
            end.cancel()
            gone.remove(asking.cancel)

    # -- what it is ------------------------------------------------------------------------------------------------

    def server(self) -> dict[str, Any]:
        """Metadata of the server."""
        return {"name": "edgemed", "version": metadata.version("edgemed"), "extensions": list(EXTENSIONS)}

    def live(self) -> tuple[int, dict[str, Any]]:
        """Status and body: whether the daemon works."""
        findings = self._services.readiness.live
        return (503 if findings else 200), {"live": not findings} | _reasons(findings)

    def ready(self) -> tuple[int, dict[str, Any]]:
        """Status and body: whether it answers rightly, and why not."""
        readiness = self._services.readiness
        findings = readiness.findings
        ready = not any(finding.stops for finding in findings)
        return (200 if ready else 503), {"ready": ready, "live": not readiness.live} | _reasons(findings)

    def model_ready(self, name: str, version: str | None) -> tuple[int, dict[str, Any]]:
        served = self.desk.served(name, version)
        finding = served.finding
        ready = finding is None or not finding.stops
        return (200 if ready else 503), {"name": served.name, "ready": ready} | _reasons([finding] if finding else [])

    def metadata(self, name: str, version: str | None) -> dict[str, Any]:
        served = self.desk.served(name, version)
        return {
            "name": served.name,
            "versions": [served.version],
            "platform": platform(served),
            "inputs": [tensor(spec) for spec in served.specs.inputs],
            "outputs": [tensor(spec) for spec in served.specs.outputs],
        }

    def configuration(self, name: str, version: str | None) -> dict[str, Any]:
        """What Triton's model configuration extension tells, as far as it applies here."""
        served = self.desk.served(name, version)
        batch = served.bundle.manifest.batch
        return {
            "name": served.name,
            "platform": platform(served),
            "backend": platform(served).partition("_")[0],
            "version_policy": {"latest": {"num_versions": 1}},
            "max_batch_size": batch.max if batch else 0,
            "input": [_configured(spec, batched=batch is not None) for spec in served.specs.inputs],
            "output": [_configured(spec, batched=batch is not None) for spec in served.specs.outputs],
        }

    def statistics(self, names: list[str]) -> dict[str, Any]:
        """What Triton's statistics extension tells, of our counters: since the start, over HTTP and gRPC."""
        return {"model_stats": [self._statistics(self.desk.served(name)) for name in names]}

    def _statistics(self, served: Served) -> dict[str, Any]:
        metrics = self._services.metrics
        requests = {"answered": 0, "others": 0}
        seconds = 0.0
        for sample in [s for family in metrics.requests.collect() for s in family.samples]:
            if sample.name.endswith("_total") and sample.labels["model"] == served.name:
                requests["answered" if sample.labels["outcome"] == "answered" else "others"] += int(sample.value)
        for sample in [s for family in metrics.request_seconds.collect() for s in family.samples]:
            if sample.name.endswith("_sum") and sample.labels["model"] == served.name:
                seconds += sample.value
        return {
            "name": served.name,
            "version": served.version,
            "inference_count": requests["answered"],
            "execution_count": requests["answered"],
            "inference_stats": {
                "success": {"count": requests["answered"], "ns": int(seconds * 1e9)},
                "fail": {"count": requests["others"], "ns": 0},
            },
        }

    def index(self) -> list[dict[str, str]]:
        """All models, as Triton's repository extension lists them."""
        rows = []
        for name in self.desk.names():
            served = self.desk.served(name)
            finding = served.finding
            state = "READY" if finding is None or not finding.stops else "UNAVAILABLE"
            rows.append({"name": name, "version": served.version, "state": state} | _reason(finding))
        return rows


def platform(served: Served) -> str:
    """The protocol's word for what runs the model."""
    try:
        backend = served.info.backend
    except (EdgemedError, RuntimeError):  # it is being loaded
        backend = served.section.runner
    return "tensorrt_plan" if backend.startswith("tensorrt") else "onnx_onnxv1"


def tensor(spec: TensorSpec) -> dict[str, Any]:
    """Metadata of one."""
    return {"name": spec.name, "datatype": datatype(spec.dtype), "shape": shown(spec)}


def _configured(spec: TensorSpec, *, batched: bool) -> dict[str, Any]:
    return {"name": spec.name, "data_type": f"TYPE_{datatype(spec.dtype)}", "dims": shown(spec)[1 if batched else 0 :]}


def _reasons(findings: list[Finding]) -> dict[str, Any]:
    return {"reasons": [{"subject": f.subject, "reason": f.reason, "stops": f.stops} for f in findings]}


def _reason(finding: Finding | None) -> dict[str, str]:
    return {} if finding is None else {"reason": finding.reason}


def said_length(scope: Scope, other: int) -> int:
    """Of the JSON, as far as a client says it."""
    try:
        length = _header_length(scope)
    except HttpError:  # which it will be told
        return other
    return other if length is None else length


def _header_length(scope: Scope) -> int | None:
    if header(scope, b"content-encoding") not in (None, b"identity"):
        raise HttpError(415, "The body is compressed. Send it as it is.")
    text = header(scope, LENGTH_HEADER)
    if text is None:
        return None
    if not text.isdigit() or len(text) > 12:
        raise HttpError(400, "Inference-Header-Content-Length is no number. Give the bytes of the JSON.")
    return int(text)
