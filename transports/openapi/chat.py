"""What the document says of Chat Completions, as `chat_decode` reads it and `chat_encode` writes it."""

from __future__ import annotations

from greenroom.transports import chat_wire as wire
from greenroom.transports.openai_fields import EFFORTS
from greenroom.transports.openapi.operation import OF_A_BODY, Answer, Operation
from greenroom.transports.openapi.process import KEYED, POLICIES
from greenroom.transports.openapi.responses import ANSWER_SCHEMA, FUNCTION, METADATA, PENALTY
from greenroom.transports.openapi.schemas import (
    NULL,
    Schema,
    any_of,
    array,
    boolean,
    constant,
    identifier,
    integer,
    mapping,
    nullable,
    number,
    optional,
    ref,
    text,
    words,
    written,
)
from greenroom.transports.responses_fields import CHOICES


def _part(kind: str, needed: Schema) -> Schema:
    return mapping({"type": constant(kind), kind: needed}, ("type", kind))


_TEXT = _part("text", text())
_REFUSAL = _part("refusal", text())
_URL = any_of(text(), mapping({"url": text()}, ("url",)))
_NAMES = optional({"filename": text()})
_USER_PARTS = (
    _TEXT,
    _part("image_url", _URL),
    _part("video_url", _URL),
    _part("input_audio", mapping({"data": text(), **optional({"format": text()})}, ("data",))),
    *(
        _part("file", mapping({name: text(), **_NAMES, other: nullable(text())}, (name,)))
        for name, other in (("file_data", "file_id"), ("file_id", "file_data"))
    ),
)


def _message(role: Schema, content: Schema, *needed: str, **more: Schema) -> Schema:
    return mapping({"role": role, "content": content, **more}, ("role", *needed))


_CALL = mapping(
    {
        "id": identifier(),
        "type": nullable(words(("", "function"))),
        "function": mapping({"name": text(), **optional({"arguments": text()})}, ("name",)),
    },
    ("id", "function"),
)
_NAME = nullable(identifier())
_MESSAGES = (
    _message(words(("system", "developer")), any_of(text(), array(_TEXT)), "content"),
    _message(constant("user"), any_of(text(), array(ref("ChatPart"))), "content", name=_NAME),
    _message(
        constant("assistant"),
        nullable(any_of(text(), array(any_of(_TEXT, _REFUSAL)))),
        name=_NAME,
        function_call=NULL,
        refusal=nullable(text()),
        tool_calls=nullable(array(_CALL)),
    ),
    _message(
        constant("tool"),
        any_of(text(), array(ref("ChatPart"))),
        "content",
        "tool_call_id",
        tool_call_id=identifier(),
        name=nullable(text()),
    ),
)
_TOOL = mapping({"type": constant("function"), "function": FUNCTION}, ("type", "function"))
_ASKED: dict[str, Schema] = optional(
    {
        "model": text(),
        "session_id": identifier(),
        "user_id": identifier(),
        "stream": boolean(),
        "stream_options": mapping(optional({"include_usage": boolean()})),
        "n": integer(1, 1),
        "temperature": number(0, 2),
        "top_p": number(0, 1),
        "frequency_penalty": PENALTY,
        "presence_penalty": PENALTY,
        "seed": integer(),
        "max_tokens": integer(1),
        "max_completion_tokens": integer(1),
        "reasoning_effort": words(EFFORTS),
        "tools": array(_TOOL),
        "tool_choice": any_of(
            words(CHOICES),
            mapping(
                {"type": constant("function"), "function": mapping({"name": text()}, ("name",))},
                ("type", "function"),
            ),
        ),
        "parallel_tool_calls": boolean(),
        "response_format": any_of(
            mapping({"type": words(("text", "json_object"))}, ("type",)),
            mapping({"type": constant("json_schema"), "json_schema": ANSWER_SCHEMA}, ("type", "json_schema")),
        ),
        "modalities": array(constant("text")),
        "metadata": METADATA,
        "user": text(),
        "store": boolean(),
    }
)

SCHEMAS: dict[str, Schema] = {
    "ChatPart": any_of(*_USER_PARTS),
    "ChatMessage": any_of(*_MESSAGES),
    "ChatRequest": mapping(
        {"messages": array(ref("ChatMessage"), minItems=1), **_ASKED, **POLICIES}, ("messages",)
    ),
    **written(
        "Chat",
        [wire.Completion, wire.Chunk, wire.Delta, wire.WireUsage, wire.WireError],
        {
            ("ChunkChoice", "delta"): ref("ChatDelta"),
            ("Delta", "content"): text(),
            ("Delta", "reasoning_content"): text(),
            ("Chunk", "id"): text(),
            ("Chunk", "created"): integer(),
            ("Chunk", "model"): text(),
            ("Chunk", "usage"): nullable(ref("ChatWireUsage")),
            ("Function", "arguments"): text(),
        },
    ),
}

CHAT: dict[str, Operation] = {
    "POST /chat/completions": Operation(
        id="createChatCompletion",
        summary="A turn: one completion, or with `stream` its chunks",
        tag="chat",
        form="openai",
        body=ref("ChatRequest"),
        headers=KEYED,
        answers={
            200: Answer(
                what="The completion",
                json=ref("ChatCompletion"),
                events=any_of(ref("ChatChunk"), mapping({"error": ref("ChatWireError")}, ("error",))),
            )
        },
        refusals=(*OF_A_BODY, 401, 403, 424, 503),
    ),
}
