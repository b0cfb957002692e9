"""openai-python, unmodified: creating a response in every way it offers, and asking for it again."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from kits.scripted_model_script import CallTool, Gate, Reply, Say, Think, Usage, rules
from kits.sdk_clients import Wire, sdk_now
from kits.stage import Stage

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."

THOUGHTFUL: list[Reply] = [
    [Think("I look it up."), CallTool("get_weather", {"city": "Paris"}, id="c1"), Usage(100, 20, cached=64)],
    [Think("So it is."), Say("It is sunny in Paris."), Usage(130, 4, cached=100, reasoning=3)],
]
"""A model that thinks, calls a tool of the agent's, thinks and answers."""


class Capital(BaseModel):
    country: str
    city: str


FRANCE = '{"country": "France", "city": "Paris"}'


# -- creating ----------------------------------------------------------------------------------------------------------


async def test_create(stage: Stage, client: Any) -> None:
    response = await client.responses.create(model="any_name", input=QUESTION)
    assert response.output_text == ANSWER
    assert (response.object, response.status, response.model) == ("response", "completed", "any_name")
    assert response.id.startswith("resp_")
    (message,) = response.output
    assert (message.type, message.role, message.status) == ("message", "assistant", "completed")
    assert message.id.startswith("msg_")
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens > 0
    assert response.error is None


async def test_the_tutorials_step_7_reads_the_text_off_the_sdks_object(stage: Stage, wire: Wire) -> None:
    def step_7() -> None:
        with sdk_now(stage.process.url, wire) as client:
            resp = client.responses.create(model="any_name", input="Who are you?")
            assert resp.response["output"][0]["content"][0]["text"] == "I'm Friday, a helpful assistant."
            assert resp.output_text == "I'm Friday, a helpful assistant."

    await asyncio.to_thread(step_7)


async def test_step_7_reads_the_answer_also_after_thoughts_and_tools(stage: Stage, client: Any) -> None:
    stage.play(THOUGHTFUL)
    resp = await client.responses.create(model="any_name", input="The weather?")
    assert resp.response["output"][0]["content"][0]["text"] == "It is sunny in Paris."
    assert len(resp.output) > 1
    assert resp.output_text == "It is sunny in Paris."


async def test_input_as_messages_of_parts(stage: Stage, client: Any) -> None:
    pixel = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
    parts = [
        {"type": "input_text", "text": QUESTION},
        {"type": "input_image", "image_url": pixel, "detail": "auto"},
    ]
    response = await client.responses.create(model="m", input=[{"role": "user", "content": parts}])
    assert response.output_text == ANSWER
    assert pixel in json.dumps(stage.model.requests[-1]["messages"])


async def test_a_whole_dialogue_as_input(stage: Stage, client: Any) -> None:
    dialogue = [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Nice to meet you, Ada."},
        {"role": "user", "content": "What is my name?"},
    ]
    response = await client.responses.create(model="m", input=dialogue, store=False)
    assert response.output_text == "Your name is Ada."


async def test_what_was_answered_is_taken_back_as_input(stage: Stage, client: Any) -> None:
    """Clients that keep the conversation themselves hand every item back, the agent's tool calls and thoughts too."""
    stage.play([*THOUGHTFUL, "Yes, still."])
    first = await client.responses.create(model="m", input="The weather?", store=False)
    assert [item.type for item in first.output].count("mcp_call") == 1
    handed = [
        {"role": "user", "content": "The weather?"},
        *first.output,
        {"role": "user", "content": "Sure?"},
    ]
    second = await client.responses.create(model="m", input=handed, store=False)
    assert second.output_text == "Yes, still."
    assert stage.prompts[-1] == ["The weather?", "Sure?"]
    assert "It is sunny in Paris." in json.dumps(stage.model.requests[-1]["messages"])


# -- streams -----------------------------------------------------------------------------------------------------------


async def test_stream_true(stage: Stage, client: Any) -> None:
    events = [event async for event in await client.responses.create(model="m", input=QUESTION, stream=True)]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 3, "it streams"
    assert "".join(deltas) == events[-1].response.output_text == ANSWER
    assert {event.response.id for event in events if hasattr(event, "response")} == {events[0].response.id}


