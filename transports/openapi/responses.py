"""What the document says of the Responses API, as `responses_decode` reads it and `responses_encode` writes it."""

from __future__ import annotations

from greenroom.transports import responses_wire as wire
from greenroom.transports.openai_fields import (
    EFFORTS,
    METADATA_KEY_CHARS,
    METADATA_PAIRS,
    METADATA_VALUE_CHARS,
)
from greenroom.transports.openapi.operation import OF_A_BODY, Answer, Operation
from greenroom.transports.openapi.process import KEYED, POLICIES
from greenroom.transports.openapi.schemas import (
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
from greenroom.transports.responses_fields import (
    CHOICES,
    KEY_CHARS,
    LEAST_OUTPUT_TOKENS,
    MOST_LOGPROBS,
    SUMMARIES,
    TIERS,
    VERBOSITIES,
)
from greenroom.transports.responses_paging import MOST

_NAME = text(pattern="^[a-zA-Z0-9_-]{1,64}$")
FUNCTION = mapping(
    {"name": _NAME, **optional({"description": text(), "parameters": mapping(), "strict": boolean()})},
    ("name",),
)
"""A tool that the client runs."""
ANSWER_SCHEMA = mapping(
    {"name": _NAME, "schema": mapping(), "strict": nullable(boolean())}, ("name", "schema")
)
"""What an answer must validate against."""
METADATA = mapping(
    maxProperties=METADATA_PAIRS,
    propertyNames={"maxLength": METADATA_KEY_CHARS},
    additionalProperties=text(maxLength=METADATA_VALUE_CHARS),
)
"""Pairs of short texts."""
PENALTY = number(-2, 2)


def typed(kind: str, schema: Schema) -> Schema:
    """The object with a `type`."""
    return mapping({"type": constant(kind), **schema["properties"]}, ("type", *schema.get("required", ())))


_CONTEXT: dict[str, Schema] = optional(
    {
        "input": any_of(text(), array(ref("InputItem"))),
        "model": text(),
        "instructions": text(),
        "previous_response_id": identifier(),
        "conversation": any_of(identifier(), mapping({"id": {**identifier(), "minLength": 1}}, ("id",))),
        "session_id": identifier(),
        "user_id": identifier(),
        "prompt_cache_key": text(maxLength=KEY_CHARS),
    }
)
_SAYS_SOMETHING = any_of(
    {
        "properties": {"input": any_of(text(), {"type": "array", "minItems": 1})},
        "required": ["input"],
    },
    {
        "properties": {"previous_response_id": {"type": "string", "minLength": 1}},
        "required": ["previous_response_id"],
    },
    {
        "properties": {"conversation": any_of({"type": "string", "minLength": 1}, {"type": "object"})},
        "required": ["conversation"],
    },
)
"""A request has an input, or something to go on with."""
_ASKED: dict[str, Schema] = optional(
    {
        "store": boolean(),
        "stream": boolean(),
        "stream_options": mapping(optional({"include_obfuscation": boolean()})),
        "background": boolean(),
        "tools": array(typed("function", FUNCTION)),
        "tool_choice": any_of(words(CHOICES), typed("function", mapping({"name": text()}, ("name",)))),
        "parallel_tool_calls": boolean(),
        "text": mapping(
            optional(
                {
                    "verbosity": words(VERBOSITIES),
                    "format": any_of(
                        mapping({"type": words(("text", "json_object"))}, ("type",)),
                        typed("json_schema", ANSWER_SCHEMA),
                    ),
                }
            )
        ),
        "reasoning": mapping(
            optional(
                {"effort": words(EFFORTS), "summary": words(SUMMARIES), "generate_summary": words(SUMMARIES)}
            )
        ),
        "include": array(text()),
        "max_output_tokens": integer(LEAST_OUTPUT_TOKENS),
        "max_tool_calls": integer(1),
        "temperature": number(0, 2),
        "top_p": number(0, 1),
        "presence_penalty": PENALTY,
        "frequency_penalty": PENALTY,
        "top_logprobs": integer(0, MOST_LOGPROBS),
        "truncation": words(("auto", "disabled")),
        "metadata": METADATA,
        "user": text(),
        "safety_identifier": text(),
        "service_tier": words(TIERS),
        "context_management": array(mapping()),
    }
)

_ITEMS = (
    wire.MessageItem,
    wire.ReasoningItem,
    wire.FunctionCallItem,
    wire.FunctionCallOutputItem,
    wire.McpCallItem,
)
_EVENTS = (
    wire.ResponseEvent,
    wire.ItemEvent,
    wire.PartEvent,
    wire.TextDelta,
    wire.TextDone,
    wire.RefusalDelta,
    wire.RefusalDone,
    wire.SummaryPartEvent,
    wire.SummaryDelta,
    wire.SummaryDone,
    wire.ArgumentsDelta,
    wire.ArgumentsDone,
    wire.ItemProgress,
)
_ANY_ITEM = any_of(*(ref(cls.__name__) for cls in _ITEMS))

SCHEMAS: dict[str, Schema] = {
    "CreateResponse": {
        **mapping({**_CONTEXT, **_ASKED, **POLICIES, "prompt": {"type": "null"}}),
        **_SAYS_SOMETHING,
    },
    "CompactResponse": {**mapping({**_CONTEXT, "model": text()}, ("model",)), **_SAYS_SOMETHING},
    "CountTokens": {**mapping({**_CONTEXT, "tools": nullable(array(mapping()))}), **_SAYS_SOMETHING},
    **written(
        "",
        [wire.Response, *_ITEMS, *_EVENTS, wire.OutputText, wire.RefusalText, wire.SummaryText],
        {
            ("Response", "output"): array(_ANY_ITEM),
            ("MessageItem", "content"): array(any_of(ref("OutputText"), ref("RefusalText"))),
            ("ReasoningItem", "summary"): array(ref("SummaryText")),
            ("ItemEvent", "item"): _ANY_ITEM,
        },
    ),
}

_RESPONSE = ref("Response")
_EVENT = any_of(*(ref(cls.__name__) for cls in _EVENTS))
_ONE = (401, 404, 503)
PAGE: dict[str, Schema] = {
    "limit": integer(1, MOST),
    "order": words(("asc", "desc")),
    "after": identifier(),
}
"""Which part of a list."""


def _told(name: str, **properties: Schema) -> Schema:
    return mapping({"object": constant(name), **properties}, ("object", *properties))


RESPONSES: dict[str, Operation] = {
    "POST /responses": Operation(
        id="createResponse",
        summary="A turn: its response when it has ended, its events as a stream, or a response in the background",
        tag="responses",
        form="openai",
        body=ref("CreateResponse"),
        headers=KEYED,
        answers={200: Answer(what="The response", json=_RESPONSE, events=_EVENT)},
        refusals=(*OF_A_BODY, 401, 403, 404, 424, 503),
    ),
    "GET /responses": Operation(
        id="connectResponses",
        summary="Responses over a WebSocket, one after another",
        tag="responses",
        form="openai",
        answers={101: Answer(what="The WebSocket")},
        refusals=(401, 403, 405, 503),
    ),
    "POST /responses/compact": Operation(
        id="compactResponse",
        summary="All that was said, as one item to send back in its place",
        tag="responses",
        form="openai",
        body=ref("CompactResponse"),
        answers={
            200: Answer(
                what="The item",
                json=_told(
                    "response.compaction",
                    id=text(),
                    created_at=integer(),
                    output=array(mapping()),
                    usage=ref("Usage"),
                ),
            )
        },
        refusals=(*OF_A_BODY, 401, 403, 404, 503),
    ),
    "POST /responses/input_tokens": Operation(
        id="countInputTokens",
        summary="About how many tokens the model would read",
        tag="responses",
        form="openai",
        body=ref("CountTokens"),
        answers={200: Answer(what="The count", json=_told("response.input_tokens", input_tokens=integer(0)))},
        refusals=(*OF_A_BODY, 401, 403, 404, 503),
    ),
    "GET /responses/{id}": Operation(
        id="showResponse",
        summary="A response as it stands, or with `stream` its events",
        tag="responses",
        form="openai",
        query={
            "stream": words(("", "true", "false", "1", "0")),
            "starting_after": integer(0, 10**18 - 1),
        },
        answers={200: Answer(what="The response", json=_RESPONSE, events=_EVENT)},
        refusals=(400, 410, *_ONE),
    ),
    "DELETE /responses/{id}": Operation(
        id="deleteResponse",
        summary="Keep a response no longer",
        tag="responses",
        form="openai",
        answers={
            200: Answer(
                what="It is no longer kept", json=_told("response", id=text(), deleted={"const": True})
            )
        },
        refusals=_ONE,
    ),
    "POST /responses/{id}/cancel": Operation(
        id="cancelResponse",
        summary="Stop a response in the background; twice, or too late, changes nothing",
        tag="responses",
        form="openai",
        answers={200: Answer(what="The response as it stands", json=_RESPONSE)},
        refusals=(400, *_ONE),
    ),
    "GET /responses/{id}/input_items": Operation(
        id="listInputItems",
        summary="What a response was asked",
        tag="responses",
        form="openai",
        query=PAGE,
        answers={200: Answer(what="A page of items", json=ref("ItemList"))},
        refusals=(400, *_ONE),
    ),
}
