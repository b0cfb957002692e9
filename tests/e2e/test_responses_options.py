"""openai-python: what a request asks for is done, or refused by name; nothing is dropped in silence."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from kits.scripted_model_script import (
    CallTool,
    Fail,
    Finish,
    Reply,
    Request,
    Say,
    Usage,
    friday,
    rules,
    text_of,
    tool_names,
    tool_results,
    user_texts,
)
from kits.stage import Stage

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

CLOCK: dict[str, Any] = {
    "type": "function",
    "name": "clock",
    "description": "The time.",
    "parameters": {
        "type": "object",
        "properties": {"zone": {"type": "string"}},
        "required": ["zone"],
        "additionalProperties": False,
    },
    "strict": True,
}
CALENDAR = {**CLOCK, "name": "calendar", "description": "The day."}

CAPITAL = {
    "type": "json_schema",
    "name": "capital",
    "schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


def asks_the_clock(request: Request) -> Reply:
    """Calls the client's clock when asked for the time, and tells what it was told."""
    if tool_results(request):
        return Say(" ".join(f"{name} says: {text}." for name, text in tool_results(request)))
    asked = user_texts(request)[-1]
    if "time" in asked and "clock" in tool_names(request):
        return CallTool("clock", {"zone": "UTC"}, id=f"call_{len(user_texts(request))}")
    return Say(", ".join(user_texts(request)))


def output_of(call: Any, text: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call.call_id, "output": text}


# -- client tools ------------------------------------------------------------------------------------------------------


async def test_a_client_tool_round_trip(stage: Stage, client: Any) -> None:
    stage.play(asks_the_clock)
    first = await client.responses.create(model="m", input="What time is it?", tools=[CLOCK])
    (call,) = first.output
    assert (call.type, call.name, call.status, first.status) == (
        "function_call",
        "clock",
        "completed",
        "completed",
    )
    assert json.loads(call.arguments) == {"zone": "UTC"}
    assert call.id.startswith("fc_")
    assert (first.tools[0].name, first.tools[0].strict) == ("clock", True)
    second = await client.responses.create(
        model="m", input=[output_of(call, "noon")], previous_response_id=first.id, tools=[CLOCK]
    )
    assert second.output_text == "clock says: noon."
    third = await client.responses.create(model="m", input="thanks", previous_response_id=second.id)
    assert third.output_text == "What time is it?, thanks"


async def test_a_client_tool_round_trip_in_a_conversation(stage: Stage, client: Any) -> None:
    stage.play(asks_the_clock)
    where = {"conversation": (await client.conversations.create()).id, "model": "m", "tools": [CLOCK]}
    first = await client.responses.create(input="What time is it?", **where)
    second = await client.responses.create(input=[output_of(first.output[0], "noon")], **where)
    assert second.output_text == "clock says: noon."


async def test_a_client_tool_round_trip_by_a_client_that_keeps_the_dialogue(
    stage: Stage, client: Any
) -> None:
    stage.play(asks_the_clock)
    dialogue: list[Any] = [{"role": "user", "content": "What time is it?"}]
    first = await client.responses.create(model="m", input=dialogue, tools=[CLOCK], store=False)
    dialogue += [*first.output, output_of(first.output[0], "noon")]
    second = await client.responses.create(model="m", input=dialogue, tools=[CLOCK], store=False)
    assert second.output_text == "clock says: noon."


async def test_a_client_tool_call_is_streamed(stage: Stage, client: Any) -> None:
    stage.play(asks_the_clock)
    async with client.responses.stream(model="m", input="What time is it?", tools=[CLOCK]) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert kinds.count("response.function_call_arguments.done") == 1
    assert kinds.count("response.function_call_arguments.delta") > 1
    assert json.loads(final.output[0].arguments) == {"zone": "UTC"}
    assert stage.model.completed == 1, "the agent does not go on by itself"


