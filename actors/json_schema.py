"""Checking JSON against a JSON schema that a caller sent: draft 2020-12, and 7 where they differ in spelling only.

It interprets: no code is made of a caller's words, nothing is fetched, and what a check costs is counted and bounded.
`json_schema_form` says which schemas are taken; this module expects them to have been looked at.

No library was found that does so within the core's bounds. jsonschema-rs (0.61) can be neither counted nor stopped,
holds Python's lock for a time that doubles with every `$ref` of a hostile schema, and takes 15 MB. jsonschema brings
four distributions, and Python's matcher for the patterns of callers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import unquote

from greenroom.actors.json_patterns import read_pattern
from greenroom.actors.json_schema_plain import PLAIN_RULES, listed
from greenroom.actors.json_values import canonical, same, shown

DEEPEST = 120
"""Schemas within schemas, or values within values, that are looked into: Python's stack has room for some more."""


class TooMuch(Exception):
    """The check was given up: it takes more steps than it may, or goes too deep."""


class Flaw(NamedTuple):
    """Where a value is not as its schema says, and why: a phrase that follows the path."""

    path: str
    why: str


class At(NamedTuple):
    """A value on its way through a schema. `level`: how many schemas it came through."""

    value: Any
    path: str
    level: int
    schema: Mapping[str, Any]


class Check:
    """Looks for the first flaw, in at most so many `steps`."""

    __slots__ = ("_root", "_steps", "_targets")

    def __init__(self, root: Any, steps: int) -> None:
        self._root = root
        self._steps = steps
        self._targets: dict[str, Any] = {}

    def flaw(self, value: Any, name: str) -> Flaw | None:
        """The first flaw of `value`, which is called `name`. Raises `TooMuch`."""
        return self.look(self._root, value, name, 0)

    def look(self, schema: Any, value: Any, path: str, level: int) -> Flaw | None:
        """The first flaw of a value within."""
        if level > DEEPEST:
            raise TooMuch
        if not isinstance(schema, dict):
            return None if schema else Flaw(path, "is not allowed")
        self.spend(1 + len(schema))
        at = At(value, path, level + 1, schema)
        for keyword, wanted in schema.items():
            plain = PLAIN_RULES.get(keyword)
            why = plain(wanted, value) if plain is not None else None
            if why is not None:
                return Flaw(path, why)
            rule = RULES.get(keyword)
            flaw = rule(self, wanted, at) if rule is not None else None
            if flaw is not None:
                return flaw
        return None

    def spend(self, steps: int) -> None:
        """Count what is done. Raises `TooMuch`."""
        self._steps -= steps
        if self._steps < 0:
            raise TooMuch

    def target(self, ref: str) -> Any:
        """The schema that a `$ref` names."""
        if ref not in self._targets:
            self._targets[ref] = resolve(self._root, ref)
        return self._targets[ref]


def resolve(root: Any, ref: str) -> Any:
    """What a `$ref` in the schema names. Raises `LookupError` for one that names nothing, or something elsewhere."""
    if not ref.startswith("#"):
        raise LookupError(ref)
    found = root
    for step in unquote(ref[1:]).split("/")[1:] if ref != "#" else ():
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found[name]
        elif isinstance(found, list) and name.isdecimal():
            found = found[int(name)]
        else:
            raise LookupError(ref)
    if ref != "#" and not ref.startswith("#/"):
        raise LookupError(ref)
    return found


Rule: TypeAlias = Callable[[Check, Any, At], Flaw | None]
RULES: dict[str, Rule] = {}
"""The keywords that look further. Those that look at the value alone are `PLAIN_RULES`."""


def rule(keyword: str) -> Callable[[Rule], Rule]:
    """Make a function the rule of a keyword."""

    def register(function: Rule) -> Rule:
        RULES[keyword] = function
        return function

    return register


# -- any value ---------------------------------------------------------------------------------------------------------


