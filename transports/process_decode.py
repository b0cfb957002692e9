"""Reading `/process`: a request's bytes become a `Turn`.

Rule 1: no I/O, no clock of its own: time and ids come from `Sources`.
Rule 2: any bytes whatever give a `Turn` or a `GreenroomError` that names the field and says what would be right.

`null` means absent wherever a field may be absent, and an empty id is no id. Of a key that is given twice the last
counts. Fields that are not ours are kept in `AgentRequest.extra`; those of messages and parts are ignored, so that
the messages of a response can be sent back as they came.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, get_args

import msgspec

from greenroom.actors.errors import Forbidden, InvalidRequest
from greenroom.actors.ids import Sources
from greenroom.actors.messages import (
    AgentRequest,
    Audio,
    Content,
    Data,
    Disconnect,
    File,
    Image,
    Message,
    MessageType,
    Overlap,
    Refusal,
    Role,
    SessionKey,
    Text,
    Turn,
    Video,
)

ID_CHARS = 1024
"""Ids longer than this are somebody's mistake; they are kept per session and written to logs."""
NESTING = 100
"""How deep a body's JSON may nest. Readers of JSON, ours among them, give up a little later."""
GRACE_SECONDS = 3600.0
"""The longest grace: for longer waits `continue` is the right policy."""

