"""Bodies of inference requests and responses over HTTP: JSON, or JSON with raw tensors behind it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json as read_json
from pydantic_core import to_json as write_json

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec, dtype_name
from edgemed.runtime.contained.berths import Berth
from edgemed.runtime.contained.requests import Reply
from edgemed.serve.http.asgi import Whole
from edgemed.serve.http.oip.infer import Asked, Desk, refuse_unsupported
from edgemed.serve.http.oip.tensors import check_declared, datatype, from_json, from_raw, to_raw, wire
from edgemed.serve.models.served import Served, most_numbers

LENGTH_HEADER: Final = b"inference-header-content-length"
_MOST_ID: Final = 1024
_PER_NUMBER: Final = 32  # bytes of JSON: the longest double is 24, and there is a comma
_PER_HEADER: Final = 1 << 20
_OF_ANY_SIZE: Final = 32 << 20  # for inputs whose size is not known


@dataclass(frozen=True, eq=False)
class RestAsked:
    """A request, and which of its outputs go back as raw bytes."""

    asked: Asked
    raw: frozenset[str]


class Body(NamedTuple):
    """Its JSON, the raw tensors behind it, and the model's memory in which these lie, if they do."""

    head: memoryview
    raw: memoryview
    berth: Berth | None = None

    @classmethod
    def of(cls, body: Whole | bytearray, header_length: int | None) -> Body:
        """As it came."""
        if isinstance(body, Whole):
            return cls(body.head, body.raw, body.berth)
        whole = memoryview(body)
        length = len(whole) if header_length is None else header_length
        return cls(whole[:length], whole[length:])


def most_json(served: Served) -> int:
    """Bytes that the JSON of a request can need at most: what is longer is not parsed."""
    numbers = most_numbers(served)
    return _OF_ANY_SIZE if numbers is None else sum(numbers) * _PER_NUMBER + _PER_HEADER


