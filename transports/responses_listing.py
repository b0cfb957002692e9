"""A turn's input as items of the Responses API, by whatever protocol it was asked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import msgspec

from greenroom.actors.messages import Data, Message, Turn
from greenroom.transports.responses_echo import ResponseEcho
from greenroom.transports.responses_items import PREFIXES
from greenroom.transports.responses_parts import Listed, listed_part
from greenroom.transports.responses_text import answer_text

_CALLS = frozenset({"plugin_call", "function_call", "component_call", "mcp_call"})
_OUTPUTS = frozenset(
    {"plugin_call_output", "function_call_output", "component_call_output", "mcp_call_output"}
)


def input_items(turn: Turn) -> list[Listed]:
    """A turn's input as items, oldest first: what its request sent, or, if it came by another protocol, would have sent
    here. An item has the same id whenever it is looked at, and no other of them has it."""
    if isinstance(turn.echo, ResponseEcho) and turn.echo.items:
        return told_apart(turn.echo.items, turn.id, set())
    listed: list[Listed] = []
    for place, message in enumerate(turn.request.input):
        fields = _fields(message)
        if fields is None or _answers(fields, message.id, listed):
            continue
        item_id = message.id or _own_id(fields["type"], turn.id, place)
        listed.append({"id": item_id, "type": fields.pop("type"), "status": "completed", **fields})
    return told_apart(listed, turn.id, set())


def told_apart(items: Iterable[Listed], turn_id: str, known: set[str]) -> list[Listed]:
    """The items, of which one that says an earlier one's id once more has an id of its own: lists are read on from an
    id, and with a second one of it they had no end. `known`: the ids there are, to which theirs are added."""
    apart: list[Listed] = []
    for place, item in enumerate(items):
        own = (
            {**item, "id": _own_id(item["type"], turn_id, f"again {place}")} if item["id"] in known else item
        )
        known.add(own["id"])
        apart.append(own)
    return apart


def _own_id(kind: str, turn_id: str, place: int | str) -> str:
    digest = hashlib.blake2b(f"{turn_id}:{place}".encode(), digest_size=16)
    return f"{PREFIXES[kind]}_{digest.hexdigest()}"


def _fields(message: Message) -> Listed | None:
    """The item but for its id. None: it says nothing that lists show."""
    if message.type in _CALLS or message.type in _OUTPUTS:
        return _tool_fields(message)
    if message.type == "reasoning":
        texts = [{"type": "summary_text", "text": answer_text(part)} for part in message.content]
        return {"type": "reasoning", "summary": texts}
    if message.type != "message":
        return None
    role = "user" if message.role == "tool" else message.role
    return {"type": "message", "role": role, "content": [listed_part(part, role) for part in message.content]}


def _tool_fields(message: Message) -> Listed:
    data = next((part.data for part in message.content if isinstance(part, Data)), {})
    call_id, name = str(data.get("call_id") or ""), str(data.get("name") or "")
    if message.type in _OUTPUTS:
        return {"type": "function_call_output", "call_id": call_id, "output": _text(data.get("output"))}
    arguments = _text(data.get("arguments")) or "{}"
    if message.type != "mcp_call":
        return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}
    return {
        "type": "mcp_call",
        "server_label": str(data.get("server_label") or "agent"),
        "name": name,
        "arguments": arguments,
        "output": None,
        "error": None,
        "approval_request_id": None,
    }


def _answers(fields: Listed, item_id: str | None, listed: Sequence[Listed]) -> bool:
    """Whether it is the output of an `mcp_call` that is listed, which then has it."""
    if fields["type"] != "function_call_output":
        return False
    for call in listed:
        if call["type"] == "mcp_call" and call["id"] in {item_id, fields["call_id"]}:
            call["output"] = fields["output"]
            return True
    return False


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
