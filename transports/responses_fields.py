"""Fields of a request for a response: each is checked, and given the form in which the response repeats it.

Rule: no I/O. As `json_checks`: each gives the value, or raises `InvalidRequest` that names the field.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from greenroom.actors.answer_check import check_schema
from greenroom.actors.errors import InvalidRequest
from greenroom.actors.messages import AnswerFormat, FunctionTool
from greenroom.transports.json_checks import (
    boolean,
    identifier,
    integer,
    integer_from,
    items,
    mapping,
    missing,
    needed_string,
    number_within,
    short_string,
    string,
    word,
)
from greenroom.transports.openai_fields import (
    EFFORTS,
    distinct_tools,
    function_tool,
    json_schema_answer,
    metadata,
)

MOST_LOGPROBS = 20
LEAST_OUTPUT_TOKENS = 16
KEY_CHARS = 64

_FORMATS = ("text", "json_object", "json_schema")
CHOICES = ("auto", "none", "required")
SUMMARIES = ("auto", "concise", "detailed")
TIERS = ("auto", "default", "flex", "scale", "priority", "fast", "ultrafast")
VERBOSITIES = ("low", "medium", "high")


class AskedText(Struct, frozen=True):
    """`text`: what the answer must be, and how it is repeated."""

    answer: AnswerFormat | None
    shown: dict[str, Any]


class AskedChoice(Struct, frozen=True):
    """`tool_choice`. `forced`: the one tool that must be called."""

    choice: str
    forced: str | None
    shown: str | dict[str, Any]


class AskedTools(Struct, frozen=True):
    """`tools`: functions that the client runs."""

    tools: tuple[FunctionTool, ...]
    shown: tuple[dict[str, Any], ...]


def _text(value: Any, at: str) -> AskedText:
    fields = mapping(value, at)
    verbosity = fields.get("verbosity")
    if verbosity is not None:
        word(verbosity, f"{at}.verbosity", VERBOSITIES)
    answer, shown = _format(fields.get("format"), f"{at}.format")
    return AskedText(answer, {"format": shown, "verbosity": verbosity or "medium"})


def _format(value: Any, at: str) -> tuple[AnswerFormat | None, dict[str, Any]]:
    if value is None:
        return None, {"type": "text"}
    fields = mapping(value, at)
    kind = needed_string(fields, "type", at, f"a format is one of {', '.join(_FORMATS)}")
    word(kind, f"{at}.type", _FORMATS)
    if kind == "text":
        return None, {"type": kind}
    if kind == "json_object":
        return AnswerFormat(kind="json_object"), {"type": kind}
    answer = json_schema_answer(fields, at)
    if answer.schema is None:
        missing(f"{at}.schema", "a json_schema format is a schema that the answer must validate against")
    check_schema(answer.schema, f"{at}.schema")
    shown = {"type": kind, "name": answer.name, "description": fields.get("description")}
    return answer, {**shown, "schema": answer.schema, "strict": bool(answer.strict)}


def _tool_choice(value: Any, at: str) -> AskedChoice:
    if type(value) is str:
        return AskedChoice(word(value, at, CHOICES), None, value)
    fields = mapping(value, at)
    kind = needed_string(fields, "type", at, "a choice that is an object says what it chooses")
    if kind != "function":
        raise InvalidRequest(
            f"{at} asks for {ascii(kind)[:40]}, which this application's agent cannot be held to; choose a function, "
            f"or one of {', '.join(CHOICES)}",
            field=at,
        )
    name = needed_string(fields, "name", at, "a function is chosen by its name")
    return AskedChoice("auto", name, {"type": "function", "name": name})


def _tools(value: Any, at: str) -> AskedTools:
    tools = distinct_tools(
        [_tool(tool, f"{at}[{place}]") for place, tool in enumerate(items(value, at, "tools"))], at
    )
    return AskedTools(
        tools,
        tuple(
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
                "strict": tool.strict,
            }
            for tool in tools
        ),
    )


def _tool(value: Any, at: str) -> FunctionTool:
    fields = mapping(value, at)
    kind = fields.get("type")
    if kind != "function":
        raise InvalidRequest(
            f"{at} is of the type {ascii(kind)[:40]}, which this application's agent does not have; "
            "a client may bring tools of the type function, which it runs itself",
            field=at,
        )
    if fields.get("name") is None and type(fields.get("function")) is dict:
        missing(f"{at}.name", "in this API a function's name lies beside its type, not in `function`")
    return function_tool(fields, at)


def _reasoning(value: Any, at: str) -> dict[str, Any]:
    fields = mapping(value, at)
    effort, summary = fields.get("effort"), fields.get("summary") or fields.get("generate_summary")
    if effort is not None:
        word(effort, f"{at}.effort", EFFORTS)
    if summary is not None:
        word(summary, f"{at}.summary", SUMMARIES)
    return {"effort": effort, "summary": summary}


def _conversation(value: Any, at: str) -> str:
    if type(value) is dict:
        if not value.get("id"):
            missing(f"{at}.id", "a conversation is named by its id")
        return identifier(value["id"], f"{at}.id")
    if type(value) is not str:
        raise InvalidRequest(f"{at} must be an id, or an object with an id", field=at)
    return identifier(value, at)


def _include(value: Any, at: str) -> tuple[str, ...]:
    return tuple([string(name, f"{at}[{place}]") for place, name in enumerate(items(value, at, "names"))])


def _logprobs(value: Any, at: str) -> int:
    if not 0 <= integer(value, at) <= MOST_LOGPROBS:
        raise InvalidRequest(f"{at} is {value}; it may be from 0 to {MOST_LOGPROBS}", field=at)
    return int(value)


def _truncation(value: Any, at: str) -> str:
    return word(value, at, ("auto", "disabled"))


def _tier(value: Any, at: str) -> str:
    return word(value, at, TIERS)


def _managed(value: Any, at: str) -> list[Any]:
    return [mapping(entry, f"{at}[{place}]") for place, entry in enumerate(items(value, at, "objects"))]


def _streaming(value: Any, at: str) -> dict[str, Any]:
    fields = mapping(value, at)
    if (padded := fields.get("include_obfuscation")) is not None:
        boolean(padded, f"{at}.include_obfuscation")
    return fields


def _penalty(value: Any, at: str) -> float:
    return number_within(value, at, -2, 2)


CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "model": string,
    "instructions": string,
    "previous_response_id": identifier,
    "conversation": _conversation,
    "session_id": identifier,
    "user_id": identifier,
    "store": boolean,
    "stream": boolean,
    "stream_options": _streaming,
    "background": boolean,
    "tools": _tools,
    "tool_choice": _tool_choice,
    "parallel_tool_calls": boolean,
    "text": _text,
    "reasoning": _reasoning,
    "include": _include,
    "max_output_tokens": lambda value, at: integer_from(value, at, LEAST_OUTPUT_TOKENS),
    "max_tool_calls": lambda value, at: integer_from(value, at, 1),
    "temperature": lambda value, at: number_within(value, at, 0, 2),
    "top_p": lambda value, at: number_within(value, at, 0, 1),
    "presence_penalty": _penalty,
    "frequency_penalty": _penalty,
    "top_logprobs": _logprobs,
    "truncation": _truncation,
    "metadata": metadata,
    "user": string,
    "safety_identifier": string,
    "prompt_cache_key": lambda value, at: short_string(value, at, KEY_CHARS),
    "service_tier": _tier,
    "context_management": _managed,
}
"""How each field is read, but for the input."""
