"""Reading Chat Completions: a request's bytes become a `Turn`.

Rule 1: no I/O, no clock of its own: time and ids come from `Sources`.
Rule 2: any bytes whatever give a `Turn` or a `GreenroomError` that names the field and says what would be right.
Rule 3: what a request asks for is done or refused, never dropped. Hints to a model (temperature, seed, effort) are
handed on.

The protocol has no sessions: a request holds all that was said, is a session of its own and leaves nothing behind. With
`session_id` it is a turn of that session, which knows what was said: only what follows the last assistant's message is
new. `null` means absent, and fields that are not known are kept in `AgentRequest.extra`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from greenroom.actors.answer_check import check_schema
from greenroom.actors.errors import InvalidRequest
from greenroom.actors.ids import Sources
from greenroom.actors.messages import (
    AgentRequest,
    AnswerFormat,
    Disconnect,
    FunctionTool,
    SessionKey,
    Turn,
    TurnOptions,
)
from greenroom.actors.repeats import UNNAMED
from greenroom.transports.chat_encode import ChatEcho, ToolDisplay
from greenroom.transports.chat_messages import Conversation, new_messages, whole_conversation
from greenroom.transports.idempotency import fingerprint
from greenroom.transports.json_checks import (
    boolean,
    identifier,
    integer,
    integer_from,
    items,
    json_object,
    mapping,
    missing,
    needed_string,
    number_within,
    owner,
    string,
    unknown,
    word,
)
from greenroom.transports.openai_fields import (
    EFFORTS,
    distinct_tools,
    function_tool,
    json_schema_answer,
    metadata,
    refuse_unhonoured,
)
from greenroom.transports.turn_policies import asked_disconnect, asked_overlap, asked_webhook

ToolChoice: TypeAlias = Literal["auto", "none", "required"]

_CHOICES: dict[str, ToolChoice] = {"auto": "auto", "none": "none", "required": "required"}
_FORMATS = ("text", "json_object", "json_schema")


class ChatSettings(Struct, frozen=True, kw_only=True):
    """What the application says about its completions. `model`: what it is called when a request names none;
    `honours`: the fields of `TurnOptions` that its handler does; `tools`: how calls of its own tools are shown;
    `disconnect`: the policy when a request names none."""

    model: str
    honours: Collection[str] = frozenset()
    tools: ToolDisplay = "hidden"
    disconnect: Disconnect = Disconnect()


def decode_chat(
    body: bytes,
    *,
    sources: Sources,
    settings: ChatSettings,
    principal: str | None = None,
    key: str | None = None,
) -> Turn:
    """The turn a body asks for. `principal`: who asks, if known; `key`: the request's idempotency key.

    Raises `InvalidRequest` for a body that cannot start a turn and `Forbidden` for another principal's `user_id`.
    """
    fields = {name: value for name, value in json_object(body, "messages").items() if value is not None}
    for name, why in _REFUSED.items():
        if fields.get(name):
            raise InvalidRequest(f"{name}: {why}", field=name)
    given = {name: check(fields[name], name) for name, check in _CHECKS.items() if name in fields}
    session_id = given.get("session_id") or ""
    said = (new_messages if session_id else whole_conversation)(fields.get("messages"))
    options = _options(given, said.instructions)
    _refuse(options, given, settings.honours)
    session = _key(given, session_id or sources.uuid(), principal)
    turn_id = f"chatcmpl-{sources.uuid().replace('-', '')}"
    echo = ChatEcho(
        model=given.get("model") or settings.model,
        include_usage=given.get("stream_options", False),
        metadata=given.get("metadata"),
        tools=settings.tools,
    )
    return Turn(
        id=turn_id,
        key=session,
        request=_request(fields, given, said, session, turn_id),
        principal=principal,
        overlap=asked_overlap(fields.get("overlap")),
        disconnect=asked_disconnect(fields.get("disconnect")) or settings.disconnect,
        created_at=sources.now(),
        options=None if options == _NOTHING else options,
        kept=bool(session_id),
        echo=echo,
        idempotency_key=key,
        fingerprint=UNNAMED if key is None else fingerprint(body, b"chat"),
        webhook=asked_webhook(fields.get("webhook")),
    )


def _key(given: dict[str, Any], session_id: str, principal: str | None) -> SessionKey:
    return SessionKey(owner(given.get("user_id"), principal, session_id), session_id)


def _request(
    fields: dict[str, Any], given: dict[str, Any], said: Conversation, key: SessionKey, turn_id: str
) -> AgentRequest:
    """What a handler gets as `request`, as it would on `/process`."""
    handed_on = {name: given[name] for name in _HANDED_ON if name in given}
    return AgentRequest(
        input=said.messages,
        session_id=key.session_id,
        user_id=key.user_id,
        id=turn_id,
        stream=given.get("stream", False),
        max_tokens=_budget(given),
        tools=fields.get("tools") or None,
        extra={name: value for name, value in fields.items() if name not in _OURS},
        **handed_on,
    )


# -- what is asked of the turn -------------------------------------------------------------------------------------

_NOTHING = TurnOptions()
_ASKED_AS = {
    "tools": "tools",
    "tool_choice": "tool_choice",
    "forced_tool": "tool_choice",
    "parallel_tool_calls": "parallel_tool_calls",
    "answer": "response_format",
}
"""The options that not every application honours, and the budget of tokens, which goes by either of two names."""


def _options(given: dict[str, Any], instructions: str | None) -> TurnOptions:
    tools: tuple[FunctionTool, ...] = given.get("tools", ())
    choice: ToolChoice | tuple[str] = given.get("tool_choice", "auto")
    forced = choice[0] if isinstance(choice, tuple) else None
    if forced is not None and all(tool.name != forced for tool in tools):
        raise InvalidRequest(
            f"tool_choice names {forced!a}, which is none of the request's tools; declare it there",
            field="tool_choice",
        )
    return TurnOptions(
        instructions=instructions,
        tools=tools,
        tool_choice="auto" if isinstance(choice, tuple) else choice,
        forced_tool=forced,
        parallel_tool_calls=given.get("parallel_tool_calls"),
        max_output_tokens=_budget(given),
        temperature=given.get("temperature"),
        top_p=given.get("top_p"),
        reasoning_effort=given.get("reasoning_effort"),
        answer=given.get("response_format"),
        presence_penalty=given.get("presence_penalty"),
        frequency_penalty=given.get("frequency_penalty"),
        seed=given.get("seed"),
    )


def _budget(given: dict[str, Any]) -> int | None:
    budget: int | None = given.get("max_completion_tokens", given.get("max_tokens"))
    return budget


def _refuse(options: TurnOptions, given: dict[str, Any], honours: Collection[str]) -> None:
    budget = "max_completion_tokens" if "max_completion_tokens" in given else "max_tokens"
    refuse_unhonoured(options, honours, {**_ASKED_AS, "max_output_tokens": budget})


# -- fields --------------------------------------------------------------------------------------------------------


def _one(value: Any, at: str) -> int:
    if integer(value, at) != 1:
        raise InvalidRequest(f"{at} is {value}, but an agent answers once; leave it out", field=at)
    return 1


def _tools(value: Any, at: str) -> tuple[FunctionTool, ...]:
    tools = [_tool(tool, f"{at}[{i}]") for i, tool in enumerate(items(value, at, "tools"))]
    return distinct_tools(tools, at)


def _tool(value: Any, at: str) -> FunctionTool:
    fields = mapping(value, at)
    kind = needed_string(fields, "type", at, "a tool says what it is: function")
    if kind != "function":
        unknown(f"{at}.type", kind, ("function",))
    if fields.get("function") is None:
        missing(f"{at}.function", 'it describes the tool: {"name", "description", "parameters"}')
    return function_tool(fields["function"], f"{at}.function")


def _tool_choice(value: Any, at: str) -> ToolChoice | tuple[str]:
    """One of the words, or the name of the tool that must be called, in a tuple."""
    if type(value) is str:
        if value not in _CHOICES:
            unknown(at, value, _CHOICES)
        return _CHOICES[value]
    fields = mapping(value, at)
    kind = needed_string(fields, "type", at, "a choice of a tool says what it is: function")
    if kind != "function":
        unknown(f"{at}.type", kind, ("function",))
    function = mapping(fields.get("function"), f"{at}.function")
    return (needed_string(function, "name", f"{at}.function", "it says which tool"),)


def _answer(value: Any, at: str) -> AnswerFormat | None:
    fields = mapping(value, at)
    kind = needed_string(fields, "type", at, f"a format says what it is, one of {', '.join(_FORMATS)}")
    if kind == "text":
        return None
    if kind == "json_object":
        return AnswerFormat(kind="json_object")
    if kind != "json_schema":
        unknown(f"{at}.type", kind, _FORMATS)
    if fields.get("json_schema") is None:
        missing(f"{at}.json_schema", 'it holds the schema: {"name", "schema", "strict"}')
    answer = json_schema_answer(fields["json_schema"], f"{at}.json_schema")
    if answer.schema is None:
        missing(f"{at}.json_schema.schema", "it is what the answer must validate against")
    check_schema(answer.schema, f"{at}.json_schema.schema")
    return answer


def _includes_usage(value: Any, at: str) -> bool:
    include = mapping(value, at).get("include_usage")
    return False if include is None else boolean(include, f"{at}.include_usage")


def _text_alone(value: Any, at: str) -> list[Any]:
    for i, modality in enumerate(items(value, at, "modalities")):
        if string(modality, f"{at}[{i}]") != "text":
            unknown(f"{at}[{i}]", modality, ("text",))
    return list(value)


def _penalty(value: Any, at: str) -> float:
    return number_within(value, at, -2, 2)


def _tokens(value: Any, at: str) -> int:
    return integer_from(value, at, 1)


_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "model": string,
    "session_id": identifier,
    "user_id": identifier,
    "stream": boolean,
    "stream_options": _includes_usage,
    "n": _one,
    "temperature": lambda value, at: number_within(value, at, 0, 2),
    "top_p": lambda value, at: number_within(value, at, 0, 1),
    "frequency_penalty": _penalty,
    "presence_penalty": _penalty,
    "seed": integer,
    "max_tokens": _tokens,
    "max_completion_tokens": _tokens,
    "reasoning_effort": lambda value, at: word(value, at, EFFORTS),
    "tools": _tools,
    "tool_choice": _tool_choice,
    "parallel_tool_calls": boolean,
    "response_format": _answer,
    "modalities": _text_alone,
    "metadata": metadata,
    "user": string,
    "store": boolean,
}
_HANDED_ON = ("model", "temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "n")
_OURS = frozenset(
    {"messages", "session_id", "user_id", "stream", "tools", "tool_choice", "parallel_tool_calls"}
    | {"max_tokens", "max_completion_tokens", "reasoning_effort", *_HANDED_ON}
)
"""What the request or the turn's options have in a place of its own; all else is an extra field of the request."""

_REFUSED = {
    "functions": "this is no longer spoken; declare them as tools",
    "function_call": "this is no longer spoken; use tools and tool_choice",
    "stop": "an agent's answer cannot be made to stop at a text; leave it out",
    "logprobs": "an agent's answer has no probabilities; leave it out",
    "top_logprobs": "an agent's answer has no probabilities; leave it out",
    "logit_bias": "an agent cannot be told what tokens to prefer; leave it out",
    "audio": "answers are text; leave it out",
    "web_search_options": "whether the agent searches the web is its own matter; leave it out",
    "moderation": "there is no moderation here; leave it out",
}
"""What nobody here does."""
