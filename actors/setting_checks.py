"""Settings are checked when they are given: a wrong one is refused where it is written, and not met at work.

A contract, importable from every room. What a setting takes is said by its type; numbers have their bounds there
(`Share`, `Count`, `Seconds`, `Wait`).
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    TypeAlias,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from msgspec import Meta, Struct

from greenroom.actors.errors import ConfigurationError

Share: TypeAlias = Annotated[int, Meta(ge=1)]
"""A number of which there is at least one."""
Count: TypeAlias = Annotated[int, Meta(ge=0)]
"""A number that may be none at all."""
Seconds: TypeAlias = Annotated[float, Meta(gt=0)]
"""A time that passes; `inf`: for ever."""
Wait: TypeAlias = Annotated[float, Meta(ge=0)]
"""A time that may be none at all."""

_VALUES: Final = (bool, int, float, str, bytes, NoneType)
"""Types that are converted and not looked at: a whole number is a number too, and `True` is none."""


def check_setting(where: str, name: str, value: object, kind: Any) -> None:
    """Raise `ConfigurationError`, naming the setting and what it takes, for a value that is not of the kind.

    `kind`: a type, a Protocol, whose members the value then has to have, a function's type, `Sequence[…]` of a
    Protocol, or whatever msgspec converts; or several of these.
    """
    problem = _problem(value, kind)
    if problem:
        secret = isinstance(value, str | bytes) and get_origin(kind) is not Literal
        given = name if secret else f"{name}={reprlib.repr(value)}"  # any text may be one
        raise ConfigurationError(f"{where}: {given} cannot be: {problem}")


def check_settings(where: str, given: Mapping[str, object], kinds: Mapping[str, Any]) -> None:
    """The same for each setting that has a kind."""
    for name, kind in kinds.items():
        check_setting(where, name, given[name], kind)


def check_fields(settings: Struct, where: str | None = None) -> None:
    """The same for the fields of a Struct, in its `__post_init__`. `where`: what it is called, if not by its class."""
    kinds = kinds_of(type(settings))
    check_settings(where or type(settings).__name__, {name: getattr(settings, name) for name in kinds}, kinds)


@cache
def kinds_of(struct: type[Struct]) -> Mapping[str, Any]:
    """What the fields of a Struct take."""
    return {
        name: kind
        for name, kind in get_type_hints(struct, include_extras=True).items()
        if name in struct.__struct_fields__
    }


def _problem(value: object, kind: Any) -> str:
    """What the setting takes and what it got; "" when it fits."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    objects = [one for one in kinds if _is_object(one)]
    values = tuple(one for one in kinds if not _is_object(one))
    if any(_fits(value, one) for one in objects):
        return ""
    problem = _problem_of_value(value, Union[values]) if values else "expected"  # noqa: UP007 - a tuple of them
    if not problem or not objects:
        return problem
    names = [*map(_called, objects), *("nothing" if one is NoneType else _called(one) for one in values)]
    return f"expected {' or '.join(names)}, got `{type(value).__name__}`"


def _problem_of_value(value: object, kind: Any) -> str:
    if get_origin(kind) is Literal and value not in get_args(kind):
        return f"expected one of {', '.join(map(repr, get_args(kind)))}"
    try:
        msgspec.convert(_plain(value), kind)
    except msgspec.ValidationError as error:
        words = str(error).replace("Expected", "expected", 1)
        words = (
            words.replace("| null", "| None")
            .replace("`null`", "`None`")
            .replace("`array`", "a list")
            .replace("- at `$[", "at `[")
        )
    else:
        return ""
    if NoneType in get_args(kind) and "None" not in words:
        words += ", or None"
    return f"{words}; write [{reprlib.repr(value)}]" if words == "expected a list, got `str`" else words


def _plain(value: object) -> object:
    """As msgspec takes it, which looks at types themselves: a child of `float` is a number, any collection is a list;
    a decimal is no number, as sums with times fail."""
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Decimal):
        return type("Decimal", (), {})()  # which is told by its name alone
    if isinstance(value, Collection) and not isinstance(value, str | bytes | bytearray | Mapping):
        return list(value)
    return value


def _is_object(kind: Any) -> bool:
    """Whether a value has to be such an object already."""
    origin = get_origin(kind)
    if origin is Sequence:
        return _is_object(get_args(kind)[0])
    return origin is Callable or (isinstance(kind, type) and kind not in _VALUES and origin is None)


def _fits(value: object, kind: Any) -> bool:
    origin = get_origin(kind)
    if origin is Sequence:
        one = get_args(kind)[0]
        # No generator: it would be empty afterwards.
        return (
            isinstance(value, Collection)
            and not isinstance(value, str | bytes)
            and all(_fits(item, one) for item in cast("Collection[object]", value))
        )
    if origin is Callable:
        return callable(value)
    if getattr(kind, "_is_protocol", False):
        return not isinstance(value, type) and all(hasattr(value, name) for name in _members(kind))
    return isinstance(value, kind)


@cache
def _members(protocol: type) -> tuple[str, ...]:
    """What an object has to have for being one: the Protocol's methods and attributes."""
    bases = [
        base
        for base in protocol.__mro__
        if getattr(base, "_is_protocol", False) and base.__module__ != "typing"
    ]
    names = {name for base in bases for name in (*vars(base), *vars(base).get("__annotations__", ()))}
    return tuple(sorted(name for name in names if not name.startswith("_")))


def _called(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Callable:
        return "a function"
    if origin is Sequence:
        return f"a list of {_called(get_args(kind)[0])}"
    return f"`{getattr(kind, '__name__', kind)}`"
