"""Requests of the `openai` client in turns: what is sent is what was sent before, with less ado."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, get_args

import msgspec
import openai
import pytest
from openai import NOT_GIVEN, Omit
from openai.types.chat.completion_create_params import CompletionCreateParams
from typing_extensions import TypedDict

from greenroom.actors.frameworks.model_requests import (
    changes_nothing,
    is_plain,
    on_known_platform,
    plain_as_it_is,
    prepare,
)
from greenroom.actors.messages import SessionKey
from greenroom.actors.scope import TurnScope, current_turn
from kits.scripted_model import ScriptedModel
from kits.scripted_model_script import Say


class Renamed(TypedDict):
    """A body in which something is renamed."""

    inner: list[dict[str, Annotated[str, "renamed"]]]


class Chat(TypedDict, total=False):
    """A body in which nothing is."""

    messages: list[Chat]
    text: str | None


class Transform:
    """Stands where openai's is; tells what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def __call__(self, data: Any, expected_type: Any) -> Any:
        self.asked.append(data)
        return "transformed"


@pytest.fixture
def turn() -> Iterator[None]:
    token = current_turn.set(TurnScope(SessionKey("u", "s"), "t"))
    yield
    current_turn.reset(token)


PLAIN = {"messages": [{"text": "Hi"}, {"text": None}, {"n": [1, 2.5, True]}]}


class Text(str):
    """Somebody's own text."""

    __slots__ = ()


@pytest.mark.usefixtures("turn")
async def test_a_plain_body_is_left_as_it_is() -> None:
    transform = Transform()
    as_it_is = plain_as_it_is(transform)
    assert await as_it_is({**PLAIN, "tools": Omit(), "user": NOT_GIVEN}, Chat) == PLAIN
    assert transform.asked == []
    bodies: tuple[Any, ...] = (
        {"text": Text("Hi")},
        {"messages": ({},)},
        {"messages": [{"text": NOT_GIVEN}]},
        [PLAIN],
    )
    for body in bodies:
        assert await as_it_is(body, Chat) == "transformed"
    assert await as_it_is(PLAIN, Renamed) == "transformed"
    assert len(transform.asked) == 5


async def test_outside_of_turns_all_is_as_ever() -> None:
    assert await plain_as_it_is(Transform())(PLAIN, Chat) == "transformed"


def test_what_is_plain() -> None:
    assert is_plain(PLAIN)
    assert not any(map(is_plain, (b"", object(), (1,), {"a": {1}}, Text(""), [NOT_GIVEN])))


def test_the_types_of_a_chat_change_nothing() -> None:
    assert all(map(changes_nothing, get_args(CompletionCreateParams)))
    assert changes_nothing(Chat)
    assert not changes_nothing(Renamed)


async def sent(model: ScriptedModel, **more: Any) -> Any:
    """What a model got of a request with nearly everything in it."""
    tool: Any = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
    }
    said: Any = {"role": "user", "content": [{"type": "text", "text": "Hi"}]}
    async with openai.AsyncOpenAI(base_url=model.base_url, api_key="any", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="m",
            messages=[said],
            tools=[tool],
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"mine": 1},
            **more,
        )
        async for _ in stream:
            pass
    return msgspec.json.decode(msgspec.json.encode(model.requests[-1]))


async def test_a_model_gets_the_same_in_a_turn() -> None:
    prepare()
    wrapped = openai.AsyncOpenAI.request
    prepare()
    assert openai.AsyncOpenAI.request is wrapped
    async with ScriptedModel([Say("one"), Say("two")]) as model:
        elsewhere = await sent(model, temperature=0.5)
        token = current_turn.set(TurnScope(SessionKey("u", "s"), "t"))
        try:
            assert await sent(model, temperature=0.5) == elsewhere
        finally:
            current_turn.reset(token)


class Client:
    """Stands where openai's client is."""

    def __init__(self, platform: str | None = None) -> None:
        self._platform = platform

    async def request(self, what: str, *, stream: bool) -> tuple[str | None, str, bool]:
        return self._platform, what, stream


async def test_a_client_need_not_ask_where_it_runs() -> None:
    request = on_known_platform(Client.request, "Here")
    assert await request(Client(), "what", stream=True) == (None, "what", True)
    token = current_turn.set(TurnScope(SessionKey("u", "s"), "t"))
    try:
        assert await request(Client(), "what", stream=True) == ("Here", "what", True)
        assert await request(Client("There"), "what", stream=False) == ("There", "what", False)
    finally:
        current_turn.reset(token)
