"""Which JSON schemas are taken: those that `json_schema` can check in full, within bounds.

A keyword that constrains and is not known here would be dropped without a word, so a schema that has one is refused.
What only describes (titles, examples, words of other tools) is let be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec

from greenroom.actors.errors import InvalidRequest
from greenroom.actors.json_patterns import read_pattern
from greenroom.actors.json_schema import resolve
from greenroom.actors.json_values import TYPES, is_number

SCHEMA_BYTES = 256 * 1024
SCHEMAS = 5_000
"""Schemas within one, at most."""
DEEPEST = 40
"""How deep they may lie in each other."""

UNKNOWN = (
    "$dynamicRef",
    "$recursiveRef",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contentSchema",
    "extends",
    "disallow",
    "divisibleBy",
)
"""Keywords that would constrain."""


def check_form(schema: Any, at: str) -> None:
    """Raises `InvalidRequest` for a schema that is none, or cannot be checked in full. `at`: how its path begins."""
    try:
        size = len(msgspec.json.encode(schema))
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise InvalidRequest(
            f"{at} is no JSON schema: it cannot be written as JSON ({error})", field=at
        ) from error
    if size > SCHEMA_BYTES:
        raise InvalidRequest(
            f"{at} has {size} bytes, more than a schema may ({SCHEMA_BYTES}); ask for json_object",
            field=at,
        )
    _Form(schema, at).schema(schema, at, 0)


class _Form:
    """Walks through a schema."""

    def __init__(self, root: Any, name: str) -> None:
        self._root = root
        self._name = name
        self._left = SCHEMAS
        self._seen: set[int] = set()

    def schema(self, schema: Any, at: str, level: int) -> None:
        if isinstance(schema, bool):
            return
        if not isinstance(schema, dict):
            raise _wrong(at, "is not a schema: a JSON object, or true or false")
        if id(schema) in self._seen:
            return
        self._seen.add(id(schema))
        self._left -= 1
        if self._left < 0 or level > DEEPEST:
            raise _wrong(
                self._name,
                f"is too large: it may have {SCHEMAS} schemas in it, and those {DEEPEST} in each other",
            )
        if level and "$id" in schema:
            raise _wrong(
                f"{at}.$id", "gives a part of the schema an address of its own, which is not known here"
            )
        for keyword, value in schema.items():
            if keyword in UNKNOWN:
                raise _wrong(
                    f"{at}.{keyword}", "is a keyword that is not known here, so it would not be checked"
                )
            look = _KEYWORDS.get(keyword)
            if look is not None:
                look(self, value, f"{at}.{keyword}", level + 1)

    def schemas(self, value: Any, at: str, level: int) -> None:
        if not isinstance(value, list) or not value:
            raise _wrong(at, "is not a list of schemas")
        for index, one in enumerate(value):
            self.schema(one, f"{at}[{index}]", level)

    def schema_or_schemas(self, value: Any, at: str, level: int) -> None:
        (self.schemas if isinstance(value, list) and value else self.schema)(value, at, level)

    def named(self, value: Any, at: str, level: int) -> None:
        for name, one in _object(value, at).items():
            self.schema(one, f"{at}.{name}", level)

    def by_pattern(self, value: Any, at: str, level: int) -> None:
        for name, one in _object(value, at).items():
            self.pattern(name, f"{at}.{name}", level)
            self.schema(one, f"{at}.{name}", level)

    def named_strings(self, value: Any, at: str, level: int) -> None:
        for name, one in _object(value, at).items():
            self.strings(one, f"{at}.{name}", level)

    def dependencies(self, value: Any, at: str, level: int) -> None:
        for name, one in _object(value, at).items():
            (self.strings if isinstance(one, list) else self.schema)(one, f"{at}.{name}", level)

    def ref(self, value: Any, at: str, level: int) -> None:
        self.string(value, at, level)
        try:
            target = resolve(self._root, value)
        except LookupError:
            raise _wrong(
                at, f"names {value!r}, which is not in this schema; schemas from elsewhere are not fetched"
            ) from None
        self.schema(target, f"{self._name}{value[1:].replace('/', '.')}", level)

    def type(self, value: Any, at: str, level: int) -> None:
        names = value if isinstance(value, list) and value else [value]
        for name in names:
            if name not in TYPES:
                raise _wrong(at, f"is none of {', '.join(TYPES)}, nor a list of them")

    def pattern(self, value: Any, at: str, level: int) -> None:
        self.string(value, at, level)
        try:
            read_pattern(value)
        except ValueError as error:
            raise _wrong(at, str(error)) from error

    def values(self, value: Any, at: str, level: int) -> None:
        if not isinstance(value, list) or not value:
            raise _wrong(at, "is not a list of values")

    def strings(self, value: Any, at: str, level: int) -> None:
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise _wrong(at, "is not a list of names")

    def string(self, value: Any, at: str, level: int) -> None:
        if not isinstance(value, str):
            raise _wrong(at, "is not a string")

    def boolean(self, value: Any, at: str, level: int) -> None:
        if not isinstance(value, bool):
            raise _wrong(at, "is neither true nor false")

    def count(self, value: Any, at: str, level: int) -> None:
        if not is_number(value) or value < 0 or value != int(value):
            raise _wrong(at, "is not a whole number from 0 on")

    def number(self, value: Any, at: str, level: int) -> None:
        if not is_number(value):
            raise _wrong(at, "is not a number")

    def positive(self, value: Any, at: str, level: int) -> None:
        if not is_number(value) or value <= 0:
            raise _wrong(at, "is not a number greater than 0")


Look: TypeAlias = Callable[[_Form, Any, str, int], None]

_KEYWORDS: Mapping[str, Look] = {
    "type": _Form.type,
    "enum": _Form.values,
    "properties": _Form.named,
    "patternProperties": _Form.by_pattern,
    "additionalProperties": _Form.schema,
    "propertyNames": _Form.schema,
    "required": _Form.strings,
    "dependentRequired": _Form.named_strings,
    "dependentSchemas": _Form.named,
    "dependencies": _Form.dependencies,
    "prefixItems": _Form.schemas,
    "items": _Form.schema_or_schemas,
    "additionalItems": _Form.schema,
    "contains": _Form.schema,
    "minContains": _Form.count,
    "maxContains": _Form.count,
    "uniqueItems": _Form.boolean,
    "minItems": _Form.count,
    "maxItems": _Form.count,
    "minLength": _Form.count,
    "maxLength": _Form.count,
    "minProperties": _Form.count,
    "maxProperties": _Form.count,
    "minimum": _Form.number,
    "maximum": _Form.number,
    "exclusiveMinimum": _Form.number,
    "exclusiveMaximum": _Form.number,
    "multipleOf": _Form.positive,
    "pattern": _Form.pattern,
    "format": _Form.string,
    "$ref": _Form.ref,
    "$defs": _Form.named,
    "definitions": _Form.named,
    "allOf": _Form.schemas,
    "anyOf": _Form.schemas,
    "oneOf": _Form.schemas,
    "not": _Form.schema,
    "if": _Form.schema,
    "then": _Form.schema,
    "else": _Form.schema,
}


def _object(value: Any, at: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(at, "is not a JSON object")
    return value


def _wrong(at: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{at} {why}", field=at)
