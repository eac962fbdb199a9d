"""Paths of the page: HTML for people, the same as JSON below `/api`, and the two streams that move it.

`/page/events` says every second how everything stands; a page that hears nothing for 2.5 s says that it is frozen.
`/live/NAME.jpg` is the newest picture of a live source; how old it is, and what the model says of it, is in the header.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from importlib.resources import files
from typing import Annotated, Any, Final
from urllib.parse import quote

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, FastAPI, Path, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from edgemed import __version__
from edgemed.base.errors import InputError
from edgemed.report.drift import drift_parts
from edgemed.serve.audit.segments import FOLDER
from edgemed.serve.audit.trail import AuditEvent
from edgemed.serve.http.answers import HttpError
from edgemed.serve.http.gate import USER
from edgemed.serve.http.page import facts, words
from edgemed.serve.live.board import Channel
from edgemed.serve.live.overlay import render
from edgemed.serve.services import Services

EVERY_S: Final = 1.0
_WAIT_S: Final = 1.0  # for a newer picture
_MOST_WATCHING: Final = 32
_DRAWING: Final = 2  # pictures and overviews at a time
_STATIC: Final = {"style.css": "text/css", "page.js": "text/javascript", "chart.js": "text/javascript"}

Number = Annotated[int, Path(ge=1, le=2**62, description="of any object of a study, as the list has it")]
Before = Annotated[int | None, Query(ge=1, le=2**62, description="`next` of the page before")]
ModelName = Annotated[str, Path(max_length=64)]
LiveName = Annotated[str, Path(max_length=64)]


def include_page(app: FastAPI, services: Services) -> None:
    """Add the page's paths. It is mounted behind the gate: tokens, hosts and headers are dealt with there."""
    counting = CapacityLimiter(1)  # the weekly report goes through the whole journal, and takes no other's thread
    app.include_router(_html(_Pages(services), counting))
    app.include_router(_api(services, counting))
    app.include_router(_streams(services))