async def test_two_client_tools_at_once(stage: Stage, client: Any) -> None:
    def script(request: Request) -> Reply:
        if tool_results(request):
            return Say(", ".join(f"{name}: {text}" for name, text in tool_results(request)))
        return [CallTool("clock", {"zone": "UTC"}), CallTool("calendar", {"zone": "UTC"})]

    stage.play(script)
    first = await client.responses.create(model="m", input="go", tools=[CLOCK, CALENDAR])
    assert [call.name for call in first.output] == ["clock", "calendar"]
    outputs = [output_of(call, text) for call, text in zip(first.output, ["noon", "Monday"], strict=True)]
    second = await client.responses.create(
        model="m", input=outputs, previous_response_id=first.id, tools=[CLOCK, CALENDAR]
    )
    assert second.output_text == "clock: noon, calendar: Monday"


async def test_a_client_tool_beside_the_agents_own(stage: Stage, client: Any) -> None:
    def script(request: Request) -> Reply:
        told = dict(tool_results(request))
        if "clock" in told:
            return Say(f"{told['clock']}, and {len(request['messages'])} messages")
        if "get_weather" in told:
            return CallTool("clock", {"zone": "UTC"})
        return CallTool("get_weather", {"city": "Rome"})

    stage.play(script)
    first = await client.responses.create(model="m", input="go", tools=[CLOCK])
    assert [item.type for item in first.output] == ["mcp_call", "function_call"]
    second = await client.responses.create(
        model="m", input=[output_of(first.output[-1], "noon")], previous_response_id=first.id, tools=[CLOCK]
    )
    assert second.output_text.startswith("noon, and ")


async def test_one_call_is_answered_differently_in_two_branches(stage: Stage, client: Any) -> None:
    stage.play(asks_the_clock)
    asked = await client.responses.create(model="m", input="What time is it?", tools=[CLOCK])
    options = {"model": "m", "tools": [CLOCK], "previous_response_id": asked.id}
    noon = await client.responses.create(input=[output_of(asked.output[0], "noon")], **options)
    night = await client.responses.create(input=[output_of(asked.output[0], "night")], **options)
    assert [noon.output_text, night.output_text] == ["clock says: noon.", "clock says: night."]
    for branch, told in ((noon, "noon"), (night, "night")):
        await client.responses.create(model="m", input="thanks", previous_response_id=branch.id)
        said = json.dumps(stage.model.requests[-1]["messages"])
        assert [word for word in ("noon", "night") if word in said] == [told]


async def test_a_call_that_is_never_answered_blocks_nothing(stage: Stage, client: Any) -> None:
    stage.play(asks_the_clock)
    asked = await client.responses.create(model="m", input="What time is it?", tools=[CLOCK])
    options = {"model": "m", "previous_response_id": asked.id}
    other = await client.responses.create(input="never mind", **options)
    assert (other.status, other.output_text) == ("completed", "What time is it?, never mind")
    told = await client.responses.create(input=[output_of(asked.output[0], "noon")], tools=[CLOCK], **options)
    assert told.output_text == "clock says: noon."


async def test_of_two_calls_one_may_stay_without_output(stage: Stage, client: Any) -> None:
    def script(request: Request) -> Reply:
        if tool_results(request):
            return Say(", ".join(f"{name}: {text}" for name, text in tool_results(request)))
        return [CallTool("clock", {"zone": "UTC"}), CallTool("calendar", {"zone": "UTC"})]

    stage.play(script)
    options: dict[str, Any] = {"model": "m", "tools": [CLOCK, CALENDAR]}
    asked = await client.responses.create(input="go", **options)
    first, second = asked.output
    one = await client.responses.create(
        input=[output_of(first, "noon")], previous_response_id=asked.id, **options
    )
    assert "clock: noon, calendar: " in one.output_text
    assert "interrupted" in one.output_text, "the model is told"
    both = [output_of(second, "Monday"), output_of(first, "noon")]
    told = await client.responses.create(input=both, previous_response_id=asked.id, **options)
    assert sorted(told.output_text.split(", ")) == ["calendar: Monday", "clock: noon"]


