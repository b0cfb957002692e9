"""openai-python and handlers without a framework: how their tools are shown, and what they cannot be asked for."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest

from greenroom import (
    AgentApp,
    AgentRequest,
    InMemoryStore,
    ItemDone,
    ItemStarted,
    Message,
    PartDone,
    Session,
    Text,
    TextDelta,
    ToolCall,
    ToolOutput,
)
from kits.http_client import served
from kits.sdk_clients import Wire, sdk

QUESTION = "What does the sun do?"


def thinker(**options: Any) -> AgentApp:
    """Thinks, uses a tool of its own, and answers."""
    app = AgentApp("Thinker", **options)

    @app.query(framework="events")
    async def think(msgs: list[Message]) -> AsyncIterator[Any]:
        yield ItemStarted("r", "reasoning")
        for word in ("Let ", "me ", "see."):
            yield TextDelta(word, "r")
        yield ItemDone("r")
        for event in (*called("look_up", '{"word": "sun"}'), *gave_back("look_up", "It shines.")):
            yield event
        yield TextDelta("The sun ")
        yield TextDelta("shines.")

    return app


def called(name: str, arguments: str) -> list[Any]:
    """The events of a call."""
    call = ToolCall("call-1", name, arguments)
    return [
        ItemStarted("c", "tool_call", call_id=call.call_id, name=name),
        PartDone(call, "c"),
        ItemDone("c"),
    ]


def gave_back(name: str, text: str) -> list[Any]:
    """The events of its output."""
    output = ToolOutput("call-1", name, (Text(text),))
    started = ItemStarted("o", "tool_output", role="tool", call_id=output.call_id, name=name)
    return [started, PartDone(output, "o"), ItemDone("o")]


def listener(**options: Any) -> AgentApp:
    """Says all that the user said so far."""
    app = AgentApp("Listener", **options)

    @app.query()
    async def listen(request: AgentRequest, session: Session) -> str:
        turns = [turn.input for turn in await session.history() if turn.status == "completed"]
        return ", ".join(map(words, [*turns, request.input]))

    return app


def words(messages: tuple[Message, ...]) -> str:
    return " ".join(part.text for message in messages for part in message.content if isinstance(part, Text))


@asynccontextmanager
async def asking(app: AgentApp, wire: Wire, **options: Any) -> AsyncIterator[Any]:
    """The application served with these settings of the server, and a client."""
    async with served(app, **options) as http, sdk(http.url, wire) as client:
        yield client


# -- how tools are shown -----------------------------------------------------------------------------------------------

DISPLAYS = {
    "mcp_call": ["reasoning", "mcp_call", "message"],
    "function_call": ["reasoning", "function_call", "function_call_output", "message"],
    "hidden": ["reasoning", "message"],
}


@pytest.mark.parametrize("display", DISPLAYS)
async def test_the_handlers_own_tool_is_shown_as_the_server_is_set(wire: Wire, display: str) -> None:
    async with asking(thinker(), wire, tool_display=display) as client:
        whole = await client.responses.create(model="m", input=QUESTION)
        assert [item.type for item in whole.output] == DISPLAYS[display]
        assert whole.response["output"][0]["content"][0]["text"] == whole.output_text == "The sun shines."
        stream = await client.responses.create(model="m", input=QUESTION, stream=True)
        final = [event async for event in stream][-1].response
        assert [item.type for item in final.output] == DISPLAYS[display]
        async with client.responses.stream(model="m", input=QUESTION) as helper:
            assert (await helper.get_final_response()).output_text == "The sun shines."


@pytest.mark.parametrize("display", DISPLAYS)
async def test_all_that_is_shown_is_taken_back(wire: Wire, display: str) -> None:
    async with asking(thinker(), wire, tool_display=display) as client:
        first = await client.responses.create(model="m", input=QUESTION, store=False)
        handed = [{"role": "user", "content": QUESTION}, *first.output, {"role": "user", "content": "Sure?"}]
        second = await client.responses.create(model="m", input=handed, store=False)
        assert second.output_text == "The sun shines."


async def test_without_the_tutorials_key(wire: Wire) -> None:
    async with asking(thinker(), wire, tutorial_key=False) as client:
        response = await client.responses.create(model="m", input=QUESTION)
        assert not hasattr(response, "response")


async def test_what_was_said_twice_is_listed_to_the_end(wire: Wire) -> None:
    user = {"role": "user", "content": QUESTION}
    async with asking(thinker(), wire) as client:
        first = await client.responses.create(model="m", input=QUESTION, conversation="c")
        handed = [user, *first.output, user]
        second = await client.responses.create(model="m", input=[*handed, *handed], conversation="c")
        asked = [item.id async for item in client.responses.input_items.list(second.id, limit=1)]
        listed = [item.id async for item in client.conversations.items.list("c", limit=1)]
    assert len(set(asked)) == len(asked) == 2 * len(handed)
    assert len(set(listed)) == len(listed) == 1 + len(first.output) + len(asked) + len(second.output)


# -- what a handler cannot be asked for --------------------------------------------------------------------------------

CLOCK = {"type": "function", "name": "clock", "parameters": {"type": "object", "properties": {}}}


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"tools": [CLOCK]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"max_output_tokens": 100}, "max_output_tokens"),
    ],
    ids=["tools", "tool_choice", "max_output_tokens"],
)
async def test_what_a_plain_handler_cannot_do_is_refused_by_name(
    wire: Wire, options: dict[str, Any], param: str
) -> None:
    async with asking(listener(), wire) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model="m", input="hello", **options)
        assert caught.value.param == param


async def test_a_handler_that_runs_the_clients_tools_itself_is_given_them(wire: Wire) -> None:
    app = AgentApp("Caller")

    @app.query(framework="events", honours={"tools"})
    async def call(msgs: list[Message], session: Session) -> AsyncIterator[Any]:
        outputs = [part for message in msgs for part in message.content if isinstance(part, ToolOutput)]
        if outputs or msgs[-1].type == "function_call_output":
            yield TextDelta("Thanks.")
            return
        (tool,) = session.options.tools
        for event in called(tool.name, "{}"):
            yield event

    async with asking(app, wire) as client:
        first = await client.responses.create(model="m", input="time?", tools=[CLOCK])
        (asked,) = first.output
        assert (asked.type, asked.name, json.loads(asked.arguments)) == ("function_call", "clock", {})
        told = {"type": "function_call_output", "call_id": asked.call_id, "output": "noon"}
        second = await client.responses.create(
            model="m", input=[told], tools=[CLOCK], previous_response_id=first.id
        )
        assert second.output_text == "Thanks."


async def test_a_plain_handler_is_continued_and_forked(wire: Wire) -> None:
    async with asking(listener(), wire) as client:
        create = client.responses.create
        one = await create(model="m", input="one")
        two = await create(model="m", input="two", previous_response_id=one.id)
        fork = await create(model="m", input="fork", previous_response_id=one.id)
        three = await create(model="m", input="three", previous_response_id=two.id)
        assert [made.output_text for made in (two, fork, three)] == [
            "one, two",
            "one, fork",
            "one, two, three",
        ]


async def test_a_response_older_than_the_states_that_are_kept_is_not_continued(wire: Wire) -> None:
    async with asking(listener(state=InMemoryStore(states_kept=2)), wire) as client:
        made = [await client.responses.create(model="m", input=word, conversation="c") for word in "0123"]
        fork = await client.responses.create(model="m", input="fork", previous_response_id=made[2].id)
        assert fork.output_text == "0, 1, 2, fork"
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model="m", input="late", previous_response_id=made[0].id)
        assert caught.value.code == "previous_response_not_found"


# -- callers -----------------------------------------------------------------------------------------------------------


def by_key(headers: Mapping[str, str]) -> str | None:
    """The API key is the user's name, and one nobody has."""
    name = headers.get("Authorization", "").removeprefix("Bearer ")
    return None if name == "nobody" else name


