"""Tool functions are described once, and anew when what a description depends on has changed."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest

from greenroom.actors.frameworks.tool_descriptions import REMEMBERED, described_once


def of_module(place: str, days: int = 3) -> str:
    """Tell the weather."""
    return place * days


def with_list(places: list[str] = []) -> str:  # noqa: B006 - what this is about
    """Tell the weather there."""
    return "".join(places)


class Describer:
    """Describes functions, and knows how often it did."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, function: Callable[..., Any], long: bool = False) -> dict[str, Any]:
        self.asked += 1
        return {"name": function.__name__, "about": [function.__doc__, function.__defaults__], "long": long}

    def method(self, place: str) -> str:
        """Tell more of the weather."""
        return f"{self.asked} {place}"

    @classmethod
    def of_class(cls) -> str:
        """Tell of the weather as such."""
        return cls.__name__


@pytest.fixture
def describer() -> Describer:
    return Describer()


def test_once_a_function_and_arguments_and_what_is_given_is_the_callers(describer: Describer) -> None:
    describe = described_once(describer)
    assert described_once(describe) is describe
    first = describe(of_module)
    assert first == describer(of_module)
    first["about"].clear()
    assert describe(of_module) == describer(of_module)
    assert describe(of_module, long=True)["long"]
    assert not describe(of_module)["long"]
    assert describer.asked == 2 + 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("__doc__", "Tell tomorrow's weather."),
        ("__defaults__", (5,)),
        ("__name__", "weather"),
        ("__annotations__", {"place": str, "days": float, "return": str}),
        ("__code__", (lambda place, days: place).__code__),
        ("__signature__", "of something else"),
    ],
)
def test_a_changed_function_is_described_anew(
    monkeypatch: pytest.MonkeyPatch, describer: Describer, name: str, value: object
) -> None:
    describe = described_once(describer)
    describe(of_module)
    with monkeypatch.context() as changing:
        changing.setattr(of_module, name, value, raising=False)
        before = describer.asked
        assert describe(of_module) == describer(of_module)
        assert describe(of_module) == describe(of_module)
        assert describer.asked == before + 2
    assert describe(of_module)["about"] == ["Tell the weather.", (3,)]


def test_nothing_of_a_turns_own_is_remembered(describer: Describer) -> None:
    describe = described_once(describer)

    def local() -> None:
        """Of one turn."""

    @wraps(of_module)  # it takes the name of what it wraps, and is not that
    def wrapper(*args: Any) -> Any:
        return args

    for function in (local, wrapper, Describer.of_class):
        asked = describer.asked
        describe(function)
        describe(function)
        assert describer.asked == asked + 2
    gone = weakref.ref(wrapper), weakref.ref(local)
    del local, wrapper, function
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_defaults_that_may_change_in_place_are_looked_at_each_time(describer: Describer) -> None:
    describe = described_once(describer)
    describe(with_list)
    describe(with_list)
    assert describer.asked == 2


def test_a_method_is_described_once_for_all_objects_and_keeps_none_alive(describer: Describer) -> None:
    describe = described_once(describer)
    owner = Describer()
    assert describe(owner.method) == describer(owner.method)
    assert describer.asked == 2
    gone = weakref.ref(owner)
    del owner
    assert gone() is None
    describe(Describer().method)
    assert describer.asked == 2
    describe(Describer.method)  # by itself it has a parameter more
    assert describer.asked == 3


def test_what_is_remembered_is_bounded(describer: Describer) -> None:
    describe = described_once(describer)
    for number in range(REMEMBERED + 1):
        describe(of_module, number)
    describe(of_module, REMEMBERED)
    assert describer.asked == REMEMBERED + 1
    describe(of_module, 0)
    assert describer.asked == REMEMBERED + 2
