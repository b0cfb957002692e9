"""From what a request brings to the arguments of a user's own function, by the parameters' names.

Rule 1: no I/O; the request has been read.
Rule 2: a parameter is looked for in the path, then in the JSON body's fields, then in the query. `request` is the
transport's own request, `principal` who calls, `**others` all fields that no parameter took.
Rule 3: a sole parameter that is a model (a msgspec Struct, a dataclass, a TypedDict, a pydantic model, a dict) takes
the body whole, and so does any sole parameter when the body is not an object. Among others a model takes the field of
its name, or the body whole where there is no such field.
Rule 4: a value is converted to its parameter's annotation, or refused with `InvalidRequest` that names the field.
Values of JSON keep their types; words of paths and queries become numbers, booleans and dates as needed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct

from greenroom.actors.errors import ConfigurationError, InvalidRequest
from greenroom.actors.ids import Sources
from greenroom.actors.messages import AgentRequest
from greenroom.transports.process_decode import decode_request

REQUEST: Final = "request"
PRINCIPAL: Final = "principal"
REQUEST_MODULES: Final = ("aiohttp.web_request", "starlette.requests")
"""Where request classes are from. A function written for FastAPI gets aiohttp's request too: method, headers, cookies
and `await request.json()` are alike."""


class Given(Struct, frozen=True, kw_only=True):
    """What a request brings. `body`: decoded JSON, `None` when there is none. `query`: each name's values."""

    request: Any = None
    principal: str | None = None
    path: Mapping[str, str] = {}
    query: Mapping[str, Sequence[str]] = {}
    body: Any = None
    sources: Sources = Sources()

    @property
    def fields(self) -> Mapping[str, Any]:
        """The body's fields; none when it is not an object."""
        return self.body if isinstance(self.body, dict) else {}


class Parameter:
    """One parameter: where its value is found, and what it is converted to."""

    __slots__ = ("_convert", "annotation", "many", "model", "name", "optional")

    def __init__(self, name: str, annotation: Any, optional: bool) -> None:
        self.name = name
        self.annotation = annotation
        self.optional = optional
        self.model = _is_model(annotation)
        self.many = _origin(annotation) in {list, set, frozenset, tuple}
        self._convert = _converter(annotation)

    def __repr__(self) -> str:
        return f"<Parameter {self.name}>"

    def value(self, given: Given, sole: bool) -> Any:
        """Its value, `UNSET` when there is none and none is needed. Raises `InvalidRequest`."""
        if self.name in given.path:
            return self._converted(given, given.path[self.name], self.name, words=True)
        if sole and given.body is not None and (self.model or not isinstance(given.body, dict)):
            return self._converted(given, given.body)
        if self.name in given.fields:
            return self._converted(given, given.fields[self.name], self.name)
        if self.name in given.query:
            values = given.query[self.name]
            return self._converted(given, list(values) if self.many else values[-1], self.name, words=True)
        if self.model and given.fields:
            return self._converted(given, given.body)
        if self.optional:
            return UNSET
        raise InvalidRequest(
            f"{self.name} is missing: send it in the JSON body or in the query", field=self.name
        )

    def _converted(self, given: Given, value: Any, field: str = "", words: bool = False) -> Any:
        try:
            return self._convert(value, words, given)
        except Mismatch as mismatch:
            between = "." if field and mismatch.where and not mismatch.where.startswith("[") else ""
            where = f"{field}{between}{mismatch.where}"
            raise InvalidRequest(
                f"{where or 'the body'} does not fit: {mismatch}", field=where or None
            ) from mismatch


class Binder:
    """The parameters of one function. Raises `ConfigurationError` for one that no request could satisfy."""

    __slots__ = ("_principal", "_request", "_rest", "_signature", "parameters")

    def __init__(self, function: Callable[..., Any], path_names: frozenset[str] = frozenset()) -> None:
        self._signature = inspect.signature(function)
        self._request: str | None = None
        self._principal: str | None = None
        self._rest: str | None = None
        self.parameters: list[Parameter] = []
        for parameter in self._signature.parameters.values():
            self._add(parameter, function)
        unknown = path_names - {parameter.name for parameter in self.parameters}
        if unknown and self._rest is None and self._request is None:
            raise ConfigurationError(
                f"{_name(function)} has no parameter for {', '.join(sorted(unknown))} of its path; add one by that name"
            )

    def __repr__(self) -> str:
        return f"<Binder {self._signature}>"

    def _add(self, parameter: inspect.Parameter, function: Callable[..., Any]) -> None:
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            self._rest = parameter.name
        elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
            annotation = _annotation(parameter, function)
            if _is_request(parameter.name, annotation):
                self._request = parameter.name
            elif parameter.name == PRINCIPAL:
                self._principal = parameter.name
            else:
                optional = parameter.default is not inspect.Parameter.empty
                self.parameters.append(Parameter(parameter.name, annotation, optional))

    @property
    def reads_body(self) -> bool:
        """Whether the function wants anything of the body. One that reads the request itself does not."""
        return bool(self.parameters) or self._rest is not None

    @property
    def takes_rest(self) -> bool:
        """Whether the function takes fields that none of its parameters names (`**others`)."""
        return self._rest is not None

    def bind(self, given: Given) -> inspect.BoundArguments:
        """The arguments to call the function with. Raises `InvalidRequest`."""
        named = [parameter for parameter in self.parameters if parameter.name not in given.path]
        sole = named[0] if len(named) == 1 and self._rest is None else None
        if given.body is not None and not isinstance(given.body, dict) and sole is None and self.reads_body:
            raise InvalidRequest(
                f"the body must be a JSON object with the fields {', '.join(p.name for p in named) or 'you mean'}"
            )
        arguments: dict[str, Any] = {}
        for parameter in self.parameters:
            value = parameter.value(given, parameter is sole)
            if value is not UNSET:
                arguments[parameter.name] = value
        if self._request is not None:
            arguments[self._request] = given.request
        if self._principal is not None:
            arguments[self._principal] = given.principal
        if self._rest is not None:
            arguments[self._rest] = self._others(given)
        in_order = {name: arguments[name] for name in self._signature.parameters if name in arguments}
        return inspect.BoundArguments(self._signature, in_order)

    def _others(self, given: Given) -> dict[str, Any]:
        words = {name: values[-1] for name, values in given.query.items()}
        taken = {parameter.name for parameter in self.parameters} | {self._request, self._principal}
        everything = words | dict(given.fields) | dict(given.path)
        return {name: value for name, value in everything.items() if name not in taken}


