"""The Chat Completions protocol without I/O: from bytes to a checked request, from steps to deltas, to bytes.

Rule 1: a stream and a plain completion are made from the same deltas (`beats`), so they cannot differ.
Rule 2: every refusal is an OpenAI error envelope that names the field at fault.
Rule 3: tool calls and tool results must pair up, as the real service demands: a history corrupted by a
cancelled turn shows here.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from kits.scripted_model_script import (
    Break,
    CallTool,
    Fail,
    Finish,
    Gate,
    Hang,
    Pause,
    Request,
    Say,
    Step,
    Think,
    Usage,
    text_of,
)

ROLES = ("system", "developer", "user", "assistant", "tool")
DONE = b"data: [DONE]\n\n"


class BadRequest(Exception):
    """A request the real service would refuse; `param` is the field at fault."""

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400
    ) -> None:
        super().__init__(message)
        self.message, self.param, self.code, self.status = message, param, code, status


# Requests


class _Options(msgspec.Struct):
    include_usage: bool = False


class _Function(msgspec.Struct):
    name: str


class _Tool(msgspec.Struct):
    function: _Function
    type: str = "function"


class _CalledFunction(msgspec.Struct):
    name: str
    arguments: str


class _Call(msgspec.Struct):
    id: str
    function: _CalledFunction


class _Message(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None


class ChatRequest(msgspec.Struct):
    """The fields of a request that decide how it is answered."""

    model: str
    messages: list[_Message]
    stream: bool | None = None
    stream_options: _Options | None = None
    tools: list[_Tool] | None = None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk of token counts."""
        return self.stream_options is not None and self.stream_options.include_usage


def decode_request(body: bytes) -> tuple[ChatRequest, Request]:
    """The checked fields, and everything that was sent. Raises BadRequest."""
    try:
        known, sent = msgspec.json.decode(body, type=ChatRequest), msgspec.json.decode(body)
    except msgspec.ValidationError as error:
        raise BadRequest(f"Invalid request: {error}.", param=_param(str(error))) from error
    except msgspec.DecodeError as error:
        raise BadRequest(f"The body is not JSON: {error}.") from error
    if not known.messages:
        raise BadRequest("messages is empty: send at least one message.", param="messages")
    _check_roles(known.messages)
    _check_tool_pairs(known.messages)
    return known, sent


def _param(error: str) -> str | None:
    """The field that msgspec names: "… at `$.messages[...].role`", or "… missing required field `model`"."""
    path = re.search(r"`\$\.(\S+)`", error)
    missing = re.search(r"missing required field `(\w+)`", error)
    found = [match[1] for match in (path, missing) if match]
    return ".".join(found) or None


def _check_roles(messages: Sequence[_Message]) -> None:
    for index, message in enumerate(messages):
        if message.role not in ROLES:
            raise BadRequest(
                f"Unknown role {message.role!r}: use one of {', '.join(ROLES)}.",
                param=f"messages[{index}].role",
            )
        if message.content is None and not message.tool_calls:
            raise BadRequest("A message needs content, or tool_calls.", param=f"messages[{index}].content")


def _check_tool_pairs(messages: Sequence[_Message]) -> None:
    open_calls: set[str] = set()
    for index, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id not in open_calls:
                what = f"No tool call {message.tool_call_id!r} is waiting for this tool message."
                raise BadRequest(what, param=f"messages[{index}].tool_call_id")
            open_calls.remove(message.tool_call_id)
        else:
            _check_answered(open_calls, index)
            open_calls = {call.id for call in message.tool_calls or []}
    _check_answered(open_calls, len(messages))


def _check_answered(open_calls: set[str], index: int) -> None:
    if open_calls:
        raise BadRequest(
            f"Tool calls without a tool message that answers them: {', '.join(sorted(open_calls))}.",
            param=f"messages[{index}]",
        )


# Deltas


class FunctionDelta(msgspec.Struct, omit_defaults=True):
    """A piece of a called function: the name first, then fragments of the arguments."""

    arguments: str | UnsetType = UNSET
    name: str | UnsetType = UNSET


class ToolCallDelta(msgspec.Struct, omit_defaults=True):
    """A piece of one tool call, told apart from parallel ones by its index."""

    index: int | UnsetType
    function: FunctionDelta
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET


class Delta(msgspec.Struct, omit_defaults=True):
    """What one chunk adds to the message."""

    role: str | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET


Beat: TypeAlias = Delta | Pause | Gate | Hang | Fail | Break
"""One thing to do while answering: send a delta, wait, or end early."""


def beats(steps: Sequence[Step], next_call_id: Callable[[], str]) -> Iterator[Beat]:
    """Spell steps out, in order; `Break(after=n)` comes out where it takes effect."""
    limits = [step.after for step in steps if isinstance(step, Break) and step.after is not None]
    limit, sent = min(limits, default=None), 0
    for beat in _in_order(steps, next_call_id):
        if sent == limit:
            break
        yield beat
        sent += isinstance(beat, Delta)
    if limit is not None:
        yield Break()


def _in_order(steps: Sequence[Step], next_call_id: Callable[[], str]) -> Iterator[Beat]:
    calls = 0
    for step in steps:
        match step:
            case Think():
                yield from _spaced([Delta(reasoning_content=piece) for piece in step.pieces()], step.delay)
            case Say():
                yield from _spaced([Delta(content=piece) for piece in step.pieces()], step.delay)
            case CallTool():
                yield from _spaced(_call_deltas(step, calls, step.id or next_call_id()), step.delay)
                calls += 1
            case Break(after=None) | Pause() | Gate() | Hang() | Fail():
                yield step


