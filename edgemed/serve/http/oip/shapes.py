"""Bodies of the protocol, for the OpenAPI description."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, Field


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


class Reason(BaseModel):
    """Something that is not as it should be."""

    subject: str
    reason: str
    stops: bool = Field(description="nothing right can be answered because of it")


class Live(BaseModel):
    live: bool
    reasons: list[Reason]


class Ready(BaseModel):
    ready: bool
    live: bool
    reasons: list[Reason]


class ModelReady(BaseModel):
    name: str
    ready: bool
    reasons: list[Reason]


class TensorMetadata(BaseModel):
    name: str
    datatype: str
    shape: list[int] = Field(description="-1 where it may vary")


class ModelMetadata(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Indexed(BaseModel):
    name: str
    version: str
    state: str
    reason: str = ""


class Count(BaseModel):
    count: int
    ns: int


class InferenceStatistics(BaseModel):
    success: Count
    fail: Count


class ModelStatistics(BaseModel):
    name: str
    version: str
    inference_count: int
    execution_count: int
    inference_stats: InferenceStatistics


class Statistics(BaseModel):
    model_stats: list[ModelStatistics]


ERROR: Final = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
NO_MODEL: Final[dict[int | str, dict[str, Any]]] = {404: {"description": "There is no such model.", "content": ERROR}}
NOT_LIVE: Final[dict[int | str, dict[str, Any]]] = {503: {"model": Live, "description": "It does not work."}}
NOT_READY: Final[dict[int | str, dict[str, Any]]] = {
    503: {"model": Ready, "description": "It does not answer rightly."}
}
MODEL_READY: Final[dict[int | str, dict[str, Any]]] = {
    200: {"model": ModelReady, "description": "It answers rightly."},
    503: {"model": ModelReady, "description": "It does not."},
    **NO_MODEL,
}

_TENSOR: Final = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "datatype": {"type": "string"},
        "parameters": {"type": "object", "description": "binary_data_size"},
        "data": {"type": "array", "items": {}, "description": "nested or flat, row-major"},
    },
}
_OUTPUT: Final = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "parameters": {"type": "object", "description": "binary_data"}},
}
INFER_REQUEST: Final = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "maxLength": 1024},
        "parameters": {
            "type": "object",
            "properties": {
                "timeout": {"type": "integer", "minimum": 0, "description": "microseconds"},
                "priority": {"type": "integer", "minimum": 0, "description": "1: before others"},
                "binary_data_output": {"type": "boolean"},
            },
        },
        "inputs": {"type": "array", "items": _TENSOR, "minItems": 1},
        "outputs": {"type": "array", "items": _OUTPUT},
    },
}
INFER_RESPONSE: Final = {
    "type": "object",
    "required": ["model_name", "model_version", "parameters", "outputs"],
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "parameters": {"type": "object", "description": "who answered: backend, precision, device, bundle"},
        "outputs": {"type": "array", "items": _TENSOR},
    },
}
