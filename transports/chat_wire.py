"""The objects of Chat Completions, field by field in the order they are written, and templates of those that every
turn writes.

What is `UNSET` is not written. `reasoning_content` is no field of OpenAI's: chat front ends know it from DeepSeek and
Qwen, and others pass it over.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.json import Encoder

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter"]
REASONS: tuple[FinishReason, ...] = ("stop", "length", "tool_calls", "content_filter")


class PromptDetails(Struct, frozen=True, gc=False):
    """Of the prompt's tokens, those the model had cached."""

    cached_tokens: int


class CompletionDetails(Struct, frozen=True, gc=False):
    """Of the completion's tokens, those it spent on reasoning."""

    reasoning_tokens: int


class WireUsage(Struct, frozen=True):
    """Tokens of all model calls of the turn."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class Function(Struct, frozen=True, gc=False):
    """Which function, and its arguments as JSON text. In a stream: more of them, and the name with the first."""

    arguments: str | Raw
    name: str | UnsetType = UNSET


class CallOf(Struct, frozen=True, gc=False):
    """A call that the client is to run."""

    id: str
    function: Function
    type: Literal["function"] = "function"


class CallDelta(Struct, frozen=True, gc=False):
    """The beginning of a call, or more of one. `index`: which, of the answer's calls."""

    index: int
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: Function | UnsetType = UNSET


class Answer(Struct, frozen=True, kw_only=True):
    """The one message that a completion is."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    reasoning_content: str | UnsetType = UNSET
    refusal: str | None = None
    tool_calls: list[CallOf] | UnsetType = UNSET


class Choice(Struct, frozen=True, kw_only=True):
    """The only choice: an agent answers once."""

    index: int = 0
    message: Answer
    logprobs: None = None
    finish_reason: FinishReason


class Completion(Struct, frozen=True, kw_only=True):
    """A turn as one object."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: WireUsage
    system_fingerprint: None = None
    metadata: dict[str, str] | UnsetType = UNSET


class Delta(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a chunk adds to the message."""

    role: str | UnsetType = UNSET
    content: str | Raw | UnsetType = UNSET
    reasoning_content: Raw | UnsetType = UNSET
    refusal: str | None | UnsetType = UNSET
    tool_calls: list[CallDelta] | UnsetType = UNSET


class ChunkChoice(Struct, frozen=True, kw_only=True):
    """A chunk's only choice."""

    index: int = 0
    delta: Delta | Raw
    logprobs: None = None
    finish_reason: FinishReason | None = None


class Chunk(Struct, frozen=True, kw_only=True):
    """A piece of a stream. `usage`: with `stream_options.include_usage`; null in all but the last."""

    id: str | Raw
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int | Raw
    model: str | Raw
    system_fingerprint: None = None
    choices: list[ChunkChoice]
    usage: Raw | None | UnsetType = UNSET


class WireError(Struct, frozen=True):
    """Why a turn did not complete, as OpenAI's clients read it."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


# -- templates -----------------------------------------------------------------------------------------------------

_encode = Encoder().encode
_JSON: Any = Raw(b"%b")
_INTEGER: Any = Raw(b"%d")
_HOLE = b"%b"


def _around_delta(reason: FinishReason | None, usage: None | UnsetType) -> tuple[bytes, bytes]:
    choice = ChunkChoice(delta=Raw(_HOLE), finish_reason=reason)
    line = _encode(Chunk(id=_JSON, created=_INTEGER, model=_JSON, choices=[choice], usage=usage))
    start, _, tail = line.rpartition(_HOLE)
    return b"data: " + start, tail + b"\n\n"


START = _around_delta(None, UNSET)[0]
"""A chunk's frame up to its delta. Filled once a turn: the id, the time and the model are the same in all."""
TAILS: dict[tuple[FinishReason | None, bool], bytes] = {
    (reason, counted): _around_delta(reason, None if counted else UNSET)[1]
    for reason in (None, *REASONS)
    for counted in (False, True)
}
"""A chunk's frame from its delta on, by its finish reason and whether the stream counts tokens."""
COUNTED = b"data: %b\n\n" % _encode(
    Chunk(id=_JSON, created=_INTEGER, model=_JSON, choices=[], usage=Raw(_HOLE))
)
"""The frame that says what the turn has used."""

CONTENT = _encode(Delta(content=Raw(_HOLE))).partition(_HOLE)[0]
REASONING = _encode(Delta(reasoning_content=Raw(_HOLE))).partition(_HOLE)[0]
DELTA_END = b"}"
"""Deltas of text up to the text, and after it."""
ROLE = _encode(Delta(role="assistant", content="", refusal=None))
NOTHING = _encode(Delta())
ARGUMENTS = _encode(Delta(tool_calls=[CallDelta(_INTEGER, function=Function(Raw(_HOLE)))]))