async def test_a_wrong_key_is_turned_away(wire: Wire) -> None:
    async with asking(listener(authenticate=by_key), wire) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.with_options(api_key="nobody").responses.create(model="m", input="hello")
        assert caught.value.code == "invalid_api_key"
        assert len(wire.answers) == 1


async def test_nobody_reaches_anothers_responses(wire: Wire) -> None:
    async with asking(listener(authenticate=by_key), wire) as client:
        ada, ben = client.with_options(api_key="ada"), client.with_options(api_key="ben")
        conversation = (await ada.conversations.create()).id
        made = await ada.responses.create(model="m", input="mine", conversation=conversation)
        assert (await ada.responses.retrieve(made.id)).output_text == "mine"
        for reach in (
            ben.responses.retrieve(made.id),
            ben.responses.retrieve(made.id, stream=True),
            ben.responses.cancel(made.id),
            ben.responses.delete(made.id),
            ben.responses.input_items.list(made.id),
            ben.conversations.retrieve(conversation),
            ben.conversations.delete(conversation),
        ):
            with pytest.raises(openai.NotFoundError):
                await reach
        with pytest.raises(openai.APIStatusError) as caught:
            await ben.responses.create(model="m", input="more", previous_response_id=made.id)
        assert caught.value.code == "previous_response_not_found"
        guessed = await ben.responses.create(model="m", input="more", conversation=conversation)
        assert guessed.output_text == "more", "the same id is another's own conversation"
        assert (
            await ada.responses.create(model="m", input="2", conversation=conversation)
        ).output_text == "mine, 2"


# -- sizes -------------------------------------------------------------------------------------------------------------


async def test_a_picture_of_some_megabytes(wire: Wire) -> None:
    app = AgentApp("Viewer")

    @app.query()
    async def view(request: AgentRequest) -> str:
        (picture,) = request.input[0].content[1:]
        return f"{len(picture.image_url)}"  # type: ignore[union-attr]

    url = "data:image/png;base64," + base64.b64encode(bytes(3_000_000)).decode()
    parts = [{"type": "input_text", "text": "?"}, {"type": "input_image", "image_url": url, "detail": "auto"}]
    async with asking(app, wire) as client:
        response = await client.responses.create(model="m", input=[{"role": "user", "content": parts}])
        assert response.output_text == str(len(url))


async def test_a_body_over_the_bound_is_refused_in_the_apis_form(wire: Wire) -> None:
    async with asking(listener(), wire, compatible_body_bytes=10_000) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.responses.create(model="m", input="x" * 20_000)
        assert caught.value.status_code == 413
        assert len(wire.answers) == 1
