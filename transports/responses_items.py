"""Items of the Responses API, as requests hold them: read into `Message`s, and as lists show them, with id and status.

Rule 1: no I/O; ids that are missing come from `new_id`.
Rule 2: whatever was once written here or listed is taken back, with its id or without, whatever its status.
Rule 3: anything else is refused with an `InvalidRequest` that names the item, like `input[0]`, or what is wrong in it.

What only the context can fill stays open: items that are referred to by id, and the calls that outputs answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct, structs, to_builtins

from greenroom.actors.drafts import OUTCOME_UNKNOWN
from greenroom.actors.errors import InvalidRequest
from greenroom.actors.messages import Data, Message, MessageType, Role, Text
from greenroom.transports.json_checks import (
    identifier,
    items,
    missing,
    needed_string,
    optional_string,
    string,
    unknown,
    wrong,
)
from greenroom.transports.responses_packed import PACKED, UNPACKED_BYTES, unpack
from greenroom.transports.responses_parts import Listed, read_content, read_part, read_texts

STATUSES = ("in_progress", "completed", "incomplete", "failed", "calling")

_ROLES: dict[str, Role] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
}
PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "mcp_call": "mcp",
    "mcp_list_tools": "mcpl",
    PACKED: "cmp",
}


class Open(Struct, frozen=True):
    """Something that only the context can fill: the item with the id `item`, or the name of the call `call`, which an
    output answers. `place`: of the output's message, or of the message before which the item goes; `listed`: likewise
    among what is listed; `at`: the item in the request."""

    place: int
    listed: int
    at: str
    item: str = ""
    call: str = ""


class ReadItems(Struct, frozen=True):
    """Items that were read. `listed`: as `input_items` shows them; `label`: of the agent's own tools."""

    messages: tuple[Message, ...]
    listed: tuple[Listed, ...]
    open: tuple[Open, ...] = ()
    label: str = ""


class Context(Struct):
    """What an input may refer to: calls (their tools' names, by call id) and items (as listed, by id).

    Calls are those of the conversation. Items may be of any earlier response of the same caller: some clients (the
    AI SDK) send, without naming a response, items of which the server has the content by their ids alone.
    """

    calls: dict[str, str] = {}
    items: dict[str, Listed] = {}

    def add(self, items: Sequence[Listed]) -> None:
        """Items that were said before: the input's and the output's of earlier responses."""
        for item in items:
            self.items[item["id"]] = item
            if item["type"] in {"function_call", "custom_tool_call"}:
                self.calls[item["call_id"]] = item["name"]


def read_items(value: Any, at: str, new_id: Callable[[], str], label: str = "") -> ReadItems:
    """Read an item list, or text, which is a user's message. `label`: whose `mcp_call`s are the agent's own tools.

    Raises `InvalidRequest`.
    """
    reader = _Reader(new_id, label)
    if type(value) is str:
        reader.item({"role": "user", "content": value}, at)
    else:
        if type(value) is not list:
            wrong(at, "a string or a list of items", value)
        for place, item in enumerate(value):
            reader.item(item, f"{at}[{place}]")
    return reader.read()


def filled(read: ReadItems, context: Context) -> ReadItems:
    """The items with what they refer to. Raises `InvalidRequest` for what is not in the context."""
    if not read.open:
        return read
    referred = {open_: _referred(open_, context, read.label) for open_ in read.open if open_.item}
    calls = dict(context.calls)
    for reader in referred.values():
        calls.update(reader.calls)
    messages, listed = list(read.messages), list(read.listed)
    for open_ in reversed(read.open):  # what is put in moves only what lies behind
        if open_.call:
            messages[open_.place] = _named(messages[open_.place], calls, open_)
        else:
            found = filled(referred[open_].read(), context)
            messages[open_.place : open_.place] = found.messages
            listed[open_.listed : open_.listed] = found.listed
    return ReadItems(tuple(messages), tuple(listed), (), read.label)


def _named(message: Message, calls: dict[str, str], open_: Open) -> Message:
    name = calls.get(open_.call)
    if name is None:
        raise InvalidRequest(
            f"{open_.at} answers the call {open_.call!r}, and no such call is in its context; send the function_call "
            "before it, or the previous_response_id or conversation that it belongs to",
            field=f"{open_.at}.call_id",
        )
    (data,) = message.content
    assert isinstance(data, Data), "an output is an object"
    return structs.replace(message, content=(Data({**data.data, "name": name}),))


def _referred(open_: Open, context: Context, label: str) -> _Reader:
    item = context.items.get(open_.item)
    if item is None:
        raise InvalidRequest(
            f"{open_.at} refers to the item {open_.item!r}, which is not known here; send the item itself",
            field=open_.at,
        )
    reader = _Reader(lambda: open_.item, label)
    reader.item(item, open_.at)
    return reader