async def test_a_dialogue_with_a_call_that_was_never_answered_goes_on(stage: Stage, client: Any) -> None:
    stage.play(calls_once)
    options: dict[str, Any] = {"model": "m", "tools": [CLOCK], "store": False}
    asked = await client.responses.create(input="time?", **options)
    assert [item.type for item in asked.output] == ["function_call"]
    dialogue = [user("time?"), *asked.output, user("never mind")]
    told = await client.responses.create(input=dialogue, **options)
    assert (told.status, told.output_text) == ("completed", "Fine.")
    told = await client.responses.create(input=dialogue[:2], **options)
    assert (told.status, told.output_text) == ("completed", "Fine.")


async def test_a_call_alone_among_a_conversations_items_spoils_nothing(stage: Stage, client: Any) -> None:
    lone = {"type": "function_call", "call_id": "call_lone", "name": "clock", "arguments": "{}"}
    stage.play(["Fine.", "Still fine."])
    where = {"model": "m", "conversation": (await client.conversations.create(items=[lone])).id}
    for said in ("Fine.", "Still fine."):
        told = await client.responses.create(input="never mind", **where)
        assert (told.status, told.output_text) == ("completed", said)
    prompt = stage.model.requests[-1]["messages"]
    assert "interrupted" in next(text_of(message) for message in prompt if message["role"] == "tool")


async def test_an_output_that_comes_too_late_spoils_no_conversation(stage: Stage, client: Any) -> None:
    stage.play(calls_once)
    where = {"model": "m", "conversation": (await client.conversations.create()).id}
    asked = await client.responses.create(input="time?", tools=[CLOCK], **where)
    await client.responses.create(input="never mind", **where)
    await client.conversations.items.create(where["conversation"], items=[output_of(asked.output[0], "noon")])
    for _ in range(2):
        told = await client.responses.create(input="so?", **where)
        assert (told.status, told.output_text) == ("completed", "Fine.")
    assert "noon" in json.dumps(stage.model.requests[-1]["messages"])


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def calls_once(request: Request) -> Reply:
    """Calls the client's clock, unless it was called before."""
    called = any(message["role"] == "tool" for message in request["messages"])
    return Say("Fine.") if called else CallTool("clock", {"zone": "UTC"})


async def test_the_sdk_parses_the_arguments_of_its_own_models(stage: Stage, client: Any) -> None:
    class Clock(BaseModel):
        zone: str

    stage.play(lambda request: CallTool("Clock", {"zone": "UTC"}))
    tool = {**openai.pydantic_function_tool(Clock)["function"], "type": "function"}
    async with client.responses.stream(model="m", input="time?", tools=[tool]) as stream:
        final = await stream.get_final_response()
    assert final.output[0].parsed_arguments in (Clock(zone="UTC"), {"zone": "UTC"})


async def test_an_output_may_be_parts(stage: Stage, client: Any) -> None:
    stage.play(asks_the_clock)
    asked = await client.responses.create(model="m", input="What time is it?", tools=[CLOCK])
    parts: Any = [{"type": "input_text", "text": "no"}, {"type": "input_text", "text": "on"}]
    told = await client.responses.create(
        model="m", input=[output_of(asked.output[0], parts)], previous_response_id=asked.id, tools=[CLOCK]
    )
    assert "no" in told.output_text
    assert "on" in told.output_text


async def test_an_output_of_a_call_nobody_made_is_refused(stage: Stage, client: Any) -> None:
    stray = {"type": "function_call_output", "call_id": "call_nobody", "output": "noon"}
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model="m", input=[stray], tools=[CLOCK])
    assert "call_nobody" in str(caught.value)
    assert not stage.model.requests


