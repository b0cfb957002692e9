"""What the document says of the user's own routes: their parameters, by `endpoint_arguments`."""

from __future__ import annotations

import inspect
import re
from typing import Any

import msgspec

from greenroom.actors.messages import AgentRequest
from greenroom.transports.endpoint_arguments import Binder, Parameter
from greenroom.transports.openapi.operation import OF_A_BODY, Answer, Operation
from greenroom.transports.openapi.process import standing_operation, task_operation, turn_operation
from greenroom.transports.openapi.schemas import ANYTHING, SCHEMAS, Schema, mapping, nullable, ref
from greenroom.transports.transport import Endpoint

_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})
_WORD = re.compile(r"[^A-Za-z0-9_]+")
_REFUSALS = (*OF_A_BODY, 401, 403, 404, 405, 409, 422, 503)
"""What the server refuses; the function may answer or raise anything else."""


def task_below(method: str, endpoint: str) -> Operation:
    """One of the routes of tasks below another path for `POST /process`."""
    make = task_operation if method == "POST" else standing_operation
    return make(_id("task", method, f"{endpoint}/task"))


def endpoint_operation(
    endpoint: Endpoint, method: str, path_names: frozenset[str], schemas: dict[str, Schema]
) -> Operation:
    """One of an endpoint's routes. What its annotations name is added to `schemas`."""
    if endpoint.function is None:
        return turn_operation(_id("process", method, endpoint.path))
    function = endpoint.function
    binder = Binder(function, path_names)
    given = [parameter for parameter in binder.parameters if parameter.name not in path_names]
    with_body = method not in _WITHOUT_BODY and binder.reads_body
    generator = inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)
    answer = (
        Answer(what="What the function yields", events=ANYTHING)
        if generator
        else Answer(
            what="What the function gives back", types=("application/json", "text/event-stream", "*/*")
        )
    )
    return Operation(
        id=_id(getattr(function, "__name__", "endpoint"), method, endpoint.path),
        summary=(inspect.getdoc(function) or f"{method} {endpoint.path}").partition("\n")[0],
        tag="endpoints",
        query={} if with_body else {each.name: _schema(each, schemas) for each in given},
        needed=() if with_body else tuple(each.name for each in given if not each.optional),
        path={each.name: _schema(each, schemas) for each in binder.parameters if each.name in path_names},
        body=_body(given, binder, schemas) if with_body else None,
        body_needed=any(not each.optional for each in given),
        answers={200: answer},
        refusals=_REFUSALS,
        more={"default": {"description": "What the function itself answers", "content": {"*/*": {}}}},
    )


def _body(given: list[Parameter], binder: Binder, schemas: dict[str, Schema]) -> Schema:
    """The body: a sole model takes it whole; else it has a field for each parameter."""
    if len(given) == 1 and not binder.takes_rest and given[0].model:
        body = _schema(given[0], schemas)
    else:
        fields = {each.name: _schema(each, schemas) for each in given}
        body = mapping(fields, [each.name for each in given if not each.optional])
    return body if any(not each.optional for each in given) else nullable(body)  # `null` is no body


def _schema(parameter: Parameter, schemas: dict[str, Schema]) -> Schema:
    """What its annotation takes; where that cannot be said, anything."""
    annotation = parameter.annotation
    if annotation is AgentRequest:
        return ref("ProcessRequest")
    if annotation is Any:
        return ANYTHING
    try:
        (schema,), components = msgspec.json.schema_components([annotation], ref_template=SCHEMAS + "{name}")
    except (TypeError, NotImplementedError):
        return _pydantic_schema(annotation)
    schemas.update({name: other for name, other in components.items() if name not in schemas})
    return schema


def _pydantic_schema(annotation: Any) -> Schema:
    schema = getattr(annotation, "model_json_schema", None)
    if not callable(schema):
        return ANYTHING
    whole: Any = schema()
    return ANYTHING if "$defs" in whole else dict(whole)


def _id(name: str, method: str, path: str) -> str:
    return "_".join(filter(None, (_WORD.sub("_", name), method.lower(), *_WORD.sub(" ", path).split())))
