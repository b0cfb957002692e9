"""The OpenAPI document: every route that an application serves, from aiohttp's own table of them.

Rule 1: no I/O.
Rule 2: what is not described is left out, and a test that walks the table says so; nothing is in the document that is
not in the table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from msgspec import structs

from greenroom.transports.openai_fields import BASE_PATH
from greenroom.transports.openapi.about import ABOUT, ERRORS, LOOKING
from greenroom.transports.openapi.chat import CHAT
from greenroom.transports.openapi.chat import SCHEMAS as CHAT_SCHEMAS
from greenroom.transports.openapi.conversations import CONVERSATIONS, MODELS
from greenroom.transports.openapi.conversations import SCHEMAS as CONVERSATION_SCHEMAS
from greenroom.transports.openapi.endpoints import endpoint_operation, task_below
from greenroom.transports.openapi.items import SCHEMAS as ITEM_SCHEMAS
from greenroom.transports.openapi.operation import (
    ALWAYS,
    Operation,
    error_name,
    refusing,
)
from greenroom.transports.openapi.process import PROCESS
from greenroom.transports.openapi.process import SCHEMAS as PROCESS_SCHEMAS
from greenroom.transports.openapi.responses import RESPONSES
from greenroom.transports.openapi.responses import SCHEMAS as RESPONSE_SCHEMAS
from greenroom.transports.openapi.schemas import Schema, text
from greenroom.transports.transport import Host

EVENTS = "text/event-stream"
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_COMPATIBLE = RESPONSES | CONVERSATIONS | CHAT | MODELS

OPERATIONS: dict[str, Operation] = {
    **ABOUT,
    **PROCESS,
    **LOOKING,
    **{
        f"{method} {BASE_PATH}{path}": operation
        for (method, path), operation in ((key.split(" ", 1), each) for key, each in _COMPATIBLE.items())
    },
}
"""What is known of our own routes, by method and path."""
_SCHEMAS: dict[str, Schema] = {
    **ERRORS,
    **PROCESS_SCHEMAS,
    **ITEM_SCHEMAS,
    **RESPONSE_SCHEMAS,
    **CHAT_SCHEMAS,
    **CONVERSATION_SCHEMAS,
}


def document(host: Host, routes: Iterable[tuple[str, str]], prefix: str = "") -> dict[str, Any]:
    """The document. `routes`: method and path of each, as aiohttp knows them; `prefix`: where in another application
    ours is mounted, which those paths begin with."""
    schemas = dict(_SCHEMAS)
    paths: dict[str, dict[str, Any]] = {}
    refused: set[tuple[Any, int]] = set()
    for method, path in sorted(set(routes), key=lambda route: (route[1], route[0])):
        path = path.removeprefix(prefix)
        operation = _operation(host, method, path, schemas)
        if operation is not None:
            paths.setdefault(path, {})[method.lower()] = _written(operation, path)
            refused |= {(operation.form, status) for status in _refusals(operation)}
    return {
        "openapi": "3.1.0",
        "info": {"title": host.name, "description": host.description, "version": version("greenroom")},
        "servers": [{"url": prefix or "/"}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "responses": {
                error_name(form, status): refusing(form, status) for form, status in sorted(refused)
            },
        },
    }


def _operation(host: Host, method: str, path: str, schemas: dict[str, Schema]) -> Operation | None:
    for endpoint in host.endpoints:
        plain = _PLAIN.sub(r"{\1}", endpoint.path)
        if endpoint.function is None and path.startswith(f"{plain}/task"):
            return task_below(method, plain)
        if plain == path and (method in endpoint.methods or (method == "HEAD" and "GET" in endpoint.methods)):
            names = frozenset(_PLACEHOLDER.findall(path))
            return endpoint_operation(endpoint, method, names, schemas)
    known = OPERATIONS.get(f"{method} {path}")
    if known is None and method == "HEAD" and (shown := OPERATIONS.get(f"GET {path}")) is not None:
        return _head(shown)
    return known


_PLAIN = re.compile(r"\{(\w+)(?::[^{}]*)?\}")


def _head(shown: Operation) -> Operation:
    """The same without a body."""
    answers = {
        status: structs.replace(answer, json=None, events=None, types=())
        for status, answer in shown.answers.items()
    }
    return structs.replace(shown, id=f"{shown.id}Head", answers=answers)


def _refusals(operation: Operation) -> list[int]:
    return sorted({*operation.refusals, *ALWAYS})


def _written(operation: Operation, path: str) -> dict[str, Any]:
    written: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": {
            **{str(status): _answer(answer) for status, answer in operation.answers.items()},
            **{
                str(status): {"$ref": f"#/components/responses/{error_name(operation.form, status)}"}
                for status in _refusals(operation)
            },
            **operation.more,
        },
    }
    parameters = _parameters(operation, path)
    if parameters:
        written["parameters"] = parameters
    if operation.body is not None:
        written["requestBody"] = {
            "required": operation.body_needed,
            "content": {"application/json": {"schema": operation.body}},
        }
    return written


def _parameters(operation: Operation, path: str) -> list[dict[str, Any]]:
    named = [
        {"name": name, "in": "path", "required": True, "schema": operation.path.get(name, text())}
        for name in _PLACEHOLDER.findall(path)
    ]
    asked = [
        {"name": name, "in": "query", "required": name in operation.needed, "schema": schema}
        for name, schema in operation.query.items()
    ]
    headers = [{"name": name, "in": "header", "schema": schema} for name, schema in operation.headers.items()]
    return named + asked + headers


def _answer(answer: Any) -> dict[str, Any]:
    written: dict[str, Any] = {"description": answer.what}
    content: dict[str, Any] = {kind: {} for kind in answer.types}
    if answer.json is not None:
        content["application/json"] = {"schema": answer.json}
    if answer.events is not None:
        content[EVENTS] = {"schema": _event(answer.events)}
    if content:
        written["content"] = content
    return written


def _event(data: Schema) -> Schema:
    """One event of a stream: of a sequence, OpenAPI before 3.2 describes the single one."""
    json = {"type": "string", "contentMediaType": "application/json", "contentSchema": data}
    return {
        "description": "One event of the stream; where there is one, `[DONE]` is the last",
        "type": "object",
        "properties": {"data": {"anyOf": [{"const": "[DONE]"}, json]}, "id": {"type": "string"}},
        "required": ["data"],
    }
