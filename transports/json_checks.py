"""Checks of decoded JSON that the decoders of protocols share: each gives the value, or raises `InvalidRequest` that
names the field and says what would be right.

Rule: no I/O. `at` is the place of a value, as a client would write it: `input[0].content`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any, NoReturn

import msgspec

from greenroom.actors.errors import Forbidden, InvalidRequest

ID_CHARS = 1024
"""Ids longer than this are somebody's mistake; they are kept per session and written to logs."""
NESTING = 100
"""How deep a body's JSON may nest. Readers of JSON, ours among them, give up a little later."""

_INT64 = 1 << 63
_BOM = b"\xef\xbb\xbf"
_DIGITS = bytes(0 if byte in b"0123456789" else 1 for byte in range(256))
_LONG = bytes(19)
"""So many digits may be more than 63 bits hold."""
_FIELD = re.compile("[a-z_]{1,40}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HALF_PAIR = re.compile(rb"(?<!\\)(?:\\\\)*\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])")
_AT_BYTE = re.compile(r" \(byte (\d+)\)")
_decode = msgspec.json.Decoder().decode


# -- the body ------------------------------------------------------------------------------------------------------


def json_object(body: bytes, field: str) -> dict[str, Any]:
    """The body's JSON object, in which `field` is what a request cannot do without."""
    fields = json_value(body, field)
    if type(fields) is not dict:
        raise InvalidRequest(f"the body must be a JSON object with the field `{field}`, not {kind(fields)}")
    return fields


def json_value(body: bytes, field: str | None = None) -> Any:
    """The body's JSON, which nests no deeper than `NESTING` and holds no number that could not be written again.

    `field`: what an object cannot do without. Raises `InvalidRequest`.
    """
    body = body.removeprefix(_BOM)
    try:
        value = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(body, error, field) from None
    if body.count(b"{") + body.count(b"[") > NESTING and _too_deep(value):
        raise _nested()
    if has_long_numbers(body):
        _check_numbers(value)
    return value


def has_long_numbers(body: bytes) -> bool:
    """Whether a body may hold whole numbers that 64 bits do not; quick, as large bodies are text."""
    return _LONG in body.translate(_DIGITS)


def _check_numbers(value: Any) -> None:
    """Encoders of JSON and stores write no whole number that 64 bits do not hold."""
    fields = value if type(value) is dict else {"": value}
    for name, inner in fields.items():
        if _holds_long_number(inner):
            field = name if _FIELD.fullmatch(name) else None
            raise InvalidRequest(
                f"{field or 'the body'} is or holds a number that is out of range: it does not fit 64 bits; "
                "send it as a string",
                field=field,
            )


def _holds_long_number(value: Any) -> bool:
    if type(value) is dict:
        return any(map(_holds_long_number, value.values()))
    if type(value) is list:
        return any(map(_holds_long_number, value))
    return type(value) is int and not -_INT64 <= value < 2 * _INT64


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


def _malformed(body: bytes, error: Exception, field: str | None) -> InvalidRequest:
    if isinstance(error, RecursionError):
        return _nested()
    if not body.strip():
        what = f"a JSON object with the field `{field}`" if field else "JSON"
        return InvalidRequest(f"the body is empty; send {what}")
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


# -- words for what is wrong ---------------------------------------------------------------------------------------

_KINDS = {
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    dict: "an object",
    list: "a list",
    type(None): "null",
}


def kind(value: object) -> str:
    """What a JSON value is, in words."""
    return _KINDS.get(type(value), type(value).__name__)


def wrong(at: str, expected: str, value: object) -> NoReturn:
    """Say that a value is of another kind than it must be."""
    raise InvalidRequest(f"{at} must be {expected}, not {kind(value)}", field=at)


def unknown(at: str, value: str, choices: Iterable[str]) -> NoReturn:
    """Say that a word is none of those that are known."""
    shown = ascii(value if len(value) <= 40 else value[:40] + "…")
    raise InvalidRequest(
        f"{at} is {shown}, which is not known; it must be one of {', '.join(choices)}", field=at
    )


