"""Encoding what a caller hands in as JSON, and saying where it is none.

An encoder alone is not enough: it turns a set, a date or NaN into something else without a word, and the caller finds
out a turn later. So what was encoded is read back and compared, which the library does in C; Python looks at the value
only when the two differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct, ValidationError, json

from greenroom.actors.errors import HandlerError

DEEPEST = 200
"""Levels of nesting looked into for a flaw; what is deeper than any real state is taken for a mistake."""


def unsubclassed(value: object) -> object:
    """A subclass of a JSON type as that type, as the standard library encodes it (numpy's floats are such)."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    raise TypeError(f"JSON has no {type(value).__name__}")


_encoder = json.Encoder(enc_hook=unsubclassed)
_decoder = json.Decoder()


def encode(value: object, field: str, read_back: Callable[[bytes], object] = _decoder.decode) -> bytes:
    """`value` as JSON. `read_back` gives what `value` is compared with; tuples may come back as lists.

    Raises `HandlerError` when `value` is not made of JSON's types; its `field` is the path, like `state.tools[2]`.
    """
    try:
        raw = _encoder.encode(value)
        if read_back(raw) == value:
            return raw
    except (TypeError, ValueError, RecursionError) as error:
        raise refusal(value, field, error) from error
    flaw = _flaw(value, field, set())
    if flaw is not None:
        raise _refusal(*flaw)
    return raw


def decode(raw: bytes) -> Any:
    """What `encode` was given, new each time, so that no two callers share it."""
    return _decoder.decode(raw)


def refusal(value: object, field: str, error: Exception) -> HandlerError:
    """The error for a value that an encoder did not take, or could not read back."""
    flaw = _flaw(value, field, set())
    if flaw is None and isinstance(error, ValidationError):
        return misread(value, field, error)
    return _refusal(*(flaw or (field, f"cannot be written ({error})")))


def misread(value: object, field: str, error: ValidationError) -> HandlerError:
    """The error for a value of JSON's types that is not of the type it should be."""
    why, _, where = str(error).rpartition(" - at `$")
    where = where.rstrip("`")
    position = re.match(r"\[(\d+)\]", where)
    if position and isinstance(value, Struct):
        where = f".{value.__struct_fields__[int(position[1])]}{where[position.end() :]}"
    path = f"{field}{where}" if why else field
    return HandlerError(f"{path} is not what it should be: {why or error}", field=path)


def _refusal(path: str, why: str) -> HandlerError:
    return HandlerError(
        f"{path} {why}, so it cannot be stored; what is stored is made of text, finite numbers, booleans, None, lists "
        "and dicts with text keys",
        field=path,
    )


def _flaw(value: object, path: str, above: set[int]) -> tuple[str, str] | None:
    """Where `value` stops being JSON, and why. `above`: the ids of the containers it lies in."""
    if not isinstance(value, dict | list | tuple | Struct):
        return None if _survives(value) else (path, f"is {_named(value)}, which JSON does not have")
    if id(value) in above:
        return path, "contains itself"
    if len(above) >= DEEPEST:
        return path, f"is nested more than {DEEPEST} levels deep"
    above.add(id(value))
    for where, part in _parts(value, path):
        if where is None:
            return path, f"has the key {part!r}, which is no text"
        flaw = _flaw(part, where, above)
        if flaw is not None:
            return flaw
    above.discard(id(value))
    return None


def _parts(
    value: dict[Any, Any] | list[Any] | tuple[Any, ...] | Struct, path: str
) -> Iterator[tuple[str | None, Any]]:
    """What a container holds, each with its path; a key that cannot be one comes without."""
    if isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, str) or not _survives(key):
                yield None, key
            yield f"{path}.{key}" if key.isidentifier() else f"{path}[{key!r}]", part
    elif isinstance(value, Struct):
        for name in value.__struct_fields__:
            yield f"{path}.{name}", getattr(value, name)
    else:
        for index, part in enumerate(value):
            yield f"{path}[{index}]", part


def _survives(value: object) -> bool:
    try:
        return bool(_decoder.decode(_encoder.encode(value)) == value)
    except (TypeError, ValueError, RecursionError):
        return False


def _named(value: object) -> str:
    if isinstance(value, float):
        return str(value)
    return "text with half a surrogate pair" if isinstance(value, str) else f"a {type(value).__name__}"