def _spaced(deltas: Sequence[Delta], delay: float) -> Iterator[Beat]:
    for index, delta in enumerate(deltas):
        if index and delay > 0:
            yield Pause(delay)
        yield delta


def _call_deltas(step: CallTool, index: int, call_id: str) -> list[Delta]:
    opening = ToolCallDelta(
        index=index, id=call_id, type="function", function=FunctionDelta(name=step.name, arguments="")
    )
    fragments = [
        ToolCallDelta(index=index, function=FunctionDelta(arguments=piece)) for piece in step.pieces()
    ]
    return [Delta(tool_calls=[call]) for call in (opening, *fragments)]


def finish_reason(steps: Sequence[Step]) -> str:
    """What the last chunk gives as the reason to stop."""
    given = [step.reason for step in steps if isinstance(step, Finish)]
    called = any(isinstance(step, CallTool) for step in steps)
    return given[-1] if given else "tool_calls" if called else "stop"


# Answers


class _PromptDetails(msgspec.Struct):
    cached_tokens: int


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int


class UsageBody(msgspec.Struct):
    """Token counts as the service writes them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: _PromptDetails
    completion_tokens_details: _CompletionDetails


def usage_body(steps: Sequence[Step], request: Request, deltas: Sequence[Delta]) -> UsageBody:
    """The counts the script gives, else the words of the request and the deltas of the reply."""
    given = [step for step in steps if isinstance(step, Usage)]
    usage = given[-1] if given else _counted(request, deltas)
    return UsageBody(
        prompt_tokens=usage.prompt,
        completion_tokens=usage.completion,
        total_tokens=usage.prompt + usage.completion,
        prompt_tokens_details=_PromptDetails(usage.cached),
        completion_tokens_details=_CompletionDetails(usage.reasoning),
    )


def _counted(request: Request, deltas: Sequence[Delta]) -> Usage:
    words = sum(len(text_of(message).split()) for message in request["messages"])
    thoughts = sum(delta.reasoning_content is not UNSET for delta in deltas)
    return Usage(prompt=words, completion=len(deltas), reasoning=thoughts)


class _ChunkChoice(msgspec.Struct):
    delta: Delta
    finish_reason: str | None = None
    index: int = 0
    logprobs: None = None


class _Chunk(msgspec.Struct, omit_defaults=True):
    id: str
    object: str
    created: int
    model: str
    choices: list[_ChunkChoice]
    usage: UsageBody | UnsetType | None = UNSET


class Envelope(msgspec.Struct):
    """What every part of an answer carries; `created` is in seconds since the epoch."""

    id: str
    created: int
    model: str

    def chunk(self, delta: Delta, reason: str | None = None, *, with_usage: bool = False) -> bytes:
        """An SSE event with a delta; `with_usage` adds the null that announces a usage chunk."""
        return self._event([_ChunkChoice(delta, reason)], None if with_usage else UNSET)

    def usage_chunk(self, usage: UsageBody) -> bytes:
        """The SSE event with no choices that carries the token counts."""
        return self._event([], usage)

    def _event(self, choices: list[_ChunkChoice], usage: UsageBody | UnsetType | None) -> bytes:
        return sse_event(_Chunk(self.id, "chat.completion.chunk", self.created, self.model, choices, usage))

    def completion(self, deltas: Sequence[Delta], reason: str, usage: UsageBody) -> bytes:
        """The whole answer to a request that did not ask for a stream."""
        choice = {"index": 0, "message": fold(deltas), "logprobs": None, "finish_reason": reason}
        body = {"id": self.id, "object": "chat.completion", "created": self.created, "model": self.model}
        return msgspec.json.encode({**body, "choices": [choice], "usage": usage})


class WholeMessage(msgspec.Struct, omit_defaults=True):
    """The assistant message that deltas add up to."""

    role: str
    content: str | None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET


def fold(deltas: Sequence[Delta]) -> WholeMessage:
    """Add deltas up, as a client does; content is null when only tools were called."""
    said = [delta.content for delta in deltas if isinstance(delta.content, str)]
    thought = [delta.reasoning_content for delta in deltas if isinstance(delta.reasoning_content, str)]
    calls: dict[int | UnsetType, ToolCallDelta] = {}
    for delta in deltas:
        for call in delta.tool_calls or []:
            whole = calls.setdefault(
                call.index, ToolCallDelta(UNSET, FunctionDelta("", call.function.name), call.id, call.type)
            )
            whole.function.arguments = f"{whole.function.arguments}{call.function.arguments}"
    return WholeMessage(
        role="assistant",
        content="".join(said) if said or not calls else None,
        reasoning_content="".join(thought) if thought else UNSET,
        tool_calls=list(calls.values()) or UNSET,
    )


def sse_event(body: object) -> bytes:
    """One server-sent event with a JSON body."""
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


# Errors

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def error_body(
    status: int, message: str, *, param: str | None = None, code: str | None = None, kind: str | None = None
) -> object:
    """OpenAI's error envelope."""
    default = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind or default, "param": param, "code": code}}
