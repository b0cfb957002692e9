"""Turns and their events as the bytes they are kept in, and back.

Fields go by position (`compact` says why and what that asks of changes). What MessagePack does not have (half a
surrogate pair, integers over 64 bits) is kept as JSON instead, which Python's own reads back as it was; of a log only
the event that needs it.

What the protocol that asked for a turn repeats in its answers (`Turn.echo`) is kept as plain data, or as a struct that
its protocol has named with `register_echo`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any, Final, TypeAlias

from msgspec import Raw, Struct, ValidationError, convert, msgpack, to_builtins
from msgspec.structs import asdict, astuple

from greenroom.actors import events
from greenroom.actors.errors import HandlerError, InvalidRequest
from greenroom.actors.events import Event
from greenroom.actors.messages import (
    AgentRequest,
    Disconnect,
    Message,
    Overlap,
    SessionKey,
    Turn,
    TurnOptions,
)
from greenroom.services.compact import CompactMessage
from greenroom.services.pieces import BUILT_IN, SLICE, abridged, array_of, in_pieces
from greenroom.services.plain_json import DEEPEST, misread, unsubclassed
from greenroom.services.sizes import size_of

_ECHOES: Final[dict[str, type[Struct]]] = {}
_ECHO_NAMES: Final[dict[type, str]] = {}
_PLAIN: Final = ""
"""Names an echo that is plain data."""


def register_echo(name: str, echo: type[Struct]) -> None:
    """Turns may have such a struct as `echo`. `name` is kept with it, so it never changes."""
    _ECHOES[name] = echo
    _ECHO_NAMES[echo] = name


# ------------------------------------------------------------------------------------------------------ the turn itself


class _Request(Struct, frozen=True, array_like=True):
    """An `AgentRequest`, all fields by position."""

    input: tuple[CompactMessage, ...]
    session_id: str | None = None
    user_id: str | None = None
    id: str | None = None
    stream: bool = True
    model: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    seed: int | None = None
    tools: list[dict[str, Any]] | None = None
    extra: dict[str, Any] = {}


class _Turn(Struct, frozen=True, array_like=True):
    """A `Turn`, all fields by position. Earlier versions say nothing of `idempotent`: then it is for who takes the turn
    over alone to say, as it was with them."""

    id: str
    key: SessionKey
    request: _Request
    principal: str | None
    overlap: Overlap | None
    disconnect: Disconnect
    created_at: float
    options: TurnOptions | None = None
    after: str | None = None
    kept: bool = True
    stored: bool = False
    background: bool = False
    echo: tuple[str, Any] | None = None
    idempotency_key: str | None = None
    fingerprint: bytes = b""
    webhook: str | None = None
    temporary: bool = False
    idempotent: bool = True


_encoder = msgpack.Encoder(enc_hook=unsubclassed)
_turn_decoder = msgpack.Decoder(_Turn)
_turn_values = attrgetter(*_Turn.__struct_fields__)
_request_values = attrgetter(*_Request.__struct_fields__)
_KEY: Final = _Turn.__struct_fields__.index("key")
_REQUEST: Final = _Turn.__struct_fields__.index("request")
_ECHO: Final = _Turn.__struct_fields__.index("echo")
_NOT_MESSAGEPACK: Final = (UnicodeEncodeError, OverflowError)
_JSON: Final = b"["
"""How JSON of a turn begins, and MessagePack of one never does."""


def encode_turn(turn: Turn) -> bytes:
    """A turn as bytes, which were read once.

    Raises `InvalidRequest` for a turn that cannot be kept as it is; its `field` names the flaw.
    """
    if isinstance(turn.echo, Struct) and type(turn.echo) not in _ECHO_NAMES:
        raise _refusal("turn.echo", f"is a {type(turn.echo).__name__}, which no protocol has registered")
    for value, path in _islands(turn):
        flaw = _flaw(value, path)
        if flaw is not None:
            raise _refusal(*flaw)
    try:
        values = list(_turn_values(turn))
        request = list(_request_values(turn.request))
        request[0] = list(map(astuple, turn.request.input))
        values[_KEY], values[_REQUEST], values[_ECHO] = list(turn.key), request, _echo(turn.echo)
        raw = _encoded(values)
        _read_turn(raw)
    except (TypeError, ValueError, RecursionError, AttributeError) as error:
        raise _what_is_wrong(turn, error) from error
    return raw


def decode_turn(raw: bytes) -> Turn:
    """A turn from the bytes of `encode_turn`."""
    kept = _read_turn(raw)
    fields = asdict(kept)
    request = asdict(kept.request)
    request["input"] = tuple(Message(*astuple(message)) for message in kept.request.input)
    fields["request"] = AgentRequest(**request)
    fields["echo"] = _opaque(*kept.echo) if kept.echo else None
    return Turn(**fields)


def _read_turn(raw: bytes) -> _Turn:
    if raw.startswith(_JSON):
        return convert(_from_json(raw), _Turn)
    return _turn_decoder.decode(raw)


def _echo(echo: Any) -> tuple[str, Any] | None:
    return None if echo is None else (_ECHO_NAMES.get(type(echo), _PLAIN), echo)


def _opaque(name: str, value: Any) -> Any:
    """An echo as its protocol had it. Of a protocol that this process does not have, nobody looks at it."""
    if name == _PLAIN:
        return value
    known = _ECHOES.get(name)
    return None if known is None else convert(value, known)


def _islands(turn: Turn) -> Iterator[tuple[Any, str]]:
    """What of a turn may be anything, and so something that no bytes can hold."""
    request = turn.request
    if request.extra:
        yield request.extra, "turn.request.extra"
    if request.tools is not None:
        yield request.tools, "turn.request.tools"
    for number, message in enumerate(request.input):
        if message.metadata is not None:
            yield message.metadata, f"turn.request.input[{number}].metadata"
    if turn.options is not None:
        yield turn.options, "turn.options"
    if turn.echo is not None and type(turn.echo) not in _ECHO_NAMES:
        yield turn.echo, "turn.echo"


# ----------------------------------------------------------------------------------------------------------- its events


class _TurnAccepted(events.TurnAccepted, frozen=True, array_like=True, tag=0):
    """By position, as all of these."""


class _TurnStarted(events.TurnStarted, frozen=True, array_like=True, tag=1):
    """Nothing but its tag."""


class _ItemStarted(events.ItemStarted, frozen=True, array_like=True, tag=2):
    """By position."""


class _TextDelta(events.TextDelta, frozen=True, array_like=True, tag=3):
    """By position."""


class _ArgumentsDelta(events.ArgumentsDelta, frozen=True, array_like=True, tag=4):
    """By position."""


class _ToolProgress(events.ToolProgress, frozen=True, array_like=True, tag=5):
    """By position."""


class _PartDone(events.PartDone, frozen=True, array_like=True, tag=6):
    """By position."""


class _ItemDone(events.ItemDone, frozen=True, array_like=True, tag=7):
    """By position, but for the item in it."""


class _TurnCompleted(events.TurnCompleted, frozen=True, array_like=True, tag=8):
    """By position, but for the items in it."""


class _TurnFailed(events.TurnFailed, frozen=True, array_like=True, tag=9):
    """By position, but for the items in it."""


class _TurnCancelled(events.TurnCancelled, frozen=True, array_like=True, tag=10):
    """By position, but for the items in it."""


_Kept: TypeAlias = (
    _TurnAccepted
    | _TurnStarted
    | _ItemStarted
    | _TextDelta
    | _ArgumentsDelta
    | _ToolProgress
    | _PartDone
    | _ItemDone
    | _TurnCompleted
    | _TurnFailed
    | _TurnCancelled
)
_TAGS: Final[dict[type, int]] = {kept.__bases__[0]: kept.__struct_config__.tag for kept in _Kept.__args__}
_events_decoder = msgpack.Decoder(list[_Kept | bytes])


def encode_events(some: Sequence[Event]) -> bytes:
    """Events as bytes, which were read once.

    Raises `HandlerError` for events that cannot be kept as they are; its `field` names the flaw.
    """
    try:
        raw = _encoder.encode([(_TAGS[type(event)], *astuple(event)) for event in some])
    except _NOT_MESSAGEPACK:
        raw = _encoder.encode([_single(event) for event in some])
    except (TypeError, ValueError, RecursionError, KeyError) as error:
        raise _broken_event(some, error) from error
    try:
        _events_decoder.decode(raw)
    except (ValueError, RecursionError) as error:
        raise _broken_event(some, error) from error
    return raw


def events_in_pieces(some: Sequence[Event]) -> list[bytes]:
    """The same, for large events: bytes that are to be joined, made in short steps (`pieces`). Raises as that does."""
    pieces = [array_of(len(some))]
    for event in some:
        pieces += _event_in_pieces(event) if size_of(event) > SLICE else [encode_events((event,))[1:]]
    return pieces


def _event_in_pieces(event: Event) -> list[bytes]:
    """A large event, as one among others. What of it is not large is read once."""
    try:
        values = to_builtins(
            [_TAGS[type(event)], *astuple(event)], builtin_types=BUILT_IN, enc_hook=unsubclassed
        )
        pieces = in_pieces(values, _encoder.encode)
        _events_decoder.decode(_encoder.encode([abridged(values)]))
    except (TypeError, ValueError, RecursionError, OverflowError):
        return [encode_events((event,))[1:]]  # which says what is wrong, or knows how to keep it
    return pieces


def decode_events(raw: bytes | Raw) -> list[Event]:
    """Events from the bytes of `encode_events`."""
    return [_event(kept) for kept in _events_decoder.decode(raw)]


def _single(event: Event) -> list[Any] | bytes:
    """An event by itself, to be put among others."""
    values = [_TAGS[type(event)], *astuple(event)]
    raw = _encoded(values)
    return raw if raw.startswith(_JSON) else values


def _event(kept: _Kept | bytes) -> Event:
    if isinstance(kept, bytes):
        kept = convert(_from_json(kept), _Kept)
    base: Any = type(kept).__bases__[0]
    event: Event = base(*astuple(kept))  # type: ignore[arg-type]
    return event


# ----------------------------------------------------------------------------------------------------- as bytes, or not


def _encoded(values: list[Any]) -> bytes:
    try:
        return _encoder.encode(values)
    except _NOT_MESSAGEPACK:
        text = json.dumps(to_builtins(values, enc_hook=unsubclassed), ensure_ascii=False)
        return text.encode("utf-8", "surrogatepass")


def _from_json(raw: bytes) -> Any:
    return json.loads(raw.decode("utf-8", "surrogatepass"))


def _broken_event(some: Sequence[Event], error: Exception) -> HandlerError:
    """The error for events of which one cannot be kept."""
    for event in some:
        if type(event) not in _TAGS:
            return HandlerError(f"a {type(event).__name__} is no event of a turn", field="event")
        name = type(event).__name__
        flaw = _flaw(event, name)
        if flaw is not None:
            return HandlerError(_sentence(*flaw), field=flaw[0])
        try:
            _events_decoder.decode(_encoder.encode([_single(event)]))
        except (TypeError, ValueError, RecursionError) as why:
            return HandlerError(f"an event {name} cannot be kept: {why}", field=name)
    return HandlerError(f"the events cannot be kept: {error}", field="events")


def _what_is_wrong(turn: Turn, error: Exception) -> InvalidRequest:
    """The error for a turn that cannot be kept."""
    fields = {name: getattr(turn, name) for name in turn.__struct_fields__ if name != "fingerprint"}
    flaw = _flaw(fields, "turn")
    if flaw is not None:
        return _refusal(*flaw)
    if isinstance(error, ValidationError):
        return _misread(turn, error)
    return _refusal("turn", f"cannot be written ({error})")


def _misread(turn: Turn, error: ValidationError) -> InvalidRequest:
    """The error for a turn with something of another type than it should be."""
    found = misread(turn, "turn", error)
    path = found.field or "turn"
    position = re.match(r"turn\.request\[(\d+)\]", path)
    named = (
        f"turn.request.{_Request.__struct_fields__[int(position[1])]}{path[position.end() :]}"
        if position
        else path
    )
    return InvalidRequest(found.message.replace(path, named), field=named)


def _refusal(path: str, why: str) -> InvalidRequest:
    return InvalidRequest(_sentence(path, why), field=path)


def _sentence(path: str, why: str) -> str:
    return (
        f"{path} {why}, so it cannot be kept; what is kept of a turn is made of text, numbers, booleans, None, lists "
        "and dicts with text keys"
    )


def _flaw(value: object, path: str, depth: int = 0) -> tuple[str, str] | None:
    """Where a value is made of something that would not come back as it was, and why."""
    if isinstance(value, str | int | float | None):
        return None
    if depth >= DEEPEST:
        return path, f"is nested more than {DEEPEST} levels deep"
    if isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, str):
                return path, f"has the key {key!r}, which is no text"
            flaw = _flaw(part, f"{path}.{key}", depth + 1)
            if flaw is not None:
                return flaw
        return None
    parts: Sequence[tuple[str, object]]
    if isinstance(value, list | tuple):
        parts = [(f"{path}[{number}]", part) for number, part in enumerate(value)]
    elif isinstance(value, Struct):
        parts = [(f"{path}.{name}", getattr(value, name)) for name in value.__struct_fields__]
    else:
        return path, f"is a {type(value).__name__}"
    found = (_flaw(part, where, depth + 1) for where, part in parts)
    return next((flaw for flaw in found if flaw is not None), None)
