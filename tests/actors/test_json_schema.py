"""Checking JSON against schemas of callers: what it finds, what it takes, what it costs."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom.actors.answer_check import check_schema
from greenroom.actors.errors import InvalidRequest
from greenroom.actors.json_formats import has_format
from greenroom.actors.json_schema import Check, TooMuch
from greenroom.actors.json_schema_form import _KEYWORDS, SCHEMA_BYTES

ORDER = {
    "type": "object",
    "properties": {
        "lines": {
            "type": "array",
            "items": {"$ref": "#/$defs/line"},
            "minItems": 1,
        },
        "note": {"anyOf": [{"type": "string", "maxLength": 5}, {"type": "null"}]},
    },
    "required": ["lines", "note"],
    "additionalProperties": False,
    "$defs": {
        "line": {
            "type": "object",
            "properties": {"item": {"type": "string"}, "amount": {"type": "integer", "minimum": 1}},
            "required": ["item", "amount"],
        }
    },
}

FLAWS: list[tuple[Any, str]] = [
    (
        {"lines": [{"item": "a", "amount": 0}], "note": None},
        "answer.lines[0].amount is 0, and must be at least 1",
    ),
    ({"lines": [{"item": "a"}], "note": None}, "answer.lines[0] lacks 'amount'"),
    ({"lines": [], "note": None}, "answer.lines has 0 elements, and must have at least 1"),
    ({"lines": [{"item": "a", "amount": 1}], "note": None, "x": 1}, "answer.x is not allowed"),
    ({"lines": [{"item": "a", "amount": True}], "note": None}, "must be of type integer"),
    ({"lines": [{"item": "a", "amount": 1}], "note": "123456"}, "answer.note has 6 characters"),
    ([], "answer is an array, and must be of type object"),
]

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.5, 1.0, -2.0])
    | st.text("ab1", max_size=3)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
NUMBER = st.integers(-3, 3)
COUNT = st.integers(0, 3)
NAMES = st.lists(st.sampled_from("abc"), max_size=2, unique=True)
PATTERN = st.sampled_from(["^a", "b$", "[ab]{2}", "^(a|b)?1$"])


def _keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.lists(inner, min_size=1, max_size=2)
    named = st.dictionaries(st.sampled_from("abc"), inner, max_size=2)
    types = st.sampled_from(["string", "number", "integer", "boolean", "object", "array", "null"])
    return st.fixed_dictionaries(
        {},
        optional={
            "type": types | st.lists(types, min_size=1, max_size=2, unique=True),
            "enum": st.lists(VALUES, min_size=1, max_size=3),
            "const": VALUES,
            "properties": named,
            "patternProperties": st.dictionaries(PATTERN, inner, max_size=1),
            "additionalProperties": inner,
            "propertyNames": inner,
            "required": NAMES,
            "dependentRequired": st.dictionaries(st.sampled_from("abc"), NAMES, max_size=1),
            "dependentSchemas": named,
            "prefixItems": some,
            "items": inner,
            "contains": inner,
            "minContains": COUNT,
            "maxContains": COUNT,
            "uniqueItems": st.booleans(),
            **{f"{end}{what}": COUNT for end in ("min", "max") for what in ("Length", "Items", "Properties")},
            **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), NUMBER),
            "multipleOf": st.sampled_from([1, 2, 0.5]),
            "pattern": PATTERN,
            "allOf": some,
            "anyOf": some,
            "oneOf": some,
            "not": inner,
            "if": inner,
            "then": inner,
            "else": inner,
            "$ref": st.just("#/$defs/d"),
        },
    )


SCHEMAS = st.recursive(st.booleans() | _keywords(st.booleans()), _keywords, max_leaves=6)


def flaw(schema: Any, value: Any) -> str | None:
    check_schema(schema)
    found = Check(schema, 100_000).flaw(value, "answer")
    return None if found is None else f"{found.path} {found.why}"


@pytest.mark.parametrize(("value", "said"), FLAWS)
def test_it_says_where_and_what_is_wrong(value: Any, said: str) -> None:
    assert said in str(flaw(ORDER, value))


def test_what_fits_has_no_flaw() -> None:
    assert flaw(ORDER, {"lines": [{"item": "a", "amount": 2.0}], "note": "12345"}) is None


@settings(max_examples=50)
@given(schema=_keywords(SCHEMAS), named=SCHEMAS, value=VALUES)
def test_it_judges_as_another_reading_of_the_standard_does(schema: Any, named: Any, value: Any) -> None:
    whole = {**schema, "$defs": {"d": {"type": ["object", "string", "null"]} if _refers(named) else named}}
    fits = jsonschema.Draft202012Validator(whole).is_valid(value)
    assert (flaw(whole, value) is None) is fits


def _refers(schema: Any) -> bool:
    return "$ref" in repr(schema)


def test_the_spellings_of_draft_7_are_read_too() -> None:
    schema = {
        "items": [{"type": "string"}, {"type": "number"}],
        "additionalItems": {"type": "null"},
        "definitions": {"x": {"type": "string"}},
        "dependencies": {"a": ["b"], "c": {"required": ["d"]}},
        "properties": {"x": {"$ref": "#/definitions/x"}},
    }
    assert flaw(schema, ["a", 1, None]) is None
    assert flaw(schema, [1]) == "answer[0] is 1, and must be of type string"
    assert flaw(schema, ["a", 1, 2]) == "answer[2] is 2, and must be of type null"
    assert "answer lacks 'b', which goes with 'a'" in str(flaw(schema, {"a": 1}))
    assert flaw(schema, {"c": 1}) == "answer lacks 'd'"
    assert flaw(schema, {"x": 1}) == "answer.x is 1, and must be of type string"


def test_a_schema_may_refer_to_itself() -> None:
    tree = {"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}}
    assert flaw(tree, {"left": {"right": {}}}) is None
    assert flaw(tree, {"left": {"right": 1}}) == "answer.left.right is 1, and must be of type object"


NO_SCHEMAS: list[tuple[Any, str]] = [
    ("string", "schema"),
    ({"type": "text"}, "schema.type"),
    ({"properties": {"a": []}}, "schema.properties.a"),
    ({"properties": {"a": {"minimum": "1"}}}, "schema.properties.a.minimum"),
    ({"anyOf": []}, "schema.anyOf"),
    ({"anyOf": [{}, {"required": "a"}]}, "schema.anyOf[1].required"),
    ({"items": {"pattern": "("}}, "schema.items.pattern"),
    ({"items": {"pattern": "(a+)+$"}}, "schema.items.pattern"),
    ({"patternProperties": {"(a+)+$": True}}, "schema.patternProperties.(a+)+$"),
    ({"$ref": "https://example.org/schema.json"}, "schema.$ref"),
    ({"$ref": "other.json#/x"}, "schema.$ref"),
    ({"$ref": "#/$defs/missing"}, "schema.$ref"),
    ({"$ref": "#/x", "x": {"type": 1}}, "schema.x.type"),
    ({"$ref": "#name", "$defs": {"a": {"$anchor": "name"}}}, "schema.$ref"),
    ({"unevaluatedProperties": False}, "schema.unevaluatedProperties"),
    ({"properties": {"a": {"$id": "https://example.org/a"}}}, "schema.properties.a.$id"),
    ({"multipleOf": 0}, "schema.multipleOf"),
    ({"minLength": -1}, "schema.minLength"),
    ({"enum": "ab"}, "schema.enum"),
    ({"uniqueItems": 1}, "schema.uniqueItems"),
    ({"x": object()}, "schema"),
    ({"x": "x" * SCHEMA_BYTES}, "schema"),
    ({"anyOf": [{"type": "string"} for _ in range(6_000)]}, "schema"),
]


@pytest.mark.parametrize(("schema", "field"), NO_SCHEMAS)
def test_what_cannot_be_checked_is_refused_by_its_path(schema: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_schema(schema)
    assert refused.value.field == field


def test_the_path_begins_as_the_request_names_it() -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_schema({"type": "text"}, "text.format.schema")
    assert refused.value.field == "text.format.schema.type"
    assert refused.value.message.startswith("text.format.schema.type is none of string, number")


def test_a_deep_schema_is_refused_and_not_a_crash() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"not": deep}
    with pytest.raises(InvalidRequest, match="too large"):
        check_schema(deep)
    for _ in range(100_000):
        deep = {"not": deep}
    with pytest.raises(InvalidRequest):
        check_schema(deep)


def test_schemas_that_would_take_for_ever_are_given_up() -> None:
    branching = {"properties": {"a": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}}, "required": ["a"]}
    value: Any = {}
    for _ in range(30):
        value = {"a": value}
    doubling: dict[str, Any] = {"$defs": {"0": {"not": {}}}}
    for number in range(1, 40):
        ref = {"$ref": f"#/$defs/{number - 1}"}
        doubling["$defs"][str(number)] = {"anyOf": [ref, ref]}
    loop = {"$ref": "#"}
    long_list = {"contains": {"enum": list(range(2_000))}}
    for schema, one in (
        (branching, value),
        ({**doubling, "$ref": "#/$defs/39"}, 1),
        (loop, 1),
        (long_list, [-1] * 100_000),
    ):
        check_schema(schema)
        before = time.perf_counter()
        with pytest.raises(TooMuch):
            Check(schema, 100_000).flaw(one, "answer")
        assert time.perf_counter() - before < 2.0


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("date", "2026-02-28", "2026-02-30"),
        ("time", "12:30:00Z", "25:00:00Z"),
        ("date-time", "2026-02-28T12:30:00.5+02:00", "2026-02-28 12:30"),
        ("duration", "P1DT2H", "P"),
        ("email", "ada@example.org", "ada@"),
        ("hostname", "a-b.example", "-a.example"),
        ("ipv4", "192.0.2.1", "192.0.2.256"),
        ("ipv6", "2001:db8::1", "2001:db8:::1"),
        ("uuid", "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "3f2504e0"),
        ("uri", "https://example.org/a?b", "no uri"),
        ("something-else", "any", ""),
    ],
)
def test_formats(name: str, good: str, bad: str) -> None:
    assert has_format(good, name)
    assert has_format(bad, name) is (name == "something-else")


KEYWORD = st.sampled_from(
    [*_KEYWORDS, "unevaluatedItems", "$id", "title", "#", "a"],
)
ODD = st.recursive(
    VALUES | st.sampled_from(["#", "#/a", "#/items/0", "#/%", "string", "^a", "date", 1e300, -(10**30)]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYWORD, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200)
@given(schema=ODD, value=ODD)
def test_whatever_is_sent_as_a_schema_is_taken_or_refused(schema: Any, value: Any) -> None:
    with contextlib.suppress(InvalidRequest, TooMuch):
        check_schema(schema)
        found = Check(schema, 10_000).flaw(value, "answer")
        assert found is None or (found.path.startswith("answer") and found.why)
