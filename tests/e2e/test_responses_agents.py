"""The OpenAI Agents SDK, with an agent of ours in the model's place: its tools, its sessions, its streams."""

from __future__ import annotations

from typing import Any

import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    SQLiteSession,
    function_tool,
)
from pydantic import BaseModel

from kits.scripted_model_script import (
    CallTool,
    Reply,
    Request,
    Say,
    Think,
    rules,
    tool_names,
    tool_results,
    user_texts,
)
from kits.stage import Stage

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

QUIET = RunConfig(tracing_disabled=True)


class Capital(BaseModel):
    city: str


@function_tool
def clock(zone: str) -> str:
    """The time.

    Args:
        zone: Where.
    """
    return f"noon in {zone}"


@pytest.fixture
def agent(client: Any) -> Agent[Any]:
    """An agent that thinks with ours, and has a tool of its own."""
    return Agent("Caller", model=OpenAIResponsesModel("any_name", openai_client=client), tools=[clock])


def tells_the_time(request: Request) -> Reply:
    """Asks the caller's clock for the time, and tells what it says; else all that the user said."""
    if tool_results(request):
        return Say("It is " + ", ".join(text for _, text in tool_results(request)))
    if "time" in user_texts(request)[-1] and "clock" in tool_names(request):
        return CallTool("clock", {"zone": "UTC"}, id=f"call_{len(request['messages'])}")
    return Say(", ".join(user_texts(request)))


async def test_it_answers(stage: Stage, agent: Agent[Any]) -> None:
    result = await Runner.run(agent, "What is the capital of France?", run_config=QUIET)
    assert result.final_output == "The capital of France is Paris."
    assert result.context_wrapper.usage.total_tokens > 0


async def test_its_tool_loop(stage: Stage, agent: Agent[Any]) -> None:
    stage.play(tells_the_time)
    result = await Runner.run(agent, "What time is it?", run_config=QUIET)
    assert result.final_output == "It is noon in UTC"
    kinds = [item.type for item in result.new_items]
    assert kinds == ["tool_call_item", "tool_call_output_item", "message_output_item"]


async def test_our_agents_own_tools_and_thoughts_are_not_its_to_run(stage: Stage, agent: Agent[Any]) -> None:
    stage.play([[Think("Hm."), CallTool("get_weather", {"city": "Rome"})], Say("Sunny.")])
    result = await Runner.run(agent, "The weather?", run_config=QUIET)
    assert result.final_output == "Sunny."
    assert [item.raw_item.type for item in result.new_items] == ["reasoning", "mcp_call", "message"]  # type: ignore[union-attr]


async def test_handing_the_items_back(stage: Stage, agent: Agent[Any]) -> None:
    stage.play(
        rules(
            {"time": tells_the_time, "weather": CallTool("get_weather", {"city": "Rome"}), "": tells_the_time}
        )
    )
    first = await Runner.run(agent, "What time is it?", run_config=QUIET)
    second_input: Any = [*first.to_input_list(), {"role": "user", "content": "And the weather?"}]
    second = await Runner.run(agent, second_input, run_config=QUIET)
    assert second.final_output == "get_weather says: Sunny in Rome."
    third_input: Any = [*second.to_input_list(), {"role": "user", "content": "thanks"}]
    third = await Runner.run(agent, third_input, run_config=QUIET)
    assert third.final_output == "What time is it?, And the weather?, thanks"


async def test_its_streams(stage: Stage, agent: Agent[Any]) -> None:
    stage.play(tells_the_time)
    result = Runner.run_streamed(agent, "What time is it?", run_config=QUIET)
    deltas, names = [], []
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            deltas.append(event.data.delta)
        elif event.type == "run_item_stream_event":
            names.append(event.name)
    assert "".join(deltas) == result.final_output == "It is noon in UTC"
    assert names == ["tool_called", "tool_output", "message_output_created"]