async def test_tool_choice_none_calls_no_tool(stage: Stage, client: Any) -> None:
    stage.play(
        rules({"weather": lambda r: CallTool("get_weather", {"city": "Rome"}) if allowed(r) else Say("No.")})
    )
    response = await client.responses.create(model="m", input="weather", tool_choice="none")
    assert (response.output_text, response.tool_choice) == ("No.", "none")
    assert len(response.output) == 1
    response = await client.responses.create(model="m", input="weather", tool_choice="none", tools=[CLOCK])
    assert response.output_text == "No."


def allowed(request: Request) -> bool:
    """Whether the model may call tools at all."""
    return bool(tool_names(request)) and request.get("tool_choice") != "none"


async def test_tool_choice_names_the_tool_to_call(stage: Stage, client: Any) -> None:
    def script(request: Request) -> Reply:
        choice = request.get("tool_choice")
        forced = choice["function"]["name"] if isinstance(choice, dict) else None
        return CallTool("clock", {"zone": "UTC"}) if forced == "clock" else Say(f"I may choose: {choice}")

    stage.play(script)
    choice = {"type": "function", "name": "clock"}
    response = await client.responses.create(model="m", input="go", tools=[CLOCK], tool_choice=choice)
    assert response.output[0].name == "clock"


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"tools": [CLOCK, {**CLOCK, "name": "get_weather"}]}, "tools[1].name"),
        ({"tools": [CLOCK], "tool_choice": {"type": "function", "name": "sundial"}}, "tool_choice"),
    ],
)
async def test_what_the_agent_cannot_do_is_refused_by_name(
    stage: Stage, client: Any, asked: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model="m", input="go", **asked)
    assert caught.value.param == param
    assert "await_at_door" not in str(caught.value), "the agent's other tools are nobody's business"
    async with await client.responses.create(model="m", input="go", stream=True, **asked) as stream:
        *_, last = [event async for event in stream]
    assert (last.type, last.response.error.param) == ("response.failed", param)
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="m", messages=[user("go")], **as_chat(asked))
    assert caught.value.param == param.replace("].name", "].function.name")
    assert not stage.model.requests


def as_chat(asked: dict[str, Any]) -> dict[str, Any]:
    """Tools and their choice as Chat Completions has them."""

    def named(tool: dict[str, Any]) -> dict[str, Any]:
        return {"type": "function", "function": {**tool, "type": None}}

    chat = {**asked, "tools": [named(tool) for tool in asked["tools"]]}
    if "tool_choice" in asked:
        chat["tool_choice"] = named(asked["tool_choice"])
    return chat


FILE = {"role": "user", "content": [{"type": "input_file", "file_id": "file_1"}]}
PICTURE = {"type": "input_image", "image_url": "data:image/gif;base64,R0lGODlhAQABAAAAACw="}


@pytest.mark.agentscope2
@pytest.mark.parametrize(
    ("item", "param"),
    [(FILE, ".content[0].file_id"), ({"role": "system", "content": [PICTURE]}, ".content[0]")],
    ids=["file_id", "a picture in a system message"],
)
async def test_what_the_agent_has_no_place_for_is_refused_before_it_waits_in_a_conversation(
    stage: Stage, client: Any, item: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model="m", input=[user("read"), item])
    assert caught.value.param == f"input[1]{param}"
    with pytest.raises(openai.BadRequestError) as caught:
        await client.conversations.create(items=[item])
    assert caught.value.param == f"items[0]{param}"
    where = await client.conversations.create()
    with pytest.raises(openai.BadRequestError) as caught:
        await client.conversations.items.create(where.id, items=[user("read"), item])
    assert caught.value.param == f"items[1]{param}"
    told = await client.responses.create(model="m", input="hello", conversation=where.id)
    assert told.status == "completed"


async def test_parallel_tool_calls_reaches_the_model(stage: Stage, client: Any) -> None:
    response = await client.responses.create(
        model="m", input="hello", tools=[CLOCK], parallel_tool_calls=False
    )
    assert response.parallel_tool_calls is False
    assert stage.model.requests[-1]["parallel_tool_calls"] is False