@rule("enum")
def _enum(check: Check, wanted: Sequence[Any], at: At) -> Flaw | None:
    check.spend(len(wanted))
    if any(same(at.value, one) for one in wanted):
        return None
    return Flaw(at.path, f"is {shown(at.value)}, and must be one of {listed(wanted)}")


# -- objects -----------------------------------------------------------------------------------------------------------


@rule("properties")
def _properties(check: Check, wanted: Mapping[str, Any], at: At) -> Flaw | None:
    if not isinstance(at.value, dict):
        return None
    check.spend(len(wanted))
    for name, schema in wanted.items():
        if name in at.value:
            flaw = check.look(schema, at.value[name], f"{at.path}.{name}", at.level)
            if flaw is not None:
                return flaw
    return None


@rule("patternProperties")
def _pattern_properties(check: Check, wanted: Mapping[str, Any], at: At) -> Flaw | None:
    for pattern, schema in wanted.items() if isinstance(at.value, dict) else ():
        for name, value in at.value.items():
            if _fits(check, pattern, name):
                flaw = check.look(schema, value, f"{at.path}.{name}", at.level)
                if flaw is not None:
                    return flaw
    return None


@rule("additionalProperties")
def _additional_properties(check: Check, wanted: Any, at: At) -> Flaw | None:
    if not isinstance(at.value, dict) or wanted is True:
        return None
    known = at.schema.get("properties", {})
    patterns = at.schema.get("patternProperties", {})
    for name, value in at.value.items():
        if name in known or any(_fits(check, pattern, name) for pattern in patterns):
            continue
        flaw = check.look(wanted, value, f"{at.path}.{name}", at.level)
        if flaw is not None:
            return flaw
    return None


@rule("propertyNames")
def _property_names(check: Check, wanted: Any, at: At) -> Flaw | None:
    for name in at.value if isinstance(at.value, dict) else ():
        flaw = check.look(wanted, name, f"{at.path}'s name {shown(name)}", at.level)
        if flaw is not None:
            return flaw
    return None


@rule("required")
def _required(check: Check, wanted: Sequence[str], at: At) -> Flaw | None:
    if not isinstance(at.value, dict):
        return None
    check.spend(len(wanted))
    missing = next((name for name in wanted if name not in at.value), None)
    return None if missing is None else Flaw(at.path, f"lacks {missing!r}")


@rule("dependentRequired")
def _dependent_required(check: Check, wanted: Mapping[str, Sequence[str]], at: At) -> Flaw | None:
    for name, others in wanted.items() if isinstance(at.value, dict) else ():
        flaw = _required(check, others, at) if name in at.value else None
        if flaw is not None:
            return Flaw(flaw.path, f"{flaw.why}, which goes with {name!r}")
    return None


@rule("dependentSchemas")
def _dependent_schemas(check: Check, wanted: Mapping[str, Any], at: At) -> Flaw | None:
    for name, schema in wanted.items() if isinstance(at.value, dict) else ():
        flaw = check.look(schema, at.value, at.path, at.level) if name in at.value else None
        if flaw is not None:
            return flaw
    return None


@rule("dependencies")
def _dependencies(check: Check, wanted: Mapping[str, Any], at: At) -> Flaw | None:
    for name, one in wanted.items():
        by = _dependent_required if isinstance(one, list) else _dependent_schemas
        flaw = by(check, {name: one}, at)
        if flaw is not None:
            return flaw
    return None


# -- arrays ------------------------------------------------------------------------------------------------------------


@rule("prefixItems")
def _prefix_items(check: Check, wanted: Sequence[Any], at: At) -> Flaw | None:
    for index, schema in enumerate(wanted[: len(at.value)] if isinstance(at.value, list) else ()):
        flaw = check.look(schema, at.value[index], f"{at.path}[{index}]", at.level)
        if flaw is not None:
            return flaw
    return None


@rule("items")
def _items(check: Check, wanted: Any, at: At) -> Flaw | None:
    if isinstance(wanted, list):
        return _prefix_items(check, wanted, at)
    return _items_from(check, wanted, at, len(at.schema.get("prefixItems", ())))


