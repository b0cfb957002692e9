"""The `messages` of Chat Completions, as the input of a turn.

Rule: no I/O. Whatever they are, they give an input or an `InvalidRequest` that names what is wrong, like
`messages[1].content[0].image_url`.

System and developer messages are the turn's instructions. A call that an assistant's message makes, and the tool's
message that answers it, become messages of their own, as on `/process`. What is not known of a message is passed over,
so that a completion's message can be sent back as it came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct, to_builtins

from greenroom.actors.errors import InvalidRequest
from greenroom.actors.messages import Audio, Content, Data, File, Image, Message, Refusal, Text, Video
from greenroom.transports.json_checks import (
    identifier,
    items,
    mapping,
    missing,
    needed_string,
    optional_string,
    string,
    unknown,
    wrong,
)

ROLES = ("system", "developer", "user", "assistant", "tool")
_INSTRUCTING = ("system", "developer")


class Conversation(Struct, frozen=True):
    """A turn's input, and what its system and developer messages say."""

    messages: tuple[Message, ...]
    instructions: str | None = None


class _Reading:
    """Messages while they are read. `calls`: the tools' names, by call id; `open`: where the calls are that nothing
    answers so far; `answered`: how many of `said` the last assistant's message ends."""

    def __init__(self) -> None:
        self.said: list[Message] = []
        self.told: list[str] = []
        self.calls: dict[str, str] = {}
        self.open: dict[str, str] = {}
        self.answered = 0


def whole_conversation(value: Any) -> Conversation:
    """All of the messages, for a turn without a session: every call in them has its answer."""
    reading = _read(value)
    for call_id, at in reading.open.items():
        raise InvalidRequest(
            f"no message of role tool answers the call {call_id!a}; send one with its output for each call",
            field=at,
        )
    if not reading.said:  # nobody speaks: the system's words are the question
        return Conversation(tuple(Message((Text(text),), "system") for text in reading.told))
    return Conversation(tuple(reading.said), _instructions(reading))


def new_messages(value: Any) -> Conversation:
    """What comes after the last assistant's message, for a turn of a session, which knows the rest."""
    reading = _read(value, known=False)
    new = tuple(reading.said[reading.answered :])
    if not new:
        raise InvalidRequest(
            "messages has nothing after the last assistant's message; the session knows what was said before, "
            "so send what is new",
            field="messages",
        )
    return Conversation(new, _instructions(reading))


def _instructions(reading: _Reading) -> str | None:
    return "\n\n".join(reading.told) or None


def _read(value: Any, *, known: bool = True) -> _Reading:
    """Read the list. `known`: all calls must be in it that its tool messages answer."""
    if value is None:
        missing("messages", 'send a list of messages, such as [{"role": "user", "content": "Hello"}]')
    if not items(value, "messages", "messages"):
        raise InvalidRequest("messages is empty; a turn needs at least one", field="messages")
    reading = _Reading()
    for number, entry in enumerate(value):
        _message(reading, entry, f"messages[{number}]", known)
    if not reading.said and not reading.told:
        raise InvalidRequest("messages has no content; a turn needs some", field="messages")
    return reading


def _message(reading: _Reading, value: Any, at: str, known: bool) -> None:
    fields = mapping(value, at)
    role = needed_string(fields, "role", at, f"a message says whose it is, one of {', '.join(ROLES)}")
    if role == "function":
        raise InvalidRequest(
            f"{at}.role is function, which is no longer spoken; use role tool, with tool_call_id",
            field=f"{at}.role",
        )
    if role not in ROLES:
        unknown(f"{at}.role", role, ROLES)
    if role == "assistant":
        _assistant(reading, fields, at)
    elif role == "tool":
        _output(reading, fields, at, known)
    elif role in _INSTRUCTING:
        text = "\n".join(part.text for part in _content(fields, at, _WORDS) if isinstance(part, Text))
        if text:
            reading.told.append(text)
    else:
        reading.said.append(Message(_content(fields, at, _PARTS), "user", name=_name(fields, at)))


def _assistant(reading: _Reading, fields: dict[str, Any], at: str) -> None:
    if fields.get("function_call") is not None:
        raise InvalidRequest(
            f"{at}.function_call is no longer spoken; use tool_calls", field=f"{at}.function_call"
        )
    if fields.get("content") not in (None, ""):  # with calls, many send no text, some an empty one
        reading.said.append(Message(_content(fields, at, _ANSWERS), "assistant", name=_name(fields, at)))
    if refusal := optional_string(fields, "refusal", at):
        reading.said.append(Message((Refusal(refusal),), "assistant", name=_name(fields, at)))
    calls = fields.get("tool_calls")
    for number, call in enumerate(items(calls, f"{at}.tool_calls", "calls") if calls is not None else ()):
        reading.said.append(_call(reading, call, f"{at}.tool_calls[{number}]"))
    reading.answered = len(reading.said)