# -- the form of the answer --------------------------------------------------------------------------------------------


async def test_an_answer_that_fits_the_schema(stage: Stage, client: Any) -> None:
    stage.play(['{"city": "Paris"}'])
    response = await client.responses.create(model="m", input="?", text={"format": CAPITAL})
    assert json.loads(response.output_text) == {"city": "Paris"}
    assert response.text.format.type == "json_schema"
    assert "capital" in json.dumps(stage.model.requests[-1]["response_format"]), "the model was told"
    assert len(response.output) == 1


@pytest.mark.parametrize("answer", ["Paris, of course.", '{"town": "Paris"}'])
async def test_an_answer_that_does_not_fit_fails_the_response(stage: Stage, client: Any, answer: str) -> None:
    stage.play(lambda request: answer)
    response = await client.responses.create(model="m", input="?", text={"format": CAPITAL})
    assert response.status == "failed"
    assert response.error.code == "server_error"
    assert "the request asked for" in response.error.message


async def test_any_json_object(stage: Stage, client: Any) -> None:
    stage.play(['{"any": 1}', "none at all"])
    good = await client.responses.create(model="m", input="?", text={"format": {"type": "json_object"}})
    assert (good.status, json.loads(good.output_text)) == ("completed", {"any": 1})
    bad = await client.responses.create(model="m", input="?", text={"format": {"type": "json_object"}})
    assert bad.status == "failed"


# -- bounds and settings -----------------------------------------------------------------------------------------------


async def test_an_answer_that_reaches_the_bound_is_incomplete(stage: Stage, client: Any) -> None:
    stage.play([[Say("one two three"), Finish("length"), Usage(5, 16)]])
    response = await client.responses.create(model="m", input="count", max_output_tokens=16)
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (response.output_text, response.max_output_tokens) == ("one two three", 16)
    request = stage.model.requests[-1]
    assert 16 in (request.get("max_tokens"), request.get("max_completion_tokens"))


async def test_the_bound_counts_all_model_calls(stage: Stage, client: Any) -> None:
    stage.play(
        lambda request: (
            [Say("Sunny"), Finish("length"), Usage(5, 6)]
            if tool_results(request)
            else [CallTool("get_weather", {"city": "Rome"}), Usage(5, 10)]
        )
    )
    stream = await client.responses.create(model="m", input="weather", max_output_tokens=16, stream=True)
    events = [event async for event in stream]
    assert events[-1].type == "response.incomplete"
    bounds = [
        request.get("max_completion_tokens", request.get("max_tokens")) for request in stage.model.requests
    ]
    assert bounds == [16, 6]


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
async def test_an_answer_that_its_model_broke_off_is_incomplete(
    stage: Stage, client: Any, finish: Any, reason: str
) -> None:
    stage.play(lambda request: [Say("Once upon"), Finish(finish)])
    response = await client.responses.create(model="m", input="a story")
    assert (response.status, response.incomplete_details.reason) == ("incomplete", reason)
    assert response.output_text == "Once upon"
    async with await client.responses.create(model="m", input="a story", stream=True) as stream:
        *_, last = [event async for event in stream]
    assert (last.type, last.response.incomplete_details.reason) == ("response.incomplete", reason)
    chat = await client.chat.completions.create(model="m", messages=[user("a story")])
    assert chat.choices[0].finish_reason == finish


async def test_what_was_broken_off_before_the_answer_does_not_count(stage: Stage, client: Any) -> None:
    stage.play(
        lambda request: (
            Say("Sunny.")
            if tool_results(request)
            else [CallTool("get_weather", {"city": "Rome"}), Finish("length")]
        )
    )
    response = await client.responses.create(model="m", input="weather")
    assert (response.status, response.output_text) == ("completed", "Sunny.")


