"""The OpenAPI description: what FastAPI cannot know, that every error is `{"error": …}`, and who may ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from edgemed.serve.http.access import role_of

_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string", "description": "what is wrong, and what to do"}},
}
_ALWAYS = {"400": "Not as it must be.", "421": "Another host is named.", "503": "Not now; see Retry-After."}
_SECURED = {"401": "No token, or an unknown one.", "403": "Not for this token.", "429": "Too many wrong tokens."}


def describe(api: FastAPI, models: Callable[[], list[str]], *, secured: bool) -> None:
    """Let `api` describe itself honestly."""

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            api.openapi_schema = _described(api, models(), secured=secured)
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]


def _described(api: FastAPI, models: list[str], *, secured: bool) -> dict[str, Any]:
    schema = get_openapi(title="edgemed", version="2", routes=api.routes, description=__doc__)
    parts = schema.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        parts.pop(name, None)
    parts["Error"] = _SCHEMA
    if secured:
        schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", []):
                if parameter["name"] == "model":
                    parameter["schema"] = {"type": "string", "enum": models}
            _complete(operation, role_of(method.upper(), path) if secured else None)
    return schema


def _complete(operation: dict[str, Any], role: str | None) -> None:
    responses = operation["responses"]
    responses.pop("422", None)  # FastAPI's own; ours is 400
    always = _ALWAYS if role is None else _ALWAYS | _SECURED
    for status, what in always.items():
        responses.setdefault(status, {"description": what, "content": _ERROR})
    if role is not None:
        operation["security"] = [{"token": []}]
        operation["description"] = f"{operation.get('description', '')} For the role `{role}`.".strip()
