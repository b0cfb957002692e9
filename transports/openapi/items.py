"""What the document says of items of the Responses API: as requests hold them (`responses_items`, `responses_parts`),
and as lists show them."""

from __future__ import annotations

from greenroom.transports.openapi.schemas import (
    ANYTHING,
    Schema,
    any_of,
    array,
    boolean,
    constant,
    identifier,
    mapping,
    nullable,
    optional,
    ref,
    text,
    words,
)
from greenroom.transports.responses_items import PREFIXES, STATUSES
from greenroom.transports.responses_packed import PACKED
from greenroom.transports.responses_parts import DETAILS

_TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
_FILE = ("file_url", "file_data", "file_id")
_CALL_ID = text(minLength=1)


def _part(kind: Schema, needed: dict[str, Schema], others: dict[str, Schema] | None = None) -> Schema:
    return mapping({"type": kind, **needed, **optional(others or {})}, ("type", *needed))


_PARTS = (
    _part(words(_TEXTS), {"text": text()}),
    _part(constant("refusal"), {"refusal": text()}),
    _part(
        constant("input_image"),
        {"image_url": any_of(text(), mapping({"url": text()}, ("url",)))},
        {"detail": words(DETAILS)},
    ),
    *(
        _part(
            constant("input_file"),
            {name: text()},
            {other: text() for other in (*_FILE, "filename") if other != name},
        )
        for name in _FILE
    ),
    _part(
        constant("input_audio"),
        {"input_audio": mapping({"data": text(), **optional({"format": text()})}, ("data",))},
    ),
    _part(constant("input_video"), {"video_url": text()}),
)


def _item(kind: str, needed: dict[str, Schema], others: dict[str, Schema] | None = None) -> Schema:
    """An item that says what it is. Its id and status are those it was listed with, if it was."""
    properties = {"type": constant(kind), "id": nullable(identifier()), "status": ref("ItemStatus"), **needed}
    return mapping({**properties, **optional(others or {})}, ("type", *needed))


def _message(role: Schema, content: Schema, *needed: str) -> Schema:
    """A message need not say what it is."""
    return mapping(
        {
            "type": nullable(constant("message")),
            "role": role,
            "content": content,
            "id": nullable(identifier()),
            "status": ref("ItemStatus"),
        },
        ("role", *needed),
    )


_THOUGHT = array(mapping({"type": words(("reasoning_text", "text")), "text": text()}, ("type", "text")))
_SUMMARY = array(mapping({"type": constant("summary_text"), "text": text()}, ("type", "text")))
_CONTENT = any_of(text(), array(ref("InputPart")))
_CALL = {"call_id": _CALL_ID, "name": text()}
_OUTPUT = {"call_id": _CALL_ID, "output": _CONTENT}

_ITEMS = (
    _message(words(("user", "system", "developer")), _CONTENT, "content"),
    _message(constant("assistant"), nullable(_CONTENT)),
    _item("reasoning", {}, {"encrypted_content": text(), "summary": _SUMMARY, "content": _THOUGHT}),
    _item("function_call", _CALL, {"arguments": any_of(text(), mapping())}),
    _item("function_call_output", _OUTPUT),
    _item("custom_tool_call", {**_CALL, "input": text()}),
    _item("custom_tool_call_output", _OUTPUT),
    _item(
        "mcp_call",
        {"server_label": text(), "name": text()},
        {"arguments": text(), "output": text(), "error": ANYTHING, "approval_request_id": text()},
    ),
    _item("mcp_list_tools", {"server_label": text(), "tools": array(ANYTHING)}),
    _item(PACKED, {"encrypted_content": text()}),
    mapping({"type": constant("item_reference"), "id": text(minLength=1)}, ("type", "id")),
    # What has neither a type nor anything of a message refers to an item.
    {
        **mapping({"type": {"type": "null"}, "id": text(minLength=1)}, ("id",)),
        "not": any_of({"required": ["role"]}, {"required": ["content"]}),
    },
)
SCHEMAS: dict[str, Schema] = {
    "ItemStatus": nullable(words(("", *STATUSES))),
    "InputPart": any_of(*_PARTS),
    "InputItem": any_of(*_ITEMS),
    "ListedItem": mapping(
        {"id": text(), "type": words(PREFIXES), "status": words(STATUSES)}, ("id", "type", "status")
    ),
    "ItemList": mapping(
        {
            "object": constant("list"),
            "data": array(ref("ListedItem")),
            "first_id": text(),
            "last_id": text(),
            "has_more": boolean(),
        },
        ("object", "data", "first_id", "last_id", "has_more"),
    ),
}