@rule("additionalItems")
def _additional_items(check: Check, wanted: Any, at: At) -> Flaw | None:
    first = at.schema.get("items")
    return _items_from(check, wanted, at, len(first)) if isinstance(first, list) else None


def _items_from(check: Check, schema: Any, at: At, start: int) -> Flaw | None:
    for index in range(start, len(at.value)) if isinstance(at.value, list) else ():
        flaw = check.look(schema, at.value[index], f"{at.path}[{index}]", at.level)
        if flaw is not None:
            return flaw
    return None


@rule("contains")
def _contains(check: Check, wanted: Any, at: At) -> Flaw | None:
    if not isinstance(at.value, list):
        return None
    found = sum(check.look(wanted, one, at.path, at.level) is None for one in at.value)
    if found < at.schema.get("minContains", 1) or found > at.schema.get("maxContains", found):
        return Flaw(
            at.path, f"has {found} elements of the kind that it must contain, which are too few or many"
        )
    return None


@rule("uniqueItems")
def _unique_items(check: Check, wanted: bool, at: At) -> Flaw | None:
    if not wanted or not isinstance(at.value, list):
        return None
    check.spend(len(at.value))
    if len({canonical(one) for one in at.value}) < len(at.value):
        return Flaw(at.path, "has an element twice")
    return None


# -- text --------------------------------------------------------------------------------------------------------------


@rule("pattern")
def _pattern(check: Check, wanted: str, at: At) -> Flaw | None:
    if not isinstance(at.value, str):
        return None
    longest = read_pattern(wanted).longest
    if longest is not None and len(at.value) > longest:
        return Flaw(
            at.path, f"has {len(at.value)} characters, and its pattern {wanted!r} is checked up to {longest}"
        )
    if _fits(check, wanted, at.value):
        return None
    return Flaw(at.path, f"is {shown(at.value)}, and must match {wanted!r}")


def _fits(check: Check, pattern: str, text: str) -> bool:
    read = read_pattern(pattern)
    if read.longest is not None and len(text) > read.longest:
        raise TooMuch
    check.spend(1 + len(text) // 64)
    return read.expression.search(text) is not None


# -- schemas of schemas ------------------------------------------------------------------------------------------------


@rule("$ref")
def _ref(check: Check, wanted: str, at: At) -> Flaw | None:
    return check.look(check.target(wanted), at.value, at.path, at.level)


@rule("allOf")
def _all_of(check: Check, wanted: Sequence[Any], at: At) -> Flaw | None:
    flaws = (check.look(schema, at.value, at.path, at.level) for schema in wanted)
    return next((flaw for flaw in flaws if flaw is not None), None)


@rule("anyOf")
def _any_of(check: Check, wanted: Sequence[Any], at: At) -> Flaw | None:
    flaws = []
    for schema in wanted:
        flaw = check.look(schema, at.value, at.path, at.level)
        if flaw is None:
            return None
        flaws.append(flaw)
    deepest = max(flaws, key=lambda flaw: len(flaw.path))  # the one that came furthest is most likely meant
    return Flaw(deepest.path, f"{deepest.why} (or fits another of the {len(wanted)} forms of anyOf)")


@rule("oneOf")
def _one_of(check: Check, wanted: Sequence[Any], at: At) -> Flaw | None:
    fitting = sum(check.look(schema, at.value, at.path, at.level) is None for schema in wanted)
    if fitting == 1:
        return None
    return Flaw(at.path, f"fits {fitting} of the {len(wanted)} forms of oneOf, and must fit one")


@rule("not")
def _not(check: Check, wanted: Any, at: At) -> Flaw | None:
    if check.look(wanted, at.value, at.path, at.level) is not None:
        return None
    return Flaw(at.path, "is of a form that it must not have (`not`)")


@rule("if")
def _if(check: Check, wanted: Any, at: At) -> Flaw | None:
    holds = check.look(wanted, at.value, at.path, at.level) is None
    then = at.schema.get("then" if holds else "else", True)
    return check.look(then, at.value, at.path, at.level)