async def test_the_stream_helper(stage: Stage, client: Any) -> None:
    async with client.responses.stream(model="m", input=QUESTION) as stream:
        seen = [event.snapshot async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert seen[-1] == final.output_text == ANSWER
    assert final.status == "completed"


async def test_the_synchronous_client_streams_and_resumes(stage: Stage, wire: Wire) -> None:
    def run() -> None:
        with sdk_now(stage.process.url, wire) as client:
            events = list(client.responses.create(model="m", input=QUESTION, stream=True))
            assert events[-1].response.output_text == ANSWER
            tail = list(client.responses.retrieve(events[0].response.id, stream=True, starting_after=3))
            assert [event.to_dict() for event in tail] == [event.to_dict() for event in events[4:]]
            with client.responses.stream(model="m", input=QUESTION) as stream:
                assert stream.get_final_response().output_text == ANSWER

    await asyncio.to_thread(run)


async def test_text_arrives_while_the_model_speaks(stage: Stage, client: Any) -> None:
    stage.play([["one ", Gate("on"), "two"]])
    async with client.responses.stream(model="m", input="count") as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                assert event.delta == "one "
                break
        stage.model.open("on")
        assert (await stream.get_final_response()).output_text == "one two"


async def test_the_agents_own_tool_is_an_mcp_call_and_thoughts_are_summaries(
    stage: Stage, client: Any
) -> None:
    stage.play(THOUGHTFUL)
    stream = await client.responses.create(model="m", input="The weather?", stream=True)
    events = [event async for event in stream]
    final = events[-1].response
    assert [item.type for item in final.output] == ["reasoning", "mcp_call", "reasoning", "message"]
    thought, call, again, _ = final.output
    assert [part.text for item in (thought, again) for part in item.summary] == ["I look it up.", "So it is."]
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Paris"})
    assert (call.output, call.error, call.status) == ("Sunny in Paris.", None, "completed")
    assert call.server_label
    kinds = [event.type for event in events]
    assert "response.mcp_call.completed" in kinds
    assert "".join(e.delta for e in events if e.type == "response.reasoning_summary_text.delta") == (
        "I look it up.So it is."
    )
    usage = final.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (230, 24, 254)
    assert usage.input_tokens_details.cached_tokens == 164


async def test_a_tool_that_fails_is_told_as_such(stage: Stage, client: Any) -> None:
    stage.play(rules({"break": CallTool("break_down", {})}))
    response = await client.responses.create(model="m", input="break")
    (call,) = [item for item in response.output if item.type == "mcp_call"]
    assert (response.status, call.status) == ("completed", "failed")
    assert "no luck today" in (call.error or call.output)


# -- answers of a given form -------------------------------------------------------------------------------------------


async def test_parse(stage: Stage, client: Any) -> None:
    stage.play([FRANCE])
    response = await client.responses.parse(model="m", input=QUESTION, text_format=Capital)
    assert response.output_parsed == Capital(country="France", city="Paris")


async def test_the_stream_helper_parses(stage: Stage, client: Any) -> None:
    stage.play([FRANCE])
    async with client.responses.stream(model="m", input=QUESTION, text_format=Capital) as stream:
        final = await stream.get_final_response()
    assert final.output_parsed == Capital(country="France", city="Paris")
    assert len(final.output) == 1


# -- asking for it again -----------------------------------------------------------------------------------------------


async def test_retrieve(stage: Stage, client: Any) -> None:
    made = await client.responses.create(model="m", input=QUESTION, metadata={"for": "the test"})
    found = await client.responses.retrieve(made.id)
    assert found.to_dict() == {key: value for key, value in made.to_dict().items() if key != "response"}
    assert found.output_text == ANSWER


async def test_retrieve_as_a_stream_from_any_event_on(stage: Stage, client: Any, wire: Wire) -> None:
    stage.play(THOUGHTFUL)
    stream = await client.responses.create(model="m", input=QUESTION, stream=True)
    events = [event.to_dict() async for event in stream]
    identity = events[0]["response"]["id"]
    replay = [event.to_dict() async for event in await client.responses.retrieve(identity, stream=True)]
    assert replay == events
    for after in (0, len(events) // 2, len(events) - 2, len(events) - 1):
        tail = await client.responses.retrieve(identity, stream=True, starting_after=after)
        assert [event.to_dict() async for event in tail] == events[after + 1 :]
        assert wire.last.read_to_its_end
    async with client.responses.stream(response_id=identity, starting_after=5) as helper:
        final = await helper.get_final_response()
    assert final.output_text == "It is sunny in Paris."


async def test_delete(stage: Stage, client: Any) -> None:
    made = await client.responses.create(model="m", input=QUESTION)
    await client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.delete(made.id)


async def test_input_items(stage: Stage, client: Any) -> None:
    said = ["one", "two", "three"]
    made = await client.responses.create(
        model="m", input=[{"role": "user", "content": text} for text in said]
    )
    newest_first = [item async for item in client.responses.input_items.list(made.id)]
    assert [item.content[0].text for item in newest_first] == said[::-1]
    assert all(item.id and item.role == "user" and item.status == "completed" for item in newest_first)
    paged = [item async for item in client.responses.input_items.list(made.id, limit=1, order="asc")]
    assert [item.content[0].text for item in paged] == said
    rest = await client.responses.input_items.list(made.id, after=paged[0].id, order="asc")
    assert [item.id for item in rest.data] == [item.id for item in paged[1:]]


async def test_a_response_that_was_not_to_be_stored_is_not_found(stage: Stage, client: Any) -> None:
    made = await client.responses.create(model="m", input=QUESTION, store=False)
    assert (made.output_text, made.store) == (ANSWER, False)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(made.id)
    with pytest.raises(openai.APIStatusError) as caught:
        await client.responses.create(model="m", input="And Italy?", previous_response_id=made.id)
    assert caught.value.code == "previous_response_not_found"


# -- beside responses --------------------------------------------------------------------------------------------------


async def test_models(stage: Stage, client: Any) -> None:
    models = [model async for model in client.models.list()]
    assert models
    assert all(model.object == "model" and isinstance(model.created, int) for model in models)
    assert (await client.models.retrieve(models[0].id)).id == models[0].id
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("nobody")
    assert caught.value.code == "model_not_found"


async def test_input_tokens_are_counted(stage: Stage, client: Any) -> None:
    short = await client.responses.input_tokens.count(model="m", input="Hello.")
    long = await client.responses.input_tokens.count(model="m", input="Hello. " * 100)
    assert 0 < short.input_tokens < long.input_tokens
    assert not stage.model.requests, "nobody was asked"


async def test_a_compacted_conversation_goes_on(stage: Stage, client: Any) -> None:
    said = [{"role": "user", "content": "My name is Ada."}, {"role": "assistant", "content": "Hello, Ada."}]
    compacted = await client.responses.compact(model="m", input=said)
    assert compacted.object == "response.compaction"
    assert compacted.output[-1].type == "compaction"
    handed = [*(item.to_dict() for item in compacted.output), {"role": "user", "content": "What is my name?"}]
    response = await client.responses.create(model="m", input=handed)
    assert response.output_text == "Your name is Ada."
