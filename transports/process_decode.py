"""Reading `/process`: a request's bytes become a `Turn`.

Rule 1: no I/O, no clock of its own: time and ids come from `Sources`.
Rule 2: any bytes whatever give a `Turn` or a `GreenroomError` that names the field and says what would be right.
Rule 3: what nearly all requests are made of is read by msgspec alone, typed; whatever that does not take is read once
more by hand, which knows all there is and what to say of it. Both read the same.

`null` means absent wherever a field may be absent, and an empty id is no id. Of a key that is given twice the last
counts. Fields that are not ours are kept in `AgentRequest.extra`; those of messages and parts are ignored, so that
the messages of a response can be sent back as they came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import msgspec
from msgspec import Struct

from greenroom.actors.errors import InvalidRequest
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
    Refusal,
    Role,
    SessionKey,
    Text,
    Turn,
    Video,
)
from greenroom.transports.idempotency import fingerprint
from greenroom.transports.json_checks import (
    ID_CHARS,
    NESTING,
    boolean,
    has_long_numbers,
    identifier,
    integer,
    json_object,
    mapping,
    missing,
    needed_string,
    number,
    optional_string,
    owner,
    string,
    unknown,
    wrong,
)
from greenroom.transports.turn_policies import asked_disconnect, asked_overlap, asked_webhook

_ROLES = frozenset(get_args(Role))
_MESSAGE_TYPES = frozenset(get_args(MessageType))
_CONTINUE = Disconnect()


def decode_request(
    body: bytes,
    *,
    sources: Sources,
    principal: str | None = None,
    disconnect: Disconnect | None = None,
    repeatable: bool = False,
    key: str | None = None,
) -> Turn:
    """The turn a body asks for. `principal`: who asks, if known; `disconnect`: the policy when the body names none;
    `repeatable`: whether the same request may come again, which it can if it names itself, by its `id` or by `key`, its
    idempotency key.

    Raises `InvalidRequest` for a body that cannot start a turn and `Forbidden` for another principal's `user_id`.
    """
    request = _usual(body) or _request(body)
    if not request.session_id:
        request.session_id = sources.uuid()
    named = repeatable and (key is not None or bool(request.id))
    if not request.id:
        request.id = f"response_{sources.uuid()}"
    request.user_id = owner(request.user_id, principal, request.session_id)
    extra = request.extra
    asked = asked_disconnect(extra.get("disconnect")) if extra else None
    return Turn(
        id=request.id,
        key=SessionKey(request.user_id, request.session_id),
        request=request,
        principal=principal,
        overlap=asked_overlap(extra.get("overlap")) if extra else None,
        disconnect=asked or disconnect or _CONTINUE,
        created_at=sources.now(),
        idempotency_key=key,
        fingerprint=fingerprint(body, b"process") if named else b"",
        webhook=asked_webhook(extra.get("webhook")) if extra else None,
    )


# -- what nearly all requests are ------------------------------------------------------------------------------------


class _Usual(Struct, forbid_unknown_fields=True):
    input: list[_UsualMessage]
    session_id: str | None = None
    user_id: str | None = None
    id: str | None = None
    stream: bool | None = None


class _UsualMessage(Struct):
    content: str | tuple[Text | Image | Audio | Video | Refusal, ...] | None = None
    role: Role | None = None
    type: MessageType | None = None
    id: str | None = None
    metadata: dict[str, Any] | None = None
    name: str | None = None


_usual_decoder = msgspec.json.Decoder(_Usual)


def _usual(body: bytes) -> AgentRequest | None:
    """The request, if it has nothing unusual about it; what is wrong with another is not said here."""
    if body.count(b"{") + body.count(b"[") > NESTING or has_long_numbers(body):
        return None
    try:
        asked = _usual_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not asked.input:
        return None
    if (asked.session_id or asked.user_id or asked.id) and not _are_usual(
        asked.session_id, asked.user_id, asked.id
    ):
        return None
    messages = []
    for at in asked.input:
        if (at.id or at.name) and not _are_usual(at.id, at.name):
            return None
        content = (Text(at.content),) if isinstance(at.content, str) else at.content or ()
        messages.append(
            Message(content, at.role or "user", at.type or "message", at.id, at.metadata, at.name)
        )
    return AgentRequest(
        input=tuple(messages),
        session_id=asked.session_id,
        user_id=asked.user_id,
        id=asked.id,
        stream=asked.stream is not False,
    )


def _are_usual(*names: str | None) -> bool:
    return all(
        not name or (len(name) <= ID_CHARS and name.isascii() and name.isprintable()) for name in names
    )


# -- all that requests may be -----------------------------------------------------------------------------------------


def _request(body: bytes) -> AgentRequest:
    return read_request(json_object(body, "input"))


def read_request(fields: dict[str, Any]) -> AgentRequest:
    """The request that a JSON object is; its fields are taken out. Raises `InvalidRequest`."""
    messages = _messages(fields.pop("input", None))
    known: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in fields.items():
        check = _FIELDS.get(name)
        if check is None:
            extra[name] = value
        elif value is not None:
            known[name] = check(value, name)
    return AgentRequest(input=messages, extra=extra, **known)


def _stop(value: Any, at: str) -> str | list[str]:
    if type(value) is str:
        return value
    if type(value) is not list:
        wrong(at, "a string or a list of strings", value)
    return [string(word, f"{at}[{i}]") for i, word in enumerate(value)]


def _tools(value: Any, at: str) -> list[dict[str, Any]]:
    if type(value) is not list:
        wrong(at, "a list of tools", value)
    return [mapping(tool, f"{at}[{i}]") for i, tool in enumerate(value)]


_FIELDS: dict[str, Callable[[Any, str], Any]] = {
    "session_id": identifier,
    "user_id": identifier,
    "id": identifier,
    "stream": boolean,
    "model": string,
    "temperature": number,
    "top_p": number,
    "frequency_penalty": number,
    "presence_penalty": number,
    "max_tokens": integer,
    "stop": _stop,
    "n": integer,
    "seed": integer,
    "tools": _tools,
}


# -- messages and their parts --------------------------------------------------------------------------------


def _messages(value: Any) -> tuple[Message, ...]:
    if value is None:
        missing("input", 'send a list of messages, such as [{"role": "user", "content": "Hello"}]')
    if type(value) is not list:
        wrong("input", "a list of messages", value)
    if not value:
        raise InvalidRequest("input is empty; a turn needs at least one message", field="input")
    return tuple([_message(fields, f"input[{i}]") for i, fields in enumerate(value)])


def _message(fields: Any, at: str) -> Message:
    if type(fields) is not dict:
        wrong(at, "a message (an object)", fields)
    get = fields.get
    content = _content(get("content"), at)
    role: Any = "user"
    if (value := get("role")) is not None and (role := string(value, f"{at}.role")) not in _ROLES:
        unknown(f"{at}.role", role, get_args(Role))
    kind: Any = "message"
    if (value := get("type")) is not None and (kind := string(value, f"{at}.type")) not in _MESSAGE_TYPES:
        unknown(f"{at}.type", kind, get_args(MessageType))
    message_id = None if (value := get("id")) is None else identifier(value, f"{at}.id")
    metadata = None if (value := get("metadata")) is None else mapping(value, f"{at}.metadata")
    name = None if (value := get("name")) is None else identifier(value, f"{at}.name")
    return Message(content, role, kind, message_id, metadata, name)


def _content(value: Any, at: str) -> tuple[Content, ...]:
    if value is None:
        return ()
    if type(value) is str:
        return (Text(value),)
    if type(value) is not list:
        wrong(f"{at}.content", "a string or a list of parts", value)
    return tuple([_part(part, f"{at}.content[{i}]") for i, part in enumerate(value)])


def _part(part: Any, at: str) -> Content:
    if type(part) is not dict:
        wrong(at, 'a part (an object such as {"type": "text", "text": "Hello"})', part)
    kind = part.get("type")
    if kind is None:
        missing(f"{at}.type", f"a part says what it is, one of {', '.join(_PARTS)}")
    read = _PARTS.get(string(kind, f"{at}.type"))
    if read is None:
        unknown(f"{at}.type", kind, _PARTS)
    return read(part, at)


def _needed(part: dict[str, Any], name: str, at: str) -> str:
    return needed_string(part, name, at, f"a part of type {part['type']} needs it")


def _data(part: dict[str, Any], at: str) -> Data:
    value = part.get("data")
    if value is None:
        missing(f"{at}.data", "a part of type data needs it")
    return Data(mapping(value, f"{at}.data"))


def _file(part: dict[str, Any], at: str) -> File:
    url, file_id, data, filename = (
        optional_string(part, name, at) for name in ("file_url", "file_id", "file_data", "filename")
    )
    if url is None and file_id is None and data is None:
        missing(f"{at}.file_url", "a part of type file needs it, or file_id, or file_data")
    return File(url, file_id, data, filename)


_PARTS: dict[str, Callable[[dict[str, Any], str], Content]] = {
    "text": lambda part, at: Text(_needed(part, "text", at)),
    "data": _data,
    "image": lambda part, at: Image(_needed(part, "image_url", at)),
    "audio": lambda part, at: Audio(_needed(part, "data", at), optional_string(part, "format", at)),
    "video": lambda part, at: Video(_needed(part, "video_url", at)),
    "file": _file,
    "refusal": lambda part, at: Refusal(_needed(part, "refusal", at)),
}