# -- annotations -------------------------------------------------------------------------------------------------------


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))


def _annotation(parameter: inspect.Parameter, function: Callable[..., Any]) -> Any:
    annotation = parameter.annotation
    if annotation is inspect.Parameter.empty:
        return Any
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, _globals(function))  # the user's own annotation, as typing evaluates it
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        if parameter.name == REQUEST:
            return Any
        raise ConfigurationError(
            f"the annotation {annotation!r} of {_name(function)}'s parameter {parameter.name} cannot be resolved "
            f"({error}); import what it names at the top of the module, not under TYPE_CHECKING or inside a function"
        ) from error


def _globals(function: Any) -> dict[str, Any]:
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    if not hasattr(function, "__globals__"):
        function = type(function).__call__
    found: dict[str, Any] = getattr(function, "__globals__", {})
    return found


def _is_request(name: str, annotation: Any) -> bool:
    """Whether the transport's own request is meant: by its class, or by its name if it is not annotated as a model."""
    if isinstance(annotation, type) and annotation.__module__ in REQUEST_MODULES:
        return True
    return name == REQUEST and not _is_model(annotation)


def _members(annotation: Any) -> list[Any]:
    """The alternatives of an annotation, without `None`."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        return [
            m for each in typing.get_args(annotation) if each is not types.NoneType for m in _members(each)
        ]
    return [annotation]


def _origin(annotation: Any) -> Any:
    members = _members(annotation)
    return (typing.get_origin(members[0]) or members[0]) if len(members) == 1 else None


def _is_model(annotation: Any) -> bool:
    return all(_is_model_class(typing.get_origin(member) or member) for member in _members(annotation))


def _is_model_class(candidate: Any) -> bool:
    if not isinstance(candidate, type):
        return False
    return (
        issubclass(candidate, Struct | Mapping)
        or dataclasses.is_dataclass(candidate)
        or typing.is_typeddict(candidate)
        or _is_pydantic(candidate)
    )


def _is_pydantic(candidate: Any) -> bool:
    return isinstance(candidate, type) and hasattr(candidate, "__pydantic_validator__")


def _mentions_pydantic(annotation: Any) -> bool:
    return _is_pydantic(annotation) or any(_mentions_pydantic(inner) for inner in typing.get_args(annotation))


# -- conversion --------------------------------------------------------------------------------------------------------

Convert: typing.TypeAlias = Callable[[Any, bool, Given], Any]
"""Makes a value as annotated of a JSON value, or (when the second argument is true) of words."""


class Mismatch(Exception):
    """A value does not fit its annotation; `where` in it the fault lies, like `items[0].name`."""

    def __init__(self, reason: str, where: str) -> None:
        super().__init__(reason)
        self.where = where


def _converter(annotation: Any) -> Convert:
    if annotation is Any:
        return lambda value, _words, _given: value
    if _members(annotation) == [AgentRequest]:
        return _agent_request
    if _mentions_pydantic(annotation):
        return _pydantic_converter(annotation)
    return _msgspec_converter(annotation)


def _agent_request(value: Any, words: bool, given: Given) -> AgentRequest:
    """A request as `POST /process` takes it."""
    del words
    return decode_request(
        msgspec.json.encode(value), sources=given.sources, principal=given.principal
    ).request


def _msgspec_converter(annotation: Any) -> Convert:
    def convert(value: Any, words: bool, _given: Given | None) -> Any:
        try:
            return msgspec.convert(value, annotation, strict=not words)
        except msgspec.ValidationError as error:
            reason, _, where = str(error).partition(" - at `$")
            raise Mismatch(reason, where.rstrip("`").lstrip(".")) from error

    with contextlib.suppress(Mismatch):  # most refuse a null, as they should
        try:
            convert(None, True, None)
        except TypeError as error:
            raise ConfigurationError(f"no JSON value can be converted to {annotation!r}: {error}") from error
    return convert


def _pydantic_converter(annotation: Any) -> Convert:
    import pydantic  # it is loaded already, as the annotation is made of it

    adapter: Any = pydantic.TypeAdapter(annotation)

    def convert(value: Any, _words: bool, _given: Given) -> Any:
        try:
            return adapter.validate_python(value)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
            raise Mismatch(first["msg"], where.lstrip(".")) from error

    return convert
