"""What OpenAI's two protocols share: function tools, answer formats, metadata; refusing what an application does not
do; and the types of errors and where all of it is served.

Rule: no I/O. As `json_checks`: each gives the value, or raises `InvalidRequest` that names the field.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from greenroom.actors.errors import InvalidRequest
from greenroom.actors.messages import AnswerFormat, FunctionTool, TurnOptions
from greenroom.transports.json_checks import boolean, mapping, needed_string, optional_string, string

BASE_PATH = "/compatible-mode/v1"
"""Where OpenAI's clients look."""
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
INVALID = "invalid_request_error"
RATE = "rate_limit_exceeded"
SERVER = "server_error"
METADATA_PAIRS = 16
METADATA_KEY_CHARS = 64
METADATA_VALUE_CHARS = 512

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}", re.ASCII)


def function_tool(value: Any, at: str) -> FunctionTool:
    """A function that the client runs: `{name, description?, parameters?, strict?}`."""
    fields = mapping(value, at)
    name = needed_string(fields, "name", at, "a function tool is called by its name")
    parameters = fields.get("parameters")
    strict = fields.get("strict")
    return FunctionTool(
        name=_plain_name(name, f"{at}.name"),
        description=optional_string(fields, "description", at),
        parameters=None if parameters is None else mapping(parameters, f"{at}.parameters"),
        strict=None if strict is None else boolean(strict, f"{at}.strict"),
    )


def distinct_tools(tools: Sequence[FunctionTool], at: str) -> tuple[FunctionTool, ...]:
    """The tools, if no two have one name."""
    names: set[str] = set()
    for place, tool in enumerate(tools):
        if tool.name in names:
            raise InvalidRequest(
                f"{at}[{place}] is a second tool called {tool.name!r}; give each a name of its own",
                field=f"{at}[{place}]",
            )
        names.add(tool.name)
    return tuple(tools)


def json_schema_answer(value: Any, at: str) -> AnswerFormat:
    """An answer that a schema validates: `{name, schema, strict?, description?}`."""
    fields = mapping(value, at)
    name = needed_string(fields, "name", at, "a schema has a name of letters, digits, _ and -")
    schema = fields.get("schema")
    strict = fields.get("strict")
    return AnswerFormat(
        kind="json_schema",
        name=_plain_name(name, f"{at}.name"),
        schema=None if schema is None else mapping(schema, f"{at}.schema"),
        strict=None if strict is None else boolean(strict, f"{at}.strict"),
    )


def metadata(value: Any, at: str) -> dict[str, str]:
    """Pairs of short texts."""
    pairs = mapping(value, at)
    if len(pairs) > METADATA_PAIRS:
        raise InvalidRequest(f"{at} has {len(pairs)} pairs; it may have {METADATA_PAIRS}", field=at)
    for key, text in pairs.items():
        if len(key) > METADATA_KEY_CHARS:
            raise InvalidRequest(
                f"{at} has a key of {len(key)} characters; a key may have {METADATA_KEY_CHARS}", field=at
            )
        place = f"{at}.{key}"
        if len(string(text, place)) > METADATA_VALUE_CHARS:
            raise InvalidRequest(
                f"{place} has {len(text)} characters; a value may have {METADATA_VALUE_CHARS}", field=place
            )
    return pairs


def refuse_unhonoured(
    options: TurnOptions, honours: Collection[str], asked_as: Mapping[str, str | None]
) -> None:
    """Refuse a turn that asks for what the application's handler does not do. What is asked for is never dropped.

    `asked_as`: what the request calls the option, by its name in `TurnOptions`. Raises `InvalidRequest`.
    """
    for name, asked in asked_as.items():
        if asked and name not in honours and _asks(options, name):
            raise InvalidRequest(
                f"{asked} is not something this application's agent does, and it would not be right to drop it; "
                "leave it out",
                field=asked,
            )


def _asks(options: TurnOptions, name: str) -> bool:
    value = getattr(options, name)
    if name == "tool_choice":
        return bool(value != "auto")
    if name == "parallel_tool_calls":
        return value is False
    return value is not None and value != ()


def _plain_name(name: str, at: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"{at} must be 1 to 64 letters, digits, _ and -", field=at)
    return name