class _Reader:
    """Reads one list. `calls`: the tools' names by call id, of what was read so far."""

    def __init__(self, new_id: Callable[[], str], label: str) -> None:
        self._new_id = new_id
        self._label = label
        self._unpacking = False
        self._room = UNPACKED_BYTES
        self.calls: dict[str, str] = {}
        self.messages: list[Message] = []
        self.listed: list[Listed] = []
        self.open: list[Open] = []

    def read(self) -> ReadItems:
        """What was read."""
        return ReadItems(tuple(self.messages), tuple(self.listed), tuple(self.open), self._label)

    def item(self, value: Any, at: str) -> None:
        """Read one item."""
        if type(value) is not dict:
            wrong(at, 'an item (an object such as {"role": "user", "content": "Hello"})', value)
        kind = value.get("type")
        if kind is None:
            kind = "message" if "role" in value or "content" in value else "item_reference"
        read = _ITEMS.get(kind) if type(kind) is str else None
        if read is None:
            raise InvalidRequest(
                f"{at} is of the type {ascii(kind)[:40]}, which is not known here; items are {', '.join(_ITEMS)}",
                field=at,
            )
        read(self, value, at)

    # -- what is said --------------------------------------------------------------------------------------------------

    def message(self, fields: Listed, at: str) -> None:
        said_by = needed_string(fields, "role", at, f"a message is of a role, one of {', '.join(_ROLES)}")
        role = _ROLES.get(said_by)
        if role is None:
            unknown(f"{at}.role", said_by, _ROLES)
        value = fields.get("content")
        if value is None:
            if role != "assistant":
                missing(f"{at}.content", "a message says something: a string or a list of parts")
            value = []
        content, parts = read_content(value, f"{at}.content", role)
        listed = self._list("message", fields, at, role=said_by, content=parts)
        self._say(content, role, "message", listed["id"])

    def reasoning(self, fields: Listed, at: str) -> None:
        summary = read_texts(fields.get("summary"), f"{at}.summary", ("summary_text",))
        thought = read_texts(fields.get("content"), f"{at}.content", ("reasoning_text", "text"))
        sealed = optional_string(fields, "encrypted_content", at)
        if sealed and not summary and not thought:
            summary = self._unsealed(sealed, f"{at}.encrypted_content")
        more = {name: fields[name] for name in ("content", "encrypted_content") if fields.get(name)}
        parts = [{"type": "summary_text", "text": text} for text in summary]
        listed = self._list("reasoning", fields, at, summary=parts, **more)
        if texts := summary or thought:
            content = tuple(Text(text) for text in texts)
            self._say(content, "assistant", "reasoning", listed["id"])

    def _unsealed(self, sealed: str, at: str) -> list[str]:
        """The summary that was sealed here; that of another server says nothing to us."""
        try:
            parts, size = unpack(sealed, at, self._room)
        except InvalidRequest:
            return []
        self._room -= size
        return read_texts(parts, at, ("summary_text",))

    # -- tools of the client -------------------------------------------------------------------------------------------

    def function_call(self, fields: Listed, at: str) -> None:
        call_id, name = self._call(fields, at)
        arguments = fields.get("arguments")
        if type(arguments) is dict:
            arguments = msgspec.json.encode(arguments).decode()
        arguments = "{}" if arguments is None else string(arguments, f"{at}.arguments")
        listed = self._list("function_call", fields, at, call_id=call_id, name=name, arguments=arguments)
        self._tell_call(listed["id"], call_id, name, arguments)

    def custom_call(self, fields: Listed, at: str) -> None:
        call_id, name = self._call(fields, at)
        text = needed_string(fields, "input", at, "a custom tool is called with a text")
        listed = self._list("custom_tool_call", fields, at, call_id=call_id, name=name, input=text)
        arguments = msgspec.json.encode({"input": text}).decode()
        self._tell_call(listed["id"], call_id, name, arguments)

    def output(self, fields: Listed, at: str) -> None:
        call_id = self._call_id(fields, at)
        output = fields.get("output")
        said: Any = output
        if type(output) is list:
            parts = [read_part(part, f"{at}.output[{place}]") for place, part in enumerate(output)]
            said = to_builtins(parts)
        elif type(output) is not str:
            wrong(f"{at}.output", "a string or a list of parts", output)
        listed = self._list(fields["type"], fields, at, call_id=call_id, output=output)
        if call_id not in self.calls:
            self.open.append(Open(len(self.messages), len(self.listed) - 1, at, call=call_id))
        data = {"call_id": call_id, "name": self.calls.get(call_id, ""), "output": said}
        self._say((Data(data),), "tool", "function_call_output", listed["id"])

    # -- tools of the server -------------------------------------------------------------------------------------------

    def mcp_call(self, fields: Listed, at: str) -> None:
        label = needed_string(fields, "server_label", at, "an mcp_call says whose tool was called")
        name = needed_string(fields, "name", at, "a call says which tool is called")
        arguments = optional_string(fields, "arguments", at) or "{}"
        output, error = optional_string(fields, "output", at), fields.get("error")
        told = {"server_label": label, "name": name, "arguments": arguments, "output": output}
        asked = optional_string(fields, "approval_request_id", at)
        listed = self._list("mcp_call", fields, at, **told, error=error, approval_request_id=asked)
        call = {"call_id": listed["id"], "name": name}
        if label != self._label:
            call["server_label"] = label
        self._say((Data({**call, "arguments": arguments}),), "assistant", "mcp_call", listed["id"])
        if output is None:
            output = OUTCOME_UNKNOWN if error is None else _text(error)
        self._say((Data({**call, "output": output}),), "tool", "mcp_call_output", listed["id"])

    def tool_list(self, fields: Listed, at: str) -> None:
        """Says nothing that the agent does not know."""
        label = needed_string(fields, "server_label", at, "a list of tools says whose they are")
        tools = items(fields.get("tools"), f"{at}.tools", "tools")
        self._list("mcp_list_tools", fields, at, server_label=label, tools=tools, error=fields.get("error"))

    # -- what stands for other items -----------------------------------------------------------------------------------

    def reference(self, fields: Listed, at: str) -> None:
        why = "an item_reference names an item"
        item = needed_string(fields, "id", at, why) or missing(f"{at}.id", why)
        self.open.append(Open(len(self.messages), len(self.listed), at, item=item))

    def packed(self, fields: Listed, at: str) -> None:
        where = f"{at}.encrypted_content"
        sealed = needed_string(fields, "encrypted_content", at, "a compaction is what it holds")
        self._list(PACKED, fields, at, encrypted_content=sealed)
        if self._unpacking:
            raise InvalidRequest(f"{at} holds another compaction", field=where)
        self._unpacking, listed = True, len(self.listed)
        unpacked, size = unpack(sealed, where, self._room)
        self._room -= size
        for item in unpacked:
            self.item(item, at)
        del self.listed[listed:]
        self._unpacking = False

    # -- writing it down -----------------------------------------------------------------------------------------------

    def _list(self, kind: str, fields: Listed, at: str, **more: Any) -> Listed:
        given = fields.get("id")
        item_id = identifier(given, f"{at}.id") if given is not None else ""
        if not item_id:
            item_id = f"{PREFIXES[kind]}_{self._new_id().replace('-', '')}"
        status = fields.get("status")
        if status is None or status == "":
            status = "completed"
        elif string(status, f"{at}.status") not in STATUSES:
            unknown(f"{at}.status", status, STATUSES)
        listed = {"id": item_id, "type": kind, "status": status, **more}
        self.listed.append(listed)
        return listed

    def _say(self, content: tuple[Any, ...], role: Role, kind: MessageType, item_id: str) -> None:
        self.messages.append(Message(content, role, kind, item_id))

    def _call(self, fields: Listed, at: str) -> tuple[str, str]:
        return self._call_id(fields, at), needed_string(
            fields, "name", at, "a call says which tool is called"
        )

    def _call_id(self, fields: Listed, at: str) -> str:
        why = "a call has an id, by which its output names it"
        return needed_string(fields, "call_id", at, why) or missing(f"{at}.call_id", why)

    def _tell_call(self, item_id: str, call_id: str, name: str, arguments: str) -> None:
        self.calls[call_id] = name
        data = {"call_id": call_id, "name": name, "arguments": arguments}
        self._say((Data(data),), "assistant", "function_call", item_id)


def _text(error: Any) -> str:
    return error if isinstance(error, str) else msgspec.json.encode(error).decode()


_ITEMS: dict[str, Callable[[_Reader, Listed, str], None]] = {
    "message": _Reader.message,
    "reasoning": _Reader.reasoning,
    "function_call": _Reader.function_call,
    "function_call_output": _Reader.output,
    "custom_tool_call": _Reader.custom_call,
    "custom_tool_call_output": _Reader.output,
    "mcp_call": _Reader.mcp_call,
    "mcp_list_tools": _Reader.tool_list,
    "item_reference": _Reader.reference,
    PACKED: _Reader.packed,
}
