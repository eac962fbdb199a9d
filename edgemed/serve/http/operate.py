"""For those who run it: metrics, a trace of the last inputs, and the versions of models."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel, ConfigDict, Field

from edgemed.base.errors import IntegrityError
from edgemed.serve.audit.trail import AuditEvent
from edgemed.serve.http.answers import HttpError
from edgemed.serve.http.gate import USER
from edgemed.serve.http.trace import chrome_trace
from edgemed.serve.models.host import ModelHost
from edgemed.serve.services import Services

_LONGEST: Final = 3600
_SUBJECT: Final = 128  # a name of 64 characters, and what it is the name of
_NO_MODEL: Final[dict[int | str, dict[str, Any]]] = {
    404: {
        "description": "There is no such model.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
}
_NOT_TAKEN: Final[dict[int | str, dict[str, Any]]] = {
    **_NO_MODEL,
    409: {**_NO_MODEL[404], "description": "It is damaged, older, or not signed by who may."},
}
_NO_ALARM: Final[dict[int | str, dict[str, Any]]] = {
    303: {"description": "To /alarms."},
    404: {**_NO_MODEL[404], "description": "It does not stand."},
}
Name = Annotated[str, PathParameter(max_length=64, description="of a model, as the configuration has it")]


class Proposal(BaseModel):
    """A new version of a model."""

    model_config = ConfigDict(extra="forbid")

    path: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^/[^\x00]*$")] = Field(
        description="of the bundle, on the machine of the daemon"
    )
    older: bool = Field(False, description="its sequence may be lower than one that has answered here")


class Proposed(BaseModel):
    """It was taken; what becomes of it is told by the list of models."""

    version: str


def operate_routes(services: Services) -> APIRouter:
    """`/metrics`, `/trace` and `/admin`."""
    routes = APIRouter(tags=["Operation"])

    @routes.get(
        "/metrics",
        summary="Prometheus",
        response_class=Response,
        responses={200: {"description": "Text, or OpenMetrics where it is accepted.", "content": {"text/plain": {}}}},
    )
    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(await asyncio.to_thread(encode, services.metrics.registry), media_type=content_type)

    @routes.get("/trace", summary="The last inputs, stage by stage, for a viewer of Chrome traces")
    async def trace(
        seconds: Annotated[int, Query(ge=1, le=_LONGEST, description="back from now")] = 60,
    ) -> JSONResponse:
        return JSONResponse(chrome_trace(services.timelines.recent, seconds))

    @routes.post(
        "/admin/alarms/{code}/seen",
        status_code=303,
        response_class=Response,
        responses=_NO_ALARM,
        summary="Somebody has looked at an alarm: it stands no more, until it is raised again",
    )
    async def seen(
        code: Annotated[str, PathParameter(max_length=64, description="as `/api/alarms` has it")],
        request: Request,
        subject: Annotated[str, Query(max_length=_SUBJECT, description="likewise")] = "",
    ) -> Response:
        if not services.alarms.stands(code, subject):
            raise HttpError(404, "That alarm does not stand. See /api/alarms.")
        user = str(request.scope[USER])
        services.audit.record(AuditEvent("retry", user=user, detail=f"Alarm {code} {subject} was looked at."))
        await asyncio.to_thread(services.alarms.clear, code, subject)
        return Response(status_code=303, headers={"location": "/alarms"})

    if isinstance(services.models, ModelHost):
        _admin(routes, services.models)
    return routes


def _admin(routes: APIRouter, host: ModelHost) -> None:
    @routes.get("/admin/models", summary="Models and their versions")
    async def models() -> JSONResponse:
        return JSONResponse([host.describe(name) for name in host.names()])

    @routes.post("/admin/models/{model}/propose", status_code=202, response_model=Proposed, responses=_NOT_TAKEN)
    async def propose(model: Name, proposal: Proposal, request: Request) -> JSONResponse:
        """Take a new version: it is verified and copied now, and goes through golden and shadow tests by itself."""
        _known(host, model)
        user = request.scope[USER]
        try:
            version = await asyncio.to_thread(host.propose, model, Path(proposal.path), older=proposal.older, user=user)
        except IntegrityError as error:  # asked for again, it is no other
            raise HttpError(409, str(error)) from error
        return JSONResponse({"version": version}, 202)

    @routes.post("/admin/models/{model}/rollback", status_code=204, response_class=Response, responses=_NO_MODEL)
    async def roll_back(model: Name, request: Request) -> Response:
        """Let the previous version answer again."""
        _known(host, model)
        await asyncio.to_thread(host.roll_back, model, request.scope[USER])
        return Response(status_code=204)


def _known(host: ModelHost, model: str) -> None:
    if model not in host.names():
        raise HttpError(404, f"There is no such model. There are: {', '.join(host.names())}.")
