"""The whole application: inference and images straight on ASGI, the rest by FastAPI, all of it behind the gate."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.requests import Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from edgemed.base.errors import EdgemedError, InputError
from edgemed.serve.http.access import Logins
from edgemed.serve.http.answers import HttpError, of_error
from edgemed.serve.http.asgi import Receive, Scope, Send, Whole
from edgemed.serve.http.gate import Gate, limited
from edgemed.serve.http.oip.rest import Rest, said_length
from edgemed.serve.http.oip.routes import describe_infer, oip_routes
from edgemed.serve.http.openapi import describe
from edgemed.serve.http.operate import operate_routes
from edgemed.serve.http.page import include_page
from edgemed.serve.http.stow.store import Store, describe_store, study_of
from edgemed.serve.models.served import Models
from edgemed.serve.services import Services


def make_app(services: Services, logins: Logins, disk: Executor) -> Gate:
    """Everything that is served over HTTP; what is stored is written by the threads of `disk`."""
    rest, store = Rest(services), Store(services, disk)
    api = FastAPI(title="edgemed", openapi_url="/openapi.json", docs_url=None, redoc_url=None, redirect_slashes=False)
    api.include_router(oip_routes(rest))
    api.include_router(describe_infer())
    api.include_router(describe_store())
    api.include_router(operate_routes(services))
    include_page(api, services)
    describe(api, services.models.names, secured=services.config.http.tokens is not None)
    for kind, handler in ((HttpError, _said), (EdgemedError, _known), (HTTPException, _plain), (Exception, _bug)):
        api.add_exception_handler(kind, handler)  # type: ignore[arg-type]
    api.add_exception_handler(RequestValidationError, _invalid)  # type: ignore[arg-type]
    others = limited(api)

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST" and (asked := infer_path(scope["path"])) is not None:
            await rest.infer(scope, receive, send, *asked)
        elif scope["method"] == "POST" and (named := study_of(scope["path"]))[0]:
            await store(scope, receive, send, named[1])
        else:
            await others(scope, receive, send)

    return Gate(services.config.http, front, logins)


def gathering(models: Models) -> Callable[[Scope, int], Whole | None]:
    """Where the body of a request of so many bytes is gathered; `None` where it is not for inference."""

    def place(scope: Scope, length: int) -> Whole | None:
        asked = infer_path(scope["path"]) if scope["method"] == "POST" else None
        if asked is None:
            return None
        head_length = min(said_length(scope, length), length)
        try:
            return Whole(length, head_length, models.get(*asked).berth(length - head_length))
        except InputError:  # it will be told that there is no such model
            return Whole(length, head_length)

    return place


def infer_path(path: str) -> tuple[str, str | None] | None:
    """Model and version of `/v2/models/{model}[/versions/{version}]/infer`; `None` of other paths."""
    parts = path.split("/")
    if len(parts) == 5 and parts[:3] == ["", "v2", "models"] and parts[4] == "infer" and parts[3]:
        return parts[3], None
    if len(parts) == 7 and parts[:3] == ["", "v2", "models"] and parts[4] == "versions" and parts[6] == "infer":
        return parts[3], parts[5]
    return None


async def _said(_: Request, error: HttpError) -> JSONResponse:
    headers = {name.decode(): value.decode() for name, value in error.headers}
    return JSONResponse({"error": error.text}, error.status, headers)


async def _known(request: Request, error: EdgemedError) -> JSONResponse:
    return await _said(request, of_error(error))


async def _plain(_: Request, error: HTTPException) -> JSONResponse:
    words: dict[int, str] = {404: "There is nothing at this path.", 405: "This path does not take that method."}
    headers: Any = error.headers
    return JSONResponse({"error": words.get(error.status_code, str(error.detail))}, error.status_code, headers)


async def _bug(_: Request, __: Exception) -> JSONResponse:
    return JSONResponse({"error": "The server failed. Its log says where."}, 500)  # the gate writes it there


async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    where = " ".join(str(part) for part in first["loc"])
    return JSONResponse({"error": f"{where}: {first['msg']}."}, 400)
