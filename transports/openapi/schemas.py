"""JSON Schemas, in few words: what the parts of the document are written with.

Rule: no I/O. What decoders take is said here as they take it: `null` means absent wherever a field may be absent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, structs

from greenroom.transports.json_checks import ID_CHARS

Schema: TypeAlias = dict[str, Any]

SCHEMAS = "#/components/schemas/"
NULL: Schema = {"type": "null"}
ANYTHING: Schema = {}
INT64 = {"minimum": -(1 << 63), "maximum": (1 << 63) - 1}


def ref(name: str) -> Schema:
    """The schema of that name, among the document's components."""
    return {"$ref": SCHEMAS + name}


def nullable(schema: Schema) -> Schema:
    """It, or nothing."""
    return {"anyOf": [schema, NULL]}


def text(**more: Any) -> Schema:
    """A string."""
    return {"type": "string", **more}


def identifier() -> Schema:
    """An id: printable text."""
    return text(maxLength=ID_CHARS, pattern=r"^[^\x00-\x1f\x7f]*$")


def words(choices: Collection[str]) -> Schema:
    """One of these."""
    return {"enum": list(choices)}


def integer(low: int | None = None, high: int | None = None) -> Schema:
    """A whole number; of 64 bits, unless said."""
    low = INT64["minimum"] if low is None else low
    return {"type": "integer", "minimum": low, "maximum": INT64["maximum"] if high is None else high}


def number(low: float, high: float) -> Schema:
    """A number within."""
    return {"type": "number", "minimum": low, "maximum": high}


def boolean() -> Schema:
    """True or false."""
    return {"type": "boolean"}


def array(items: Schema, **more: Any) -> Schema:
    """A list of these."""
    return {"type": "array", "items": items, **more}


def mapping(
    properties: Mapping[str, Schema] | None = None, required: Sequence[str] = (), **more: Any
) -> Schema:
    """An object; what is not named may be there too."""
    schema: Schema = {"type": "object", "properties": dict(properties or {}), **more}
    return {**schema, "required": list(required)} if required else schema


def optional(properties: Mapping[str, Schema]) -> dict[str, Schema]:
    """Fields that may be null."""
    return {name: nullable(schema) for name, schema in properties.items()}


def any_of(*schemas: Schema) -> Schema:
    """One of these, or several at once."""
    return {"anyOf": list(schemas)}


def constant(value: str) -> Schema:
    """That text."""
    return {"const": value}


def written(
    prefix: str, types: Sequence[type], fields: Mapping[tuple[str, str], Schema] | None = None
) -> dict[str, Schema]:
    """The schemas of Structs as they are written, each under `prefix` and its name. `fields`: what is known better of
    a field than its type says, by Struct and field."""
    _, components = msgspec.json.schema_components(types, ref_template=f"{SCHEMAS}{prefix}{{name}}")
    classes = {cls.__name__: cls for cls in _structs(types)}
    for name, schema in components.items():
        schema.pop("title", None)
        if (cls := classes.get(name)) is not None:
            schema["required"] = _always_written(cls, schema)
        for field, better in (fields or {}).items():
            if field[0] == name:
                schema["properties"][field[1]] = better
    return {prefix + name: schema for name, schema in components.items()}


def _always_written(cls: type[structs.Struct], schema: Schema) -> list[str]:  # type: ignore[name-defined]
    """What is never left out: a default is written, `UNSET` is not."""
    fields = {field.encode_name: field for field in structs.fields(cls)}
    return [
        name
        for name in schema["properties"]
        if name not in fields
        or not (
            fields[name].default is UNSET
            or (cls.__struct_config__.omit_defaults and not fields[name].required)
        )
    ]


def _structs(types: Sequence[type]) -> list[Any]:
    """These, and those that they are made of."""
    found: dict[Any, None] = {}
    inspected: list[Any] = list(msgspec.inspect.multi_type_info(types))
    while inspected:
        info = inspected.pop()
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in found:
                continue
            found[info.cls] = None
            inspected += [field.type for field in info.fields]
        inspected += list(getattr(info, "types", ()) or ())
        inspected += [inner for name in ("item_type", "value_type") if (inner := getattr(info, name, None))]
        inspected += list(getattr(info, "item_types", ()) or ())
    return list(found)