async def test_sampling_settings_reach_the_model_and_are_told(stage: Stage, client: Any) -> None:
    settings = {"temperature": 0.25, "top_p": 0.5}
    penalties = {"presence_penalty": 1.5, "frequency_penalty": -1.5}
    response = await client.responses.create(model="m", input="hello", extra_body=penalties, **settings)
    told, request = response.to_dict(), stage.model.requests[-1]
    for name, value in {**settings, **penalties}.items():
        assert (told[name], request[name]) == (value, value)
    await client.chat.completions.create(model="m", messages=[user("hello")], seed=7, **penalties)
    request = stage.model.requests[-1]
    assert {name: request[name] for name in penalties} == penalties
    assert request["seed"] == 7


async def test_the_agent_calls_its_tools_no_more_often_than_it_may(stage: Stage, client: Any) -> None:
    stage.play(
        lambda request: (
            CallTool("get_weather", {"city": "Rome"}) if allowed(request) else Say("Sunny, I think.")
        )
    )
    response = await client.responses.create(model="m", input="weather", max_tool_calls=2)
    assert [item.type for item in response.output] == ["mcp_call", "mcp_call", "message"]
    assert (response.status, response.output_text, response.max_tool_calls) == (
        "completed",
        "Sunny, I think.",
        2,
    )


async def test_what_is_only_noted_is_told_back(stage: Stage, client: Any) -> None:
    noted: dict[str, Any] = {
        "metadata": {"order": "4711"},
        "safety_identifier": "hashed",
        "prompt_cache_key": "key",
        "truncation": "disabled",
        "store": True,
    }
    response = await client.responses.create(model="m", input="hello", user="ada", **noted)
    told = response.to_dict()
    assert {name: told[name] for name in noted} == noted
    assert told["user"] == "ada"


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"max_output_tokens": 1}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"input": [{"type": "mystery"}]}, "input[0]"),
        ({"input": [{"role": "nobody", "content": "x"}]}, "input[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"text": {"format": {"type": "poem"}}}, "text.format"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_bad_input_names_the_parameter(
    stage: Stage, client: Any, options: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(**{"model": "m", "input": "hello", **options})
    error = caught.value
    assert error.type == "invalid_request_error"
    assert (error.param or "").startswith(param), error
    assert not stage.model.requests


async def test_nothing_asked_is_refused(stage: Stage, client: Any) -> None:
    with pytest.raises(openai.BadRequestError):
        await client.responses.create(model="m")


async def test_a_route_that_is_not_there(stage: Stage, client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.embeddings.create(model="m", input="hello")
    assert caught.value.type == "invalid_request_error"
    assert "/embeddings" in caught.value.message


async def test_a_model_that_fails_is_a_failed_response_not_an_error(stage: Stage, client: Any) -> None:
    stage.play(lambda request: Fail(500, "the key of account 4711 is over its quota"))
    response = await client.responses.create(model="m", input="hello")
    assert response.status == "failed"
    assert response.error.code == "server_error"
    assert "account 4711" not in response.to_json()
    assert len(stage.model.requests) == 1, "nobody tried again"
    stage.play(friday())
    stream = await client.responses.create(model="m", input="hello", stream=True)
    assert [event.type async for event in stream][-1] == "response.completed"


async def test_a_model_that_fails_midway_fails_the_stream(stage: Stage, client: Any) -> None:
    stage.play([[Say("half "), Fail(500, "quota")]])
    async with client.responses.stream(model="m", input="hello") as stream:
        events = [event async for event in stream]
    assert events[-1].type == "response.failed"
    assert events[-1].response.error.message
    (message,) = events[-1].response.output
    assert (message.status, message.content[0].text) == ("incomplete", "half ")


async def test_instructions_are_said_before_all_else(stage: Stage, client: Any) -> None:
    await client.responses.create(model="m", input="hello", instructions="Be brief.")
    roles = [
        message["role"] for message in stage.model.requests[-1]["messages"] if "brief" in text_of(message)
    ]
    assert roles
    assert set(roles) <= {"system", "developer"}
