"""The keywords of JSON schema that look at a value alone. Each rule gives what is wrong, or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, TypeAlias

from greenroom.actors.json_formats import has_format
from greenroom.actors.json_values import is_number, is_of_type, same, shown

LISTED = 10
"""So many of the values that would be right are named in an error."""

PlainRule: TypeAlias = Callable[[Any, Any], str | None]


def listed(values: Sequence[Any]) -> str:
    """Values in an error."""
    return ", ".join(map(shown, values[:LISTED])) + (", …" if len(values) > LISTED else "")


def _type(wanted: str | Sequence[str], value: Any) -> str | None:
    names = [wanted] if isinstance(wanted, str) else wanted
    if any(is_of_type(value, name) for name in names):
        return None
    return f"is {shown(value)}, and must be of type {' or '.join(names)}"


def _const(wanted: Any, value: Any) -> str | None:
    return None if same(value, wanted) else f"is {shown(value)}, and must be {shown(wanted)}"


def _multiple_of(wanted: float, value: Any) -> str | None:
    # As the digits say: 0.3 is three times 0.1, which it is not as a binary fraction.
    if not is_number(value) or (Fraction(str(value)) / Fraction(str(wanted))).denominator == 1:
        return None
    return f"is {shown(value)}, and must be a multiple of {wanted}"


def _format(wanted: str, value: Any) -> str | None:
    if not isinstance(value, str) or has_format(value, wanted):
        return None
    return f"is {shown(value)}, and must be of the format {wanted!r}"


def _at_least(kind: type[str | list[Any] | dict[str, Any]], unit: str) -> PlainRule:
    def check(wanted: int, value: Any) -> str | None:
        if not isinstance(value, kind) or len(value) >= wanted:
            return None
        return f"has {len(value)} {unit}, and must have at least {wanted}"

    return check


def _at_most(kind: type[str | list[Any] | dict[str, Any]], unit: str) -> PlainRule:
    def check(wanted: int, value: Any) -> str | None:
        if not isinstance(value, kind) or len(value) <= wanted:
            return None
        return f"has {len(value)} {unit}, and must have at most {wanted}"

    return check


def _compared(fits: Callable[[float, float], bool], how: str) -> PlainRule:
    def check(wanted: float, value: Any) -> str | None:
        if not is_number(value) or fits(value, wanted):
            return None
        return f"is {shown(value)}, and must be {how} {wanted}"

    return check


PLAIN_RULES: dict[str, PlainRule] = {
    "type": _type,
    "const": _const,
    "multipleOf": _multiple_of,
    "format": _format,
    "minLength": _at_least(str, "characters"),
    "maxLength": _at_most(str, "characters"),
    "minItems": _at_least(list, "elements"),
    "maxItems": _at_most(list, "elements"),
    "minProperties": _at_least(dict, "properties"),
    "maxProperties": _at_most(dict, "properties"),
    "minimum": _compared(lambda value, wanted: value >= wanted, "at least"),
    "maximum": _compared(lambda value, wanted: value <= wanted, "at most"),
    "exclusiveMinimum": _compared(lambda value, wanted: value > wanted, "more than"),
    "exclusiveMaximum": _compared(lambda value, wanted: value < wanted, "less than"),
}