def _call(reading: _Reading, value: Any, at: str) -> Message:
    fields = mapping(value, at)
    kind = fields.get("type") or "function"
    if kind != "function":
        unknown(f"{at}.type", string(kind, f"{at}.type"), ("function",))
    call_id = identifier(needed_string(fields, "id", at, "a call is answered by its id"), f"{at}.id")
    function = fields.get("function")
    if function is None:
        missing(f"{at}.function", "a call names its function and the arguments")
    function = mapping(function, f"{at}.function")
    name = needed_string(function, "name", f"{at}.function", "a call names its function")
    arguments = optional_string(function, "arguments", f"{at}.function") or ""
    reading.calls[call_id] = name
    reading.open[call_id] = at
    call = {"call_id": call_id, "name": name, "arguments": arguments}
    return Message((Data(call),), "assistant", "function_call")


def _output(reading: _Reading, fields: dict[str, Any], at: str, known: bool) -> None:
    place = f"{at}.tool_call_id"
    call_id = identifier(needed_string(fields, "tool_call_id", at, "it says which call is answered"), place)
    if known and call_id not in reading.calls:
        raise InvalidRequest(
            f"{place} answers no call of an assistant's message before it; send that message too", field=place
        )
    reading.open.pop(call_id, None)
    content = _content(fields, at, _PARTS)
    text = fields["content"]
    output: dict[str, Any] = {"call_id": call_id}
    if name := reading.calls.get(call_id) or optional_string(fields, "name", at):
        output["name"] = name
    output["output"] = text if isinstance(text, str) else to_builtins(list(content))
    reading.said.append(Message((Data(output),), "tool", "function_call_output"))


def _name(fields: dict[str, Any], at: str) -> str | None:
    value = fields.get("name")
    return None if value is None else identifier(value, f"{at}.name")


# -- parts ---------------------------------------------------------------------------------------------------------

_Parts = dict[str, Callable[[dict[str, Any], str], Content]]


def _content(fields: dict[str, Any], at: str, known: _Parts) -> tuple[Content, ...]:
    value = fields.get("content")
    if type(value) is str:
        return (Text(value),)
    if value is None:
        missing(f"{at}.content", "a message says something: a string or a list of parts")
    if type(value) is not list:
        wrong(f"{at}.content", "a string or a list of parts", value)
    return tuple([_part(part, f"{at}.content[{i}]", known) for i, part in enumerate(value)])


def _part(value: Any, at: str, known: _Parts) -> Content:
    part = mapping(value, at)
    kind = needed_string(part, "type", at, f"a part says what it is, one of {', '.join(known)}")
    read = known.get(kind)
    if read is None:
        unknown(f"{at}.type", kind, known)
    return read(part, at)


def _text(part: dict[str, Any], at: str) -> Content:
    return Text(needed_string(part, "text", at, "a part of type text needs it"))


def _refusal(part: dict[str, Any], at: str) -> Content:
    return Refusal(needed_string(part, "refusal", at, "a part of type refusal needs it"))


def _url(part: dict[str, Any], at: str) -> str:
    """`{"image_url": {"url": ...}}`, or the URL alone, as some clients send it."""
    name = part["type"]
    value = part.get(name)
    if type(value) is str:
        return value
    if value is None:
        missing(f"{at}.{name}", 'it holds the URL: {"url": "https://..."}')
    return needed_string(mapping(value, f"{at}.{name}"), "url", f"{at}.{name}", "it says where the data is")


def _sound(part: dict[str, Any], at: str) -> Content:
    at = f"{at}.input_audio"
    if part.get("input_audio") is None:
        missing(at, 'it holds the sound: {"data": "<base64>", "format": "wav"}')
    sound = mapping(part["input_audio"], at)
    return Audio(
        needed_string(sound, "data", at, "the sound, as base64"), optional_string(sound, "format", at)
    )


def _file(part: dict[str, Any], at: str) -> Content:
    at = f"{at}.file"
    if part.get("file") is None:
        missing(at, 'it holds the file: {"file_data": "data:...;base64,...", "filename": "..."}')
    file = mapping(part["file"], at)
    data, file_id, name = (optional_string(file, key, at) for key in ("file_data", "file_id", "filename"))
    if data is None and file_id is None:
        missing(f"{at}.file_data", "a file needs it, or file_id")
    return File(None, file_id, data, name)


_WORDS: _Parts = {"text": _text}
_ANSWERS: _Parts = {"text": _text, "refusal": _refusal}
_PARTS: _Parts = {
    "text": _text,
    "image_url": lambda part, at: Image(_url(part, at)),
    "input_audio": _sound,
    "file": _file,
    "video_url": lambda part, at: Video(_url(part, at)),
}
