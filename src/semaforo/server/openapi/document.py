"""Putting the description together from routes and what is said of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from semaforo.server.http import JSON as JSON_HEADER
from semaforo.server.http import HttpRequest, HttpResponse, Response, Route
from semaforo.server.openapi import bodies_openai as openai
from semaforo.server.openapi import bodies_v2 as v2
from semaforo.server.openapi.operations import BYTES, EVENTS, HEADERS, JSON, OPERATIONS, TEXT, Operation

_REF = "#/components/schemas/{name}"
_TEXT_SCHEMA = {"type": "string"}
_BINARY_SCHEMA = {"type": "string", "format": "binary"}
_HEADER_LENGTH = "Inference-Header-Content-Length"
_ABOUT = (
    "One endpoint for a fleet of models. `{model}` may be a task, a model or an alias. The contract of a request "
    "travels in `semaforo-*` headers, and is kept or refused with the reason; `semaforo-model`, `-variant`, "
    "`-replica` and `-request-id` of an answer say who served it."
)


def document(routes: Sequence[Route], version: str, keys: bool) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of these routes.

    Args:
        routes: What is served.
        version: Of the server.
        keys: Whether API keys are asked for.

    Raises:
        KeyError: Nothing is said of a route.
    """
    said = {(route.method, route.pattern): OPERATIONS[route.method, route.pattern] for route in routes}
    types: dict[Any, None] = {v2.Error: None, openai.OpenAIError: None}
    for operation in said.values():
        types |= {one: None for one in (operation.takes, operation.gives) if one is not None}
    schemas, components = msgspec.json.schema_components(list(types), ref_template=_REF)
    schema_of = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for (method, pattern), operation in said.items():
        about = _operation(method, pattern, operation, lambda one: schema_of[repr(one)])
        if keys and pattern not in ("/v2/health/live", "/v2/health/ready"):
            about["security"] = [{"key": []}]
        paths.setdefault(pattern, {})[method.lower()] = about
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "Semaforo", "version": version, "description": _ABOUT, "license": _LICENCE},
        "paths": paths,
        "components": {"schemas": components},
    }
    if keys:
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return found


def routes(described: Sequence[Route], version: str, keys: bool) -> list[Route]:
    """Return the route at which routes, and itself, are described."""
    made: list[bytes] = []

    async def show(request: HttpRequest) -> Response:
        if not made:
            made.append(msgspec.json.encode(document([*described, own], version, keys)))
        return HttpResponse(200, (JSON_HEADER,), made[0])

    own = Route("GET", "/openapi.json", "probe", show)
    return [own]


_LICENCE = {"name": "Apache-2.0", "identifier": "Apache-2.0"}


def _operation(
    method: str, pattern: str, operation: Operation, schema: Callable[[Any], dict[str, Any]]
) -> dict[str, Any]:
    names = re.findall(r"{(\w+)}", pattern)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in names
    ]
    parameters += [_parameter(name, "query", *said) for name, said in operation.query.items()]
    if operation.contract:
        parameters += [_parameter(f"semaforo-{name}", "header", *said) for name, said in HEADERS.items()]
    if operation.binary:
        text = "Length of the JSON, after which binary tensors follow in order."
        parameters.append(_parameter(_HEADER_LENGTH, "header", {"type": "integer", "minimum": 0}, text))
    about: dict[str, Any] = {
        "operationId": f"{method.lower()}{re.sub(r'[^0-9A-Za-z]+', '_', pattern).rstrip('_')}",
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": _responses(pattern, operation, schema),
    }
    if parameters:
        about["parameters"] = parameters
    if operation.takes is not None:
        content: dict[str, Any] = {operation.form: {"schema": schema(operation.takes)}}
        if operation.binary:
            content[BYTES] = {"schema": _BINARY_SCHEMA}
        about["requestBody"] = {"required": not operation.optional, "content": content}
    return about


def _responses(pattern: str, operation: Operation, schema: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    content = {} if operation.gives is None else {JSON: {"schema": schema(operation.gives)}}
    for media in operation.also:
        content[media] = {"schema": _TEXT_SCHEMA if media in (EVENTS, TEXT) else _BINARY_SCHEMA}
    error = openai.OpenAIError if pattern.startswith("/v1/") else v2.Error
    found: dict[str, Any] = {str(operation.status): {"description": "Done.", "content": content}}
    if operation.contract:
        found["202"] = {
            "description": "Queued, where `semaforo-mode: queue` was asked for.",
            "content": {JSON: {"schema": {"type": "object"}}},
        }
    found["default"] = {
        "description": "What is wrong, and what to do.",
        "content": {JSON: {"schema": schema(error)}},
    }
    return found


def _parameter(name: str, place: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": place, "description": text, "schema": schema}
