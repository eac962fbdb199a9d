"""`POST /dicom-web/studies[/{study}]`."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse

from edgemed.serve.dicom.admission import Rate
from edgemed.serve.dicom.contexts import classes_for
from edgemed.serve.http.answers import HttpError, as_json, send_bytes
from edgemed.serve.http.asgi import Disconnected, Receive, Scope, Send, header
from edgemed.serve.http.gate import USER
from edgemed.serve.http.stow.answer import response_of, status_of
from edgemed.serve.http.stow.part import Sender
from edgemed.serve.http.stow.receive import Receiver
from edgemed.serve.services import Services

T = TypeVar("T")

ROOT: Final = "/dicom-web/studies"
_UID: Final = re.compile(r"[0-9.]{1,64}")
Study = Annotated[str, Path(pattern=r"^[0-9.]{1,64}$", description="Study Instance UID")]
_TAKEN: Final = (b"*/*", b"application/*", b"application/json", b"application/dicom+json")
_TOGETHER: Final = 1 << 20
"""Bytes that are gathered before a thread is asked to write them."""

_DEFAULT_LIMIT: Final = 2 << 30


class Store:
    """The inlet.

    Args:
        services: of the daemon.
        disk: threads that write: a disk that is slow holds up those who store, and nobody else.

    Raises:
        UsageError: a SOP class that is named is none.
    """

    def __init__(self, services: Services, disk: Executor) -> None:
        self._services = services
        self._disk = disk
        dicom = services.config.dicom
        self._limit = dicom.max_object_bytes if dicom is not None else _DEFAULT_LIMIT
        self._classes = frozenset(classes_for(services.config.http.sop_classes))
        self._rates: dict[str, Rate] = {}  # by the name of a token

    async def __call__(self, scope: Scope, receive: Receive, send: Send, study: str | None) -> None:
        """One request; what came whole is kept, whatever becomes of the rest."""
        _check_accept(header(scope, b"accept"))
        if study is not None and not _UID.fullmatch(study):
            raise HttpError(400, "The path names no Study Instance UID. Write digits and dots.")
        if header(scope, b"content-encoding") not in (None, b"identity"):
            raise HttpError(415, "The body is compressed. Send it as it is.")
        association = f"stow-{secrets.token_hex(8)}"
        address = scope["client"][0] if scope.get("client") else ""
        rate = self._rates.setdefault(scope[USER], Rate(self._services.config.http.per_minute))
        sender = Sender(scope[USER], association, address, study, self._classes, rate)
        content_type = header(scope, b"content-type") or b""
        receiver = await self._there(lambda: Receiver(self._services, sender, content_type, self._limit))
        complete = False
        try:
            await self._read(receive, receiver)
            stored = await self._there(receiver.finish)
            complete = True
        finally:
            await self._there(lambda: self._end(receiver, association, complete))
        await send_bytes(send, status_of(stored), as_json(response_of(stored)), b"application/dicom+json")

    async def _read(self, receive: Receive, receiver: Receiver) -> None:
        gathered = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            gathered += message.get("body", b"")
            more = message.get("more_body", False)
            if gathered and (len(gathered) >= _TOGETHER or not more):
                await self._there(partial(receiver.write, bytes(gathered)))
                gathered.clear()

    async def _there(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)

    def _end(self, receiver: Receiver, association: str, complete: bool) -> None:
        receiver.cancel()
        if any(not each.failure for each in receiver.stored):
            self._services.intake.association_ended(association, released=complete)


def study_of(path: str) -> tuple[bool, str | None]:
    """Whether a path is for storing, and the study that it names."""
    if path == ROOT:
        return True, None
    rest = path.removeprefix(ROOT + "/")
    return (True, rest) if rest != path and rest and "/" not in rest else (False, None)


def _check_accept(accept: bytes | None) -> None:
    wanted = [part.partition(b";")[0].strip().lower() for part in (accept or b"*/*").split(b",")]
    if not any(kind in _TAKEN for kind in wanted):
        raise HttpError(406, "The answer is application/dicom+json. Accept that.")


def describe_store() -> APIRouter:
    """The paths for the description; the server answers them before FastAPI sees them."""
    routes = APIRouter(tags=["DICOMweb"])
    octets = {"schema": {"type": "string", "format": "binary"}}
    extra = {"requestBody": {"required": True, "content": {"multipart/related": octets}}}
    module = {"content": {"application/dicom+json": {"schema": {"type": "object"}}}}
    error = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    responses: dict[int | str, dict[str, Any]] = {
        200: {"description": "All instances are kept.", **module},
        202: {"description": "Some are kept; Failed SOP Sequence names the others.", **module},
        406: {"description": "Another form of the answer is asked for.", **error},
        409: {"description": "None is kept.", **module},
        413: {"description": "There are too many parts.", **error},
        415: {"description": "The body is something else.", **error},
        507: {"description": "None is kept: there is no space, or too many came in a minute.", **module},
    }

    @routes.post(ROOT, summary="Store instances", responses=responses, openapi_extra=extra)
    async def store() -> JSONResponse:
        raise HttpError(404, "There is nothing at this path.")

    @routes.post(ROOT + "/{study}", summary="Store instances of a study", responses=responses, openapi_extra=extra)
    async def store_study(study: Study) -> JSONResponse:  # noqa: ARG001 - for the description
        return await store()

    return routes
