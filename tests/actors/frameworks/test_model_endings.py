"""How model calls ended, heard at the `openai` client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseCreatedEvent, ResponseIncompleteEvent
from openai.types.responses.response import IncompleteDetails

from greenroom.actors.frameworks.model_endings import with_ending
from greenroom.actors.frameworks.model_requests import prepare
from greenroom.actors.messages import SessionKey
from greenroom.actors.scope import TurnScope, current_turn
from kits.scripted_model import ScriptedModel
from kits.scripted_model_script import Finish, Say

CUT: list[Any] = [("length", "max_output_tokens"), ("content_filter", "content_filter"), ("stop", None)]


@pytest.fixture
def scope() -> Iterator[TurnScope]:
    prepare()
    scope = TurnScope(SessionKey("u", "s"), "t")
    token = current_turn.set(scope)
    yield scope
    current_turn.reset(token)


async def chat(base_url: str, stream: bool) -> str:
    """What a model says."""
    messages: Any = [{"role": "user", "content": "Hi"}]
    async with openai.AsyncOpenAI(api_key="any", base_url=base_url, max_retries=0) as client:
        if not stream:
            whole = await client.chat.completions.create(model="m", messages=messages)
            return whole.choices[0].message.content or ""
        said = ""
        async with await client.chat.completions.create(model="m", messages=messages, stream=True) as pieces:
            async for piece in pieces:
                said += "".join(choice.delta.content or "" for choice in piece.choices)
        return said


@pytest.mark.parametrize("stream", [False, True])
async def test_the_last_call_counts(scope: TurnScope, stream: bool) -> None:
    for finish, cut in [*CUT, *reversed(CUT)]:
        async with ScriptedModel([[Say("well"), Finish(finish)]]) as model:
            assert await chat(model.base_url, stream) == "well"
        assert scope.cut == cut


async def test_a_call_that_began_is_the_last(scope: TurnScope) -> None:
    scope.cut = "content_filter"
    async with ScriptedModel([[Say("well"), Finish("length")]]) as model:
        messages: Any = [{"role": "user", "content": "Hi"}]
        async with openai.AsyncOpenAI(api_key="any", base_url=model.base_url, max_retries=0) as client:
            stream = await client.chat.completions.create(model="m", messages=messages, stream=True)
            assert scope.cut is None
            await anext(stream)
            await stream.close()
    assert scope.cut is None, "nobody heard its end"


async def test_outside_of_turns_nobody_listens() -> None:
    prepare()
    async with ScriptedModel([[Say("well"), Finish("length")]]) as model:
        assert await chat(model.base_url, stream=True) == "well"


async def test_the_responses_api_says_it_in_its_own_words(scope: TurnScope) -> None:
    details = IncompleteDetails(reason="content_filter")
    whole = Response.model_construct(incomplete_details=details)
    events = [
        ResponseCreatedEvent.model_construct(type="response.created"),
        ResponseIncompleteEvent.model_construct(type="response.incomplete", response=whole),
    ]
    stream: Any = object.__new__(openai.AsyncStream)
    stream._cast_to, stream._iterator = object, all_of(events)
    for answer in (whole, Response.model_construct(incomplete_details=None), stream):
        heard = await with_ending(answering(answer))(None)
        assert heard is answer
        if answer is stream:
            assert [event async for event in stream] == events
        assert scope.cut == ("content_filter" if answer in (whole, stream) else None)


async def all_of(events: list[Any]) -> AsyncIterator[Any]:
    for event in events:
        yield event


def answering(answer: Any) -> Callable[..., Awaitable[Any]]:
    """A client's `request` that has this answer."""

    async def request(client: Any) -> Any:
        return answer

    return request
