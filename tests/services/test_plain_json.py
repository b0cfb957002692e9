"""What can be stored as JSON, and how what cannot is named."""

import datetime as dt
import enum
from typing import Any

import pytest
from hypothesis import given

from greenroom.actors.errors import HandlerError
from greenroom.actors.messages import Message
from greenroom.services.plain_json import DEEPEST, decode, encode
from kits.state_kit import JSON


class Colour(enum.StrEnum):
    RED = "red"


class Name(str):
    __slots__ = ()


class Count(int):
    pass


class Share(float):
    pass


@given(value=JSON)
def test_json_goes_through(value: object) -> None:
    assert decode(encode(value, "value")) == value


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (Colour.RED, "red"),
        ([Name("x"), Count(3), Share(0.5)], ["x", 3, 0.5]),
        ({"a": ((1,),)}, {"a": [[1]]}),
        (2**70, 2**70),
    ],
)
def test_what_has_a_json_form_is_stored_in_it(value: object, read: object) -> None:
    assert decode(encode(value, "value")) == read


@pytest.mark.parametrize(
    ("value", "path", "why"),
    [
        ({"a": [1, {"b": {1}}]}, "state.a[1].b", "a set"),
        ({"a b": b""}, "state['a b']", "a bytes"),
        ({"a": dt.date(2026, 1, 1)}, "state.a", "a date"),
        ({"a": float("-inf")}, "state.a", "is -inf"),
        ({"a": {None: 1}}, "state.a", "the key None"),
        ({"\ud800": 1}, "state", "the key"),
        (["\ud800"], "state[0]", "surrogate"),
        ({"m": Message(metadata={"x": 1j})}, "state.m.metadata.x", "a complex"),
    ],
)
def test_what_has_none_is_named(value: object, path: str, why: str) -> None:
    with pytest.raises(HandlerError, match=why) as refused:
        encode(value, "state")
    assert refused.value.field == path


def test_nesting_has_a_bound() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(HandlerError, match=f"more than {DEEPEST} levels"):
        encode(deep, "state")
    while deep:
        deep = deep.pop()