class _Pages:
    """Templates, filled."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self._environment = Environment(
            loader=PackageLoader("edgemed.serve.http.page"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals |= {
            "station": services.config.daemon.name,
            "version": __version__,
            "research": services.config.daemon.research_use_only,
        }
        self._environment.filters |= {"when": words.when, "age": words.age, "ms": words.ms, "light": words.light}

    def __call__(self, template: str, **values: Any) -> HTMLResponse:
        light, findings = self.services.readiness.light, self.services.readiness.findings
        text = self._environment.get_template(template).render(light_now=light, findings_now=findings, **values)
        return HTMLResponse(text)


def _html(page: _Pages, counting: CapacityLimiter) -> APIRouter:
    routes, services = APIRouter(include_in_schema=False, default_response_class=HTMLResponse), page.services

    @routes.get("/")
    def bedside() -> HTMLResponse:
        return page("bedside.html", now=facts.overview(services), studies=facts.studies(services)["studies"][:8])

    @routes.get("/studies")
    def studies(before: Before = None) -> HTMLResponse:
        return page("studies.html", **facts.studies(services, before))

    @routes.get("/studies/{number}")
    def study(number: Number, request: Request) -> HTMLResponse:
        found = _found(lambda: facts.study(services, number))
        _looked(services, request, number)
        return page("study.html", **found)

    @routes.get("/queue")
    def queue() -> HTMLResponse:
        return page("queue.html", **facts.queue(services))

    @routes.get("/latency")
    def latency() -> HTMLResponse:
        return page("latency.html", **facts.latency(services))

    @routes.get("/drift")
    async def drift() -> HTMLResponse:
        head, sections, foot = await run_sync(lambda: drift_parts(facts.drift(services)), limiter=counting)
        return page("drift.html", head=head, sections=sections, foot=foot)

    @routes.get("/models")
    def models() -> HTMLResponse:
        return page("models.html", models=[facts.model(services, name) for name in services.models.names()])

    @routes.get("/alarms")
    def alarms() -> HTMLResponse:
        return page("alarms.html", alarms=facts.alarms(services), certificates=facts.certificates(services))

    @routes.get("/audit")
    def audit(request: Request) -> HTMLResponse:
        _consulted(services, request)
        return page("audit.html", entries=[words.entry(text) for text in facts.audit(services)["entries"]])

    @routes.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in _STATIC:
            raise HttpError(404, "There is nothing at this path.")
        data = files("edgemed.serve.http.page").joinpath("static", name).read_bytes()
        return Response(data, media_type=_STATIC[name], headers={"cache-control": "no-cache"})

    return routes


def _api(services: Services, counting: CapacityLimiter) -> APIRouter:
    routes = APIRouter(prefix="/api", tags=["Page"])
    missing: dict[int | str, dict[str, Any]] = {404: {"description": "There is none."}}

    @routes.get("/overview", summary="Light, models, live sources, alarms, what waits")
    def overview() -> JSONResponse:
        return JSONResponse(facts.overview(services))

    @routes.get("/studies", summary="Studies, newest first, named by pseudonyms")
    def studies(before: Before = None) -> JSONResponse:
        return JSONResponse(facts.studies(services, before))

    @routes.get("/studies/{number}", summary="One study: tasks, results, deliveries", responses=missing)
    def study(number: Number, request: Request) -> JSONResponse:
        found = _found(lambda: facts.study(services, number))
        _looked(services, request, number)
        return JSONResponse(found)

    @routes.get("/queue", summary="What waits, and the last tasks")
    def queue() -> JSONResponse:
        return JSONResponse(facts.queue(services))

    @routes.get("/latency", summary="Where the time of the last tasks went, in milliseconds")
    def latency() -> JSONResponse:
        return JSONResponse(facts.latency(services))

    @routes.get("/drift", summary="What has shifted this week, as `edgemed drift --json` prints it")
    async def drift() -> JSONResponse:
        return JSONResponse(await run_sync(facts.drift, services, limiter=counting))

    @routes.get("/models/{name}", summary="One model: version, golden history, shadow", responses=missing)
    def model(name: ModelName) -> JSONResponse:
        return JSONResponse(_found(lambda: facts.model(services, name)))

    @routes.get("/alarms", summary="Alarms that stand")
    def alarms() -> JSONResponse:
        return JSONResponse(facts.alarms(services))

    @routes.get("/audit", summary="The last entries of the audit trail, newest first (XML)")
    def audit(request: Request) -> JSONResponse:
        _consulted(services, request)
        return JSONResponse(facts.audit(services))

    return routes


def _streams(services: Services) -> APIRouter:
    routes, watching = APIRouter(include_in_schema=False), [0]
    drawing = CapacityLimiter(_DRAWING)  # threads of their own: inference must not wait for those who look on
    look = Look(lambda: json.dumps(facts.overview(services)).encode(), drawing)

    @routes.get("/page/events")
    async def events(request: Request) -> StreamingResponse:
        if watching[0] >= _MOST_WATCHING:
            raise HttpError(503, "Too many pages are open. Close one.")

        async def tell() -> AsyncIterator[bytes]:
            watching[0] += 1
            try:
                while not await request.is_disconnected():
                    yield b"data: " + await look() + b"\n\n"
                    await asyncio.sleep(EVERY_S)
            finally:
                watching[0] -= 1

        return StreamingResponse(tell(), media_type="text/event-stream")

    @routes.get("/live/{name}.jpg")
    async def picture(
        name: LiveName,
        after: Annotated[int, Query(ge=-1)] = -1,
        age: Annotated[bool, Query(description="written below it")] = True,
    ) -> Response:
        channel = services.board.channels.get(name)
        if channel is None:
            raise HttpError(404, "There is no live source of that name.")
        number = await _newer(channel, after) if after >= 0 else channel.number
        shown = channel.shown
        data = await run_sync(partial(render, channel, shown=shown, with_age=age), limiter=drawing)
        headers = {"x-number": str(number)}
        if shown is not None:
            headers |= {"x-age-ms": f"{shown.age_ns / 1e6:.1f}", "x-said": quote(facts.said(shown))}
        return Response(data, media_type="image/jpeg", headers=headers)

    return routes


class Look:
    """How everything stands, looked at once for all who ask at about the same time.

    Args:
        take: looks, in a thread.
        limiter: of the threads.
    """

    def __init__(self, take: Callable[[], bytes], limiter: CapacityLimiter) -> None:
        self._take, self._limiter = take, limiter
        self._turn = asyncio.Lock()
        self._taken_ns = -(10**18)
        self._seen = b""

    async def __call__(self) -> bytes:
        """What was seen half a second ago at most."""
        async with self._turn:
            began_ns = time.monotonic_ns()
            if began_ns - self._taken_ns > EVERY_S * 5e8:
                self._seen = await run_sync(self._take, limiter=self._limiter)
                self._taken_ns = began_ns
            return self._seen


async def _newer(channel: Channel, after: int) -> int:
    """Until there is a change after number `after`, or the time is over; the number of the newest. No thread waits."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        with suppress(RuntimeError):  # the server has ended
            loop.call_soon_threadsafe(changed.set)

    with channel.watched(tell):
        if channel.number <= after:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(changed.wait(), _WAIT_S)
    return channel.number


def _found(look: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return look()
    except InputError as error:
        raise HttpError(404, f"{error.what} {error.hint}") from error


def _who(request: Request) -> tuple[str, str]:
    """Who asks, and from which address."""
    return str(request.scope.get(USER, "")), request.client.host if request.client else ""


def _consulted(services: Services, request: Request) -> None:
    """Who reads the audit trail stands in it."""
    place = (services.config.daemon.state / FOLDER).absolute().as_uri()
    services.audit.record(AuditEvent("consulted", "success", *_who(request), subject=place))


def _looked(services: Services, request: Request, number: int) -> None:
    """Who looks at a study stands in the audit trail."""
    (user, address), uid = _who(request), facts.study_uid(services, number)
    services.audit.record(AuditEvent("accessed", "success", user, address, uid, detail="The study was shown."))