async def test_a_session_of_its_own(stage: Stage, agent: Agent[Any]) -> None:
    stage.play(tells_the_time)
    session = SQLiteSession("numbers")
    for text in ("one", "What time is it?"):
        await Runner.run(agent, text, session=session, run_config=QUIET)
    result = await Runner.run(agent, "two", session=session, run_config=QUIET)
    assert result.final_output == "one, What time is it?, two"
    session.close()


async def test_a_session_that_is_a_conversation_here(stage: Stage, agent: Agent[Any], client: Any) -> None:
    stage.play(tells_the_time)
    session: Any = OpenAIConversationsSession(openai_client=client)
    await Runner.run(agent, "one", session=session, run_config=QUIET)
    result = await Runner.run(agent, "two", session=session, run_config=QUIET)
    assert result.final_output == "one, two"
    assert len(await session.get_items()) == 4
    await session.clear_session()


async def test_continuing_by_previous_response_id(stage: Stage, agent: Agent[Any]) -> None:
    stage.play(tells_the_time)
    first = await Runner.run(agent, "one", run_config=QUIET)
    second = await Runner.run(
        agent, "What time is it?", previous_response_id=first.last_response_id, run_config=QUIET
    )
    assert second.final_output == "It is noon in UTC"
    third = await Runner.run(agent, "two", previous_response_id=second.last_response_id, run_config=QUIET)
    assert third.final_output == "one, What time is it?, two"


async def test_continuing_the_run_by_its_own_response_ids(stage: Stage, agent: Agent[Any]) -> None:
    stage.play(tells_the_time)
    result = await Runner.run(agent, "What time is it?", auto_previous_response_id=True, run_config=QUIET)
    assert result.final_output == "It is noon in UTC"


async def test_continuing_in_a_conversation(stage: Stage, agent: Agent[Any], client: Any) -> None:
    stage.play(tells_the_time)
    conversation = (await client.conversations.create()).id
    first = await Runner.run(agent, "What time is it?", conversation_id=conversation, run_config=QUIET)
    assert first.final_output == "It is noon in UTC"
    second = await Runner.run(agent, "two", conversation_id=conversation, run_config=QUIET)
    assert second.final_output == "What time is it?, two"


async def test_an_answer_of_a_given_type(stage: Stage, client: Any) -> None:
    stage.play(['{"city": "Paris"}'])
    model = OpenAIResponsesModel("any_name", openai_client=client)
    asking = Agent("Caller", instructions="Answer.", model=model, output_type=Capital)
    result = await Runner.run(asking, "The capital of France?", run_config=QUIET)
    assert result.final_output == Capital(city="Paris")


async def test_its_settings(stage: Stage, client: Any) -> None:
    stage.play(tells_the_time)
    settings = ModelSettings(
        temperature=0.5, top_p=0.5, max_tokens=500, parallel_tool_calls=False, metadata={"a": "b"}
    )
    model = OpenAIResponsesModel("any_name", openai_client=client)
    asking = Agent("Caller", instructions="Be brief.", model=model, tools=[clock], model_settings=settings)
    result = await Runner.run(asking, "What time is it?", run_config=QUIET)
    assert result.final_output == "It is noon in UTC"


async def test_a_handoff_between_two_agents_that_both_think_with_ours(stage: Stage, client: Any) -> None:
    def script(request: Request) -> Reply:
        transfer = [name for name in tool_names(request) if name.startswith("transfer_to")]
        return CallTool(transfer[0], {}) if transfer else Say("Here is the expert.")

    stage.play(script)
    model = OpenAIResponsesModel("any_name", openai_client=client)
    expert = Agent("Expert", instructions="Know.", model=model)
    desk = Agent("Desk", instructions="Hand over.", model=model, handoffs=[expert])
    result = await Runner.run(desk, "help", run_config=QUIET)
    assert (result.final_output, result.last_agent.name) == ("Here is the expert.", "Expert")