def _fixed(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(size or 1 for size in spec.shape)


def parse(desk: Desk, served: Served, body: Body, header_length: int | None) -> RestAsked:
    """Read the body of a request.

    Args:
        desk: knows deadlines.
        served: the model that is asked.
        body: all of it; arrays are views on it.
        header_length: of its JSON, as the client says it; 0: the body is the only input; `None`: all is JSON.

    Raises:
        InputError: it is not as the protocol says, or not what the model takes.
        HttpError: it asks for what is not offered.
    """
    began_ns = time.monotonic_ns()
    if header_length == 0:
        return _parse_raw(desk, served, body, began_ns)
    length = len(body.head)
    if header_length is not None and header_length > length:
        raise InputError("The JSON is said to be longer than the body.", "Check Inference-Header-Content-Length.")
    if length > _PER_HEADER and length > most_json(served):
        raise InputError(
            f"The JSON has {length} bytes, more than this model's inputs can need.", "Send what the model takes."
        )
    request = _load(bytes(body.head))
    parameters = _mapping(request.get("parameters"), "parameters")
    deadline_ns, live = desk.schedule(parameters, began_ns)
    feeds = _berthed(_feeds(served, _objects(request, "inputs"), body.raw), body.berth)
    wanted = _objects(request, "outputs")
    names = desk.wanted(served, [_name(output) for output in wanted])
    identity = request.get("id", "")
    if not isinstance(identity, str) or len(identity) > _MOST_ID:
        raise InputError(f"The id is no string of at most {_MOST_ID} characters.", "Give a shorter one, or none.")
    raw = _raw_outputs(parameters, wanted, names)
    return RestAsked(Asked(served, feeds, names, identity, deadline_ns, live, began_ns), raw)


def _parse_raw(desk: Desk, served: Served, body: Body, began_ns: int) -> RestAsked:
    """A body that is nothing but the model's one input."""
    if len(served.specs.inputs) != 1:
        raise InputError("A raw body can be one input, and the model takes several.", "Name them in JSON.")
    spec = served.specs.inputs[0]
    if any(size is None for size in spec.shape[1:]):
        raise InputError("The shape of the input may vary, and a raw body has none.", "Give it in JSON.")
    each = math.prod(_fixed(spec)) * wire(spec.dtype).itemsize
    shape = tuple(len(body.raw) // each if size is None else size for size in spec.shape)
    feeds = _berthed({spec.name: from_raw(spec, shape, body.raw)}, body.berth)
    deadline_ns, live = desk.schedule({}, began_ns)
    names = desk.wanted(served, [])
    return RestAsked(Asked(served, feeds, names, "", deadline_ns, live, began_ns), frozenset(names))


def _berthed(feeds: dict[str, NDArray[Any]], berth: Berth | None) -> Mapping[str, NDArray[Any]]:
    """The same, as the model's own memory where they lie there: it copies others."""
    if berth is None or feeds.keys() != berth.keys():
        return feeds
    return berth if all(np.may_share_memory(array, berth[name]) for name, array in feeds.items()) else feeds


def _load(text: bytes) -> dict[str, Any]:
    try:
        request = read_json(text, allow_inf_nan=False, cache_strings="none")  # a third of the time of `json`
    except ValueError as error:
        raise InputError("The body is not JSON.", "Check it, and its Inference-Header-Content-Length.") from error
    if not isinstance(request, dict):
        raise InputError("The body is no JSON object.", "Send the object of an inference request.")
    return request


def _feeds(served: Served, inputs: list[dict[str, Any]], rest: memoryview) -> dict[str, NDArray[Any]]:
    specs = {spec.name: spec for spec in served.specs.inputs}
    feeds: dict[str, NDArray[Any]] = {}
    at = 0
    for given in inputs:
        name = _name(given)
        if name not in specs or name in feeds:
            raise InputError(
                "An input is named that the model does not take, or is named twice.", f"It takes: {', '.join(specs)}."
            )
        spec, shape = specs[name], check_declared(specs[name], given.get("datatype"), given.get("shape"))
        parameters = _mapping(given.get("parameters"), "parameters")
        refuse_unsupported(parameters)
        size = parameters.get("binary_data_size")
        if size is None:
            feeds[name] = from_json(spec, shape, given.get("data"))
            continue
        if type(size) is not int or not 0 <= size <= len(rest) - at or "data" in given:
            raise InputError(
                f"binary_data_size of input {name} is not the number of its bytes in the body.",
                "Send its data behind the JSON, and nowhere else.",
            )
        feeds[name] = from_raw(spec, shape, rest[at : at + size])
        at += size
    if missing := specs.keys() - feeds.keys():
        raise InputError(f"The input {min(missing)} is missing.", f"The model takes: {', '.join(specs)}.")
    if at != len(rest):
        raise InputError(f"{len(rest) - at} bytes are left over behind the last input.", "Check the sizes.")
    return feeds


def _raw_outputs(parameters: Mapping[str, Any], wanted: list[dict[str, Any]], names: tuple[str, ...]) -> frozenset[str]:
    default = parameters.get("binary_data_output") is True
    chosen = dict.fromkeys(names, default)
    for output in wanted:
        own = _mapping(output.get("parameters"), "parameters")
        refuse_unsupported(own)
        chosen[_name(output)] = own.get("binary_data", default) is True
    return frozenset(name for name, raw in chosen.items() if raw)


def _objects(request: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = request.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InputError(f"The {key} are no array of objects.", "Send one object for each tensor.")
    return cast("list[dict[str, Any]]", value)


def _mapping(value: object, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"The {what} are no object.", "Send names and values.")
    return value


def _name(tensor: Mapping[str, Any]) -> str:
    name = tensor.get("name")
    if not isinstance(name, str):
        raise InputError("A tensor has no name.", "Name each one.")
    return name


def respond(rest: RestAsked, reply: Reply) -> tuple[list[bytes], int | None]:
    """Parts of the response's body, and the length of its JSON where raw tensors follow.

    Raises:
        HttpError: there is no right answer in the reply.
    """
    outputs: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for name, array in rest.asked.answer(reply):
        one: dict[str, Any] = {"name": name, "datatype": datatype(dtype_name(array.dtype)), "shape": list(array.shape)}
        if name in rest.raw:
            data = to_raw(array)
            one["parameters"] = {"binary_data_size": len(data)}
            parts.append(data)
        else:
            one["data"] = array.ravel().tolist()
        outputs.append(one)
    served = rest.asked.served
    response: dict[str, Any] = {"model_name": served.name, "model_version": served.version}
    if rest.asked.identity:
        response["id"] = rest.asked.identity
    head = write_json({**response, "parameters": rest.asked.about(reply), "outputs": outputs})
    return [head, *parts], len(head) if parts else None
