"""The protocol's paths, for FastAPI: they stand in the OpenAPI description as they are answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse

from edgemed.serve.http.answers import HttpError
from edgemed.serve.http.oip import shapes
from edgemed.serve.http.oip.rest import Rest

Name = Annotated[str, Path(max_length=64, description="of a model, as the configuration has it")]
Version = Annotated[str, Path(max_length=20, description="of it, as its metadata list them", examples=["1"])]

_MODEL = "/v2/models/{model}"
_VERSION = _MODEL + "/versions/{version}"
_NOT_OFFERED = (
    ("POST", "/v2/repository/models/{model}/load"),
    ("POST", "/v2/repository/models/{model}/unload"),
    ("GET", "/v2/trace/setting"),
    ("POST", "/v2/trace/setting"),
    ("GET", "/v2/logging"),
    ("POST", "/v2/logging"),
    ("GET", "/v2/systemsharedmemory/status"),
    ("GET", "/v2/cudasharedmemory/status"),
)


def oip_routes(rest: Rest) -> APIRouter:
    """All paths but inference, which `infer_routes` describes."""
    routes = APIRouter(tags=["Open Inference Protocol"])

    @routes.get("/v2", summary="The server", response_model=shapes.ServerMetadata)
    async def server() -> JSONResponse:
        return JSONResponse(rest.server())

    @routes.get("/v2/health/live", summary="Whether it works", response_model=shapes.Live, responses=shapes.NOT_LIVE)
    async def live() -> JSONResponse:
        status, body = rest.live()
        return JSONResponse(body, status)

    @routes.get(
        "/v2/health/ready",
        summary="Whether it answers rightly",
        response_model=shapes.Ready,
        responses=shapes.NOT_READY,
    )
    async def ready() -> JSONResponse:
        status, body = rest.ready()
        return JSONResponse(body, status)

    @routes.get("/v2/models/stats", summary="Statistics of all models", response_model=shapes.Statistics)
    async def all_statistics() -> JSONResponse:
        return JSONResponse(rest.statistics(rest.desk.names()))

    @routes.post("/v2/repository/index", summary="All models", response_model=list[shapes.Indexed])
    async def index() -> JSONResponse:
        return JSONResponse(rest.index())

    _model_routes(routes, rest)
    for method, path in _NOT_OFFERED:
        routes.add_api_route(path, _not_offered, methods=[method], include_in_schema=False)
    return routes


Answer = Callable[[str, str | None], JSONResponse]


def _model_routes(routes: APIRouter, rest: Rest) -> None:
    def ready(model: str, version: str | None) -> JSONResponse:
        status, body = rest.model_ready(model, version)
        return JSONResponse(body, status)

    def statistics(model: str, version: str | None) -> JSONResponse:
        rest.desk.served(model, version)
        return JSONResponse(rest.statistics([model]))

    known: dict[int | str, dict[str, Any]] = shapes.NO_MODEL
    about = {200: {"model": shapes.ModelMetadata}, **known}
    counts = {200: {"model": shapes.Statistics}, **known}
    _get(routes, "", "Metadata", about, lambda model, version: JSONResponse(rest.metadata(model, version)))
    _get(routes, "/ready", "Whether it answers rightly", shapes.MODEL_READY, ready)
    _get(
        routes,
        "/config",
        "Configuration",
        known,
        lambda model, version: JSONResponse(rest.configuration(model, version)),
    )
    _get(routes, "/stats", "Statistics", counts, statistics)


def _get(
    routes: APIRouter, suffix: str, summary: str, responses: Mapping[int | str, dict[str, Any]], answer: Answer
) -> None:
    """The same of a model and of a version of it."""

    @routes.get(_MODEL + suffix, summary=f"{summary}, of a model", responses=dict(responses))
    async def active(model: Name) -> JSONResponse:
        return answer(model, None)

    @routes.get(_VERSION + suffix, summary=f"{summary}, of a version", responses=dict(responses))
    async def one(model: Name, version: Version) -> JSONResponse:
        return answer(model, version)


async def _not_offered() -> JSONResponse:
    raise HttpError(501, "This server does not offer that extension. See the extensions in its metadata.")


def describe_infer() -> APIRouter:
    """The paths of inference for the description; the server answers them before FastAPI sees them."""
    routes = APIRouter(tags=["Open Inference Protocol"])
    octets = {"schema": {"type": "string", "format": "binary"}}
    extra = {
        "parameters": [
            {
                "name": "Inference-Header-Content-Length",
                "in": "header",
                "description": "bytes of the JSON, where raw tensors follow; 0: the body is the only input",
                "schema": {"type": "integer", "minimum": 0},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": shapes.INFER_REQUEST}, "application/octet-stream": octets},
        },
    }
    said = {"content": shapes.ERROR}
    responses: dict[int | str, dict[str, Any]] = {
        200: {
            "description": "The answer; raw tensors follow the JSON where they were asked for.",
            "content": {"application/json": {"schema": shapes.INFER_RESPONSE}, "application/octet-stream": octets},
        },
        413: {"description": "The body is too long.", **said},
        415: {"description": "The body is compressed.", **said},
        500: {"description": "The answer would not have been a number.", **said},
        501: {"description": "An extension is asked for that is not offered.", **said},
        504: {"description": "The deadline passed.", **said},
        **shapes.NO_MODEL,
    }

    @routes.post(_MODEL + "/infer", summary="Ask a model", responses=responses, openapi_extra=extra)
    async def active(model: Name) -> JSONResponse:  # noqa: ARG001 - for the description
        return await _elsewhere()

    @routes.post(_VERSION + "/infer", summary="Ask a version", responses=responses, openapi_extra=extra)
    async def one(model: Name, version: Version) -> JSONResponse:  # noqa: ARG001 - for the description
        return await _elsewhere()

    return routes


async def _elsewhere() -> JSONResponse:
    raise HttpError(404, "There is nothing at this path.")