def missing(at: str, why: str) -> NoReturn:
    """Say that a field is needed."""
    raise InvalidRequest(f"{at} is missing: {why}", field=at)


# -- values --------------------------------------------------------------------------------------------------------


def string(value: Any, at: str) -> str:
    """Any text."""
    if type(value) is not str:
        wrong(at, "a string", value)
    return value


def short_string(value: Any, at: str, most: int) -> str:
    """Text of at most so many characters."""
    if len(string(value, at)) > most:
        raise InvalidRequest(f"{at} has {len(value)} characters; it may have {most}", field=at)
    return str(value)


def identifier(value: Any, at: str) -> str:
    """Printable text of bounded length; it may be empty."""
    if type(value) is not str:
        wrong(at, "a string", value)
    if len(value) > ID_CHARS:
        raise InvalidRequest(f"{at} has {len(value)} characters; an id may have {ID_CHARS}", field=at)
    if not (value.isascii() and value.isprintable()) and _CONTROL.search(value):
        raise InvalidRequest(f"{at} has control characters; an id is printable text", field=at)
    return value


def word(value: Any, at: str, choices: Collection[str]) -> str:
    """One of the words that are known."""
    if string(value, at) not in choices:
        unknown(at, value, choices)
    return str(value)


def boolean(value: Any, at: str) -> bool:
    """True or false."""
    if type(value) is not bool:
        wrong(at, "true or false", value)
    return value


def number(value: Any, at: str) -> float:
    """A number that fits 64 bits; an int stays an int, as the client wrote it."""
    if type(value) is not float and type(value) is not int:
        wrong(at, "a number", value)
    if not -_INT64 <= value < _INT64:
        raise InvalidRequest(f"{at} is out of range", field=at)
    return value


def number_within(value: Any, at: str, low: float, high: float) -> float:
    """A number from `low` to `high`."""
    if not low <= number(value, at) <= high:
        raise InvalidRequest(f"{at} is {value:g}; it may be from {low:g} to {high:g}", field=at)
    return float(value)


def integer(value: Any, at: str) -> int:
    """A whole number that fits 64 bits; `2.0` is one, as JSON has but one kind of numbers."""
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int:
        wrong(at, "a whole number", value)
    if not -_INT64 <= value < _INT64:
        raise InvalidRequest(f"{at} is out of range: it does not fit 64 bits", field=at)
    return int(value)


def integer_from(value: Any, at: str, low: int) -> int:
    """A whole number, `low` or more."""
    whole = integer(value, at)
    if whole < low:
        raise InvalidRequest(f"{at} is {whole}; it must be {low} or more", field=at)
    return whole


def mapping(value: Any, at: str) -> dict[str, Any]:
    """A JSON object."""
    if type(value) is not dict:
        wrong(at, "an object", value)
    return value


def items(value: Any, at: str, of: str) -> list[Any]:
    """A list `of` something."""
    if type(value) is not list:
        wrong(at, f"a list of {of}", value)
    return value


def needed_string(fields: dict[str, Any], name: str, at: str, why: str) -> str:
    """A field that must be there, as text."""
    value = fields.get(name)
    if value is None:
        missing(f"{at}.{name}", why)
    return string(value, f"{at}.{name}")


def optional_string(fields: dict[str, Any], name: str, at: str) -> str | None:
    """A field that may be missing, as text."""
    value = fields.get(name)
    return None if value is None else string(value, f"{at}.{name}")


# -- whose ---------------------------------------------------------------------------------------------------------


def owner(user_id: str | None, principal: str | None, session_id: str) -> str:
    """Whose session it is: the principal's, else whom the request names, else nobody else's.

    Raises `Forbidden` for another principal's `user_id`.
    """
    if principal is None:
        return user_id or session_id
    if user_id and user_id != principal:
        raise Forbidden(
            "user_id names somebody else than who is authenticated; leave it out, the authentication says it",
            field="user_id",
        )
    return principal