_INT64 = 1 << 63
_BOM = b"\xef\xbb\xbf"
_ROLES = frozenset(get_args(Role))
_MESSAGE_TYPES = frozenset(get_args(MessageType))
_OVERLAPS: tuple[Overlap, ...] = get_args(Overlap)
_POLICIES = {
    "continue": Disconnect("continue"),
    "cancel": Disconnect("cancel"),
    "grace": Disconnect("grace"),
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_GRACE = re.compile(r"grace=(\d{1,9}(?:\.\d{1,9})?)s?", re.ASCII)
_HALF_PAIR = re.compile(rb"(?<!\\)(?:\\\\)*\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])")
_AT_BYTE = re.compile(r" \(byte (\d+)\)")
_decode = msgspec.json.Decoder().decode


def decode_request(
    body: bytes, *, sources: Sources, principal: str | None = None, disconnect: Disconnect | None = None
) -> Turn:
    """The turn a body asks for. `principal`: who asks, if known; `disconnect`: the policy when the body names none.

    Raises `InvalidRequest` for a body that cannot start a turn and `Forbidden` for another principal's `user_id`.
    """
    fields = _object(body)
    messages = _messages(fields.pop("input", None))
    known: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in fields.items():
        check = _FIELDS.get(name)
        if check is None:
            extra[name] = value
        elif value is not None:
            known[name] = check(value, name)
    session_id = known["session_id"] = known.get("session_id") or sources.uuid()
    user_id = known["user_id"] = _owner(known.get("user_id"), principal, session_id)
    turn_id = known["id"] = known.get("id") or f"response_{sources.uuid()}"
    return Turn(
        id=turn_id,
        key=SessionKey(user_id, session_id),
        request=AgentRequest(input=messages, extra=extra, **known),
        principal=principal,
        overlap=_overlap(extra.get("overlap")),
        disconnect=_disconnect(extra.get("disconnect")) or disconnect or Disconnect(),
        created_at=sources.now(),
    )


def _owner(user_id: str | None, principal: str | None, session_id: str) -> str:
    if principal is None:
        return user_id or session_id
    if user_id and user_id != principal:
        raise Forbidden(
            "user_id names somebody else than who is authenticated; leave it out, the authentication says it",
            field="user_id",
        )
    return principal


# -- the body as JSON ----------------------------------------------------------------------------------------


def _object(body: bytes) -> dict[str, Any]:
    body = body.removeprefix(_BOM)
    try:
        fields = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(body, error) from None
    if type(fields) is not dict:
        raise InvalidRequest(f"the body must be a JSON object with the field `input`, not {_kind(fields)}")
    if body.count(b"{") + body.count(b"[") > NESTING and _too_deep(fields):
        raise _nested()
    return fields


def _nested() -> InvalidRequest:
    return InvalidRequest(f"the body nests objects and lists more than {NESTING} deep; send a flatter one")


def _too_deep(value: object) -> bool:
    level: list[Any] = [value]
    for _ in range(NESTING):
        level = [item for outer in level for item in _inside(outer) if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def _inside(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _malformed(body: bytes, error: Exception) -> InvalidRequest:
    if isinstance(error, RecursionError):
        return _nested()
    if not body.strip():
        return InvalidRequest("the body is empty; send a JSON object with the field `input`")
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as wrong:
        return InvalidRequest(f"the body is not UTF-8 at byte {wrong.start}; send JSON encoded as UTF-8")
    words = str(error)
    if half := _HALF_PAIR.search(body):
        return InvalidRequest(
            f"the body has half of a surrogate pair (a \\u escape) at {_place(body, half.end() - 6)}; "
            "send both halves, or the character itself as UTF-8"
        )
    if at := _AT_BYTE.search(words):
        problem = words[: at.start()].removeprefix("JSON is malformed: ")
        return InvalidRequest(f"the body is not valid JSON: {problem} at {_place(body, int(at[1]))}")
    if "out of range" in words:
        return InvalidRequest("the body holds a number too large to read; send it as a string")
    return InvalidRequest(f"the body is not valid JSON: it ends too early, at {_place(body, len(body))}")


def _place(body: bytes, at: int) -> str:
    line = body.count(b"\n", 0, at) + 1
    column = at - body.rfind(b"\n", 0, at)
    return f"line {line}, column {column} (byte {at})"


# -- words for what is wrong ---------------------------------------------------------------------------------

_KINDS = {
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    dict: "an object",
    list: "a list",
    type(None): "null",
}


def _kind(value: object) -> str:
    return _KINDS.get(type(value), type(value).__name__)


def _wrong(at: str, expected: str, value: object) -> NoReturn:
    raise InvalidRequest(f"{at} must be {expected}, not {_kind(value)}", field=at)


def _unknown(at: str, value: str, choices: Iterable[str]) -> NoReturn:
    shown = ascii(value if len(value) <= 40 else value[:40] + "…")
    raise InvalidRequest(
        f"{at} is {shown}, which is not known; it must be one of {', '.join(choices)}", field=at
    )


def _missing(at: str, why: str) -> NoReturn:
    raise InvalidRequest(f"{at} is missing: {why}", field=at)


# -- plain fields --------------------------------------------------------------------------------------------


def _string(value: Any, at: str) -> str:
    if type(value) is not str:
        _wrong(at, "a string", value)
    return value


def _id(value: Any, at: str) -> str:
    if type(value) is not str:
        _wrong(at, "a string", value)
    if len(value) > ID_CHARS:
        raise InvalidRequest(f"{at} has {len(value)} characters; an id may have {ID_CHARS}", field=at)
    if not (value.isascii() and value.isprintable()) and _CONTROL.search(value):
        raise InvalidRequest(f"{at} has control characters; an id is printable text", field=at)
    return value


def _boolean(value: Any, at: str) -> bool:
    if type(value) is not bool:
        _wrong(at, "true or false", value)
    return value


def _number(value: Any, at: str) -> float:
    if type(value) is not float and type(value) is not int:
        _wrong(at, "a number", value)
    if not -_INT64 <= value < _INT64:
        raise InvalidRequest(f"{at} is out of range", field=at)
    return value  # an int stays an int, as the client wrote it


def _integer(value: Any, at: str) -> int:
    if type(value) is not int:
        _wrong(at, "a whole number", value)
    if not -_INT64 <= value < _INT64:
        raise InvalidRequest(f"{at} is out of range: it does not fit 64 bits", field=at)
    return value


def _dict(value: Any, at: str) -> dict[str, Any]:
    if type(value) is not dict:
        _wrong(at, "an object", value)
    return value


def _stop(value: Any, at: str) -> str | list[str]:
    if type(value) is str:
        return value
    if type(value) is not list:
        _wrong(at, "a string or a list of strings", value)
    return [_string(word, f"{at}[{i}]") for i, word in enumerate(value)]


def _tools(value: Any, at: str) -> list[dict[str, Any]]:
    if type(value) is not list:
        _wrong(at, "a list of tools", value)
    return [_dict(tool, f"{at}[{i}]") for i, tool in enumerate(value)]


_FIELDS: dict[str, Callable[[Any, str], Any]] = {
    "session_id": _id,
    "user_id": _id,
    "id": _id,
    "stream": _boolean,
    "model": _string,
    "temperature": _number,
    "top_p": _number,
    "frequency_penalty": _number,
    "presence_penalty": _number,
    "max_tokens": _integer,
    "stop": _stop,
    "n": _integer,
    "seed": _integer,
    "tools": _tools,
}


def _overlap(value: Any) -> Overlap | None:
    if value is None:
        return None
    for overlap in _OVERLAPS:
        if value == overlap:
            return overlap
    _unknown("overlap", _string(value, "overlap"), _OVERLAPS)


def _disconnect(value: Any) -> Disconnect | None:
    if value is None:
        return None
    if (policy := _POLICIES.get(_string(value, "disconnect"))) is not None:
        return policy
    if not (grace := _GRACE.fullmatch(value)):
        _unknown("disconnect", value, (*_POLICIES, "grace=30s"))
    seconds = float(grace[1])
    if not 0 < seconds <= GRACE_SECONDS:
        raise InvalidRequest(
            f"disconnect asks for {seconds:g} seconds of grace; more than 0 and at most {GRACE_SECONDS:g} can be given",
            field="disconnect",
        )
    return Disconnect("grace", seconds)


# -- messages and their parts --------------------------------------------------------------------------------


def _messages(value: Any) -> tuple[Message, ...]:
    if value is None:
        _missing("input", 'send a list of messages, such as [{"role": "user", "content": "Hello"}]')
    if type(value) is not list:
        _wrong("input", "a list of messages", value)
    if not value:
        raise InvalidRequest("input is empty; a turn needs at least one message", field="input")
    return tuple([_message(fields, f"input[{i}]") for i, fields in enumerate(value)])


def _message(fields: Any, at: str) -> Message:
    if type(fields) is not dict:
        _wrong(at, "a message (an object)", fields)
    get = fields.get
    content = _content(get("content"), at)
    role: Any = "user"
    if (value := get("role")) is not None and (role := _string(value, f"{at}.role")) not in _ROLES:
        _unknown(f"{at}.role", role, get_args(Role))
    kind: Any = "message"
    if (value := get("type")) is not None and (kind := _string(value, f"{at}.type")) not in _MESSAGE_TYPES:
        _unknown(f"{at}.type", kind, get_args(MessageType))
    message_id = None if (value := get("id")) is None else _id(value, f"{at}.id")
    metadata = None if (value := get("metadata")) is None else _dict(value, f"{at}.metadata")
    name = None if (value := get("name")) is None else _id(value, f"{at}.name")
    return Message(content, role, kind, message_id, metadata, name)


def _content(value: Any, at: str) -> tuple[Content, ...]:
    if type(value) is list:
        return tuple([_part(part, f"{at}.content[{i}]") for i, part in enumerate(value)])
    if type(value) is str:
        return (Text(value),)
    if value is None:
        return ()
    _wrong(f"{at}.content", "a string or a list of parts", value)


def _part(part: Any, at: str) -> Content:
    if type(part) is not dict:
        _wrong(at, 'a part (an object such as {"type": "text", "text": "Hello"})', part)
    kind = part.get("type")
    if kind is None:
        _missing(f"{at}.type", f"a part says what it is, one of {', '.join(_PARTS)}")
    read = _PARTS.get(_string(kind, f"{at}.type"))
    if read is None:
        _unknown(f"{at}.type", kind, _PARTS)
    return read(part, at)


def _needed(part: dict[str, Any], name: str, at: str) -> str:
    value = part.get(name)
    if type(value) is str:
        return value
    if value is None:
        _missing(f"{at}.{name}", f"a part of type {part['type']} needs it")
    _wrong(f"{at}.{name}", "a string", value)


def _optional(part: dict[str, Any], name: str, at: str) -> str | None:
    value = part.get(name)
    return None if value is None else _string(value, f"{at}.{name}")


def _data(part: dict[str, Any], at: str) -> Data:
    value = part.get("data")
    if value is None:
        _missing(f"{at}.data", "a part of type data needs it")
    return Data(_dict(value, f"{at}.data"))


def _file(part: dict[str, Any], at: str) -> File:
    url, file_id, data, filename = (
        _optional(part, name, at) for name in ("file_url", "file_id", "file_data", "filename")
    )
    if url is None and file_id is None and data is None:
        _missing(f"{at}.file_url", "a part of type file needs it, or file_id, or file_data")
    return File(url, file_id, data, filename)


_PARTS: dict[str, Callable[[dict[str, Any], str], Content]] = {
    "text": lambda part, at: Text(_needed(part, "text", at)),
    "data": _data,
    "image": lambda part, at: Image(_needed(part, "image_url", at)),
    "audio": lambda part, at: Audio(_needed(part, "data", at), _optional(part, "format", at)),
    "video": lambda part, at: Video(_needed(part, "video_url", at)),
    "file": _file,
    "refusal": lambda part, at: Refusal(_needed(part, "refusal", at)),
}
