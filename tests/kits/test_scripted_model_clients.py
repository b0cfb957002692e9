"""The scripted model read by the clients it must satisfy: the OpenAI SDK and both lines of AgentScope."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from kits.scripted_model import ScriptedModel
from kits.scripted_model_child import child_model
from kits.scripted_model_script import Break, CallTool, Fail, Hang, Reply, Say, Think, Usage

QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "The capital of France is Paris."

CALLING_TWICE: list[Reply] = [
    [
        Think("I look it up."),
        CallTool("get_weather", {"city": "Paris"}),
        CallTool("get_weather", {"city": "Rome"}),
        Usage(11, 7),
    ],
    [Say("Both are sunny."), Usage(30, 3)],
]


def roles(request: dict[str, Any]) -> list[str]:
    return [message["role"] for message in request["messages"]]


def results(request: dict[str, Any]) -> list[tuple[str, str]]:
    return [(m["tool_call_id"], m["content"]) for m in request["messages"] if m["role"] == "tool"]


# The OpenAI SDK, 2.x and 3.x


@asynccontextmanager
async def sdk(base_url: str) -> AsyncIterator[Any]:
    openai = pytest.importorskip("openai")
    async with openai.AsyncOpenAI(base_url=base_url, api_key="any", max_retries=0) as client:
        yield client


async def test_openai_completes() -> None:
    async with ScriptedModel(api_key="any") as model, sdk(model.base_url) as client:
        completion = await client.chat.completions.create(model="scripted", messages=QUESTION)
        assert completion.choices[0].message.content == ANSWER
        assert completion.choices[0].finish_reason == "stop"
        assert completion.usage.total_tokens == 12
        assert [entry.id async for entry in client.models.list()] == ["scripted"]


async def test_openai_streams_text_reasoning_and_usage() -> None:
    async with (
        ScriptedModel([[Think("Hm."), Say("a b c"), Usage(4, 5)]]) as model,
        sdk(model.base_url) as client,
    ):
        options = {"include_usage": True}
        stream = await client.chat.completions.create(
            model="scripted", messages=QUESTION, stream=True, stream_options=options
        )
        chunks = [chunk async for chunk in stream]
        await model.wait_idle()
        assert (model.completed, model.aborted) == (1, 0)
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == "a b c"
    assert [delta.reasoning_content for delta in deltas if hasattr(delta, "reasoning_content")] == ["Hm."]
    assert chunks[-1].usage.total_tokens == 9


async def test_openai_accumulates_parallel_calls() -> None:
    """The SDK's own accumulator is the strictest reader of tool call deltas."""
    async with (
        ScriptedModel(CALLING_TWICE) as model,
        sdk(model.base_url) as client,
        client.chat.completions.stream(model="scripted", messages=QUESTION) as stream,
    ):
        completion = await stream.get_final_completion()
    calls = completion.choices[0].message.tool_calls
    assert [(call.id, call.function.arguments) for call in calls] == [
        ("call_1", '{"city":"Paris"}'),
        ("call_2", '{"city":"Rome"}'),
    ]
    assert completion.choices[0].finish_reason == "tool_calls"


async def test_openai_raises_its_errors() -> None:
    openai = pytest.importorskip("openai")
    httpx = pytest.importorskip("httpx")
    script: list[Reply] = [
        Fail(429, "Slow down."),
        Break(after=0),
        ["a ", Fail(500, "Broke.")],
        ["a b", Break(after=1)],
    ]
    async with ScriptedModel(script) as model, sdk(model.base_url) as client:
        with pytest.raises(openai.RateLimitError, match=r"Slow down\."):
            await client.chat.completions.create(model="scripted", messages=QUESTION)
        with pytest.raises(openai.APIConnectionError):
            await client.chat.completions.create(model="scripted", messages=QUESTION)
        for error in (openai.APIError, (openai.APIConnectionError, httpx.RemoteProtocolError)):  # 3.x, 2.x
            stream = await client.chat.completions.create(model="scripted", messages=QUESTION, stream=True)
            with pytest.raises(error):
                _ = [chunk async for chunk in stream]
        with pytest.raises(openai.BadRequestError, match="messages is empty"):
            await client.chat.completions.create(model="scripted", messages=[])


async def test_openai_tries_again_and_the_script_is_asked_again() -> None:
    openai = pytest.importorskip("openai")
    script: list[Reply] = [Fail(503, "Busy.", headers={"retry-after-ms": "1"}), Say("Better.")]
    async with (
        ScriptedModel(script) as model,
        openai.AsyncOpenAI(base_url=model.base_url, api_key="any", max_retries=1) as client,
    ):
        completion = await client.chat.completions.create(model="scripted", messages=QUESTION)
    assert completion.choices[0].message.content == "Better."
    assert len(model.requests) == 2


async def test_openai_closing_a_stream_aborts_it() -> None:
    async with ScriptedModel([["a ", Hang()]]) as model, sdk(model.base_url) as client:
        stream = await client.chat.completions.create(model="scripted", messages=QUESTION, stream=True)
        await anext(stream)
        await stream.close()
        await model.wait_aborted()


# AgentScope 1.x


@pytest.mark.agentscope1
@pytest.mark.parametrize("stream", [True, False])
async def test_agentscope1_agent_calls_tools(stream: bool) -> None:
    from agentscope.agent import ReActAgent
    from agentscope.formatter import OpenAIChatFormatter
    from agentscope.memory import InMemoryMemory
    from agentscope.message import Msg, TextBlock
    from agentscope.model import OpenAIChatModel
    from agentscope.pipeline import stream_printing_messages
    from agentscope.tool import Toolkit, ToolResponse

    def get_weather(city: str) -> ToolResponse:
        return ToolResponse(content=[TextBlock(type="text", text=f"Sunny in {city}.")])

    toolkit = Toolkit()
    toolkit.register_tool_function(get_weather)
    async with ScriptedModel(CALLING_TWICE) as model:
        agent = ReActAgent(
            name="Friday",
            sys_prompt="You're Friday.",
            model=OpenAIChatModel(
                model_name="scripted",
                api_key="any",
                stream=stream,
                client_kwargs={"base_url": model.base_url, "max_retries": 0},
            ),
            formatter=OpenAIChatFormatter(),
            toolkit=toolkit,
            memory=InMemoryMemory(),
        )
        agent.set_console_output_enabled(False)
        reply = agent(Msg("user", "How is the weather?", "user"))
        printed = [msg async for msg, _last in stream_printing_messages(agents=[agent], coroutine_task=reply)]
    blocks = [block for msg in printed for block in msg.get_content_blocks()]
    assert {"type": "thinking", "thinking": "I look it up."} in blocks
    assert printed[-1].get_text_content() == "Both are sunny."
    assert roles(model.requests[1]) == ["system", "user", "assistant", "tool", "tool"]
    assert results(model.requests[1]) == [("call_1", "Sunny in Paris."), ("call_2", "Sunny in Rome.")]


@pytest.mark.agentscope1
async def test_agentscope1_model_reports_usage() -> None:
    from agentscope.model import OpenAIChatModel

    async with ScriptedModel([["Hi.", Usage(11, 7)]]) as model:
        client = {"base_url": model.base_url}
        chat = OpenAIChatModel(model_name="scripted", api_key="any", stream=True, client_kwargs=client)
        last = [response async for response in await chat(QUESTION)][-1]
    assert (last.usage.input_tokens, last.usage.output_tokens) == (11, 7)


# AgentScope 2.x


@pytest.mark.agentscope2
@pytest.mark.parametrize("stream", [True, False])
async def test_agentscope2_agent_calls_tools(stream: bool) -> None:
    from agentscope.agent import Agent
    from agentscope.credential import OpenAICredential
    from agentscope.message import UserMsg
    from agentscope.model import OpenAIChatModel
    from agentscope.permission import PermissionBehavior, PermissionDecision
    from agentscope.tool import FunctionTool, Toolkit

    def get_weather(city: str) -> str:
        return f"Sunny in {city}."

    allowed = PermissionDecision(behavior=PermissionBehavior.ALLOW, message="It only reads.")
    async with ScriptedModel(CALLING_TWICE) as model:
        agent = Agent(
            name="Friday",
            system_prompt="You're Friday.",
            model=OpenAIChatModel(
                credential=OpenAICredential(api_key="any", base_url=model.base_url),
                model="scripted",
                stream=stream,
                max_retries=0,
                client_kwargs={"max_retries": 0},
            ),
            toolkit=Toolkit(tools=[FunctionTool(get_weather, permission=allowed)]),
        )
        message = UserMsg(name="user", content="How is the weather?")
        events = [event.model_dump() async for event in agent.reply_stream(message)]
    named = {kind: [event for event in events if event["type"].value == kind] for kind in KINDS}
    assert "".join(event["delta"] for event in named["THINKING_BLOCK_DELTA"]) == "I look it up."
    assert "".join(event["delta"] for event in named["TEXT_BLOCK_DELTA"]) == "Both are sunny."
    assert [event["state"] for event in named["TOOL_RESULT_END"]] == ["success", "success"]
    assert [(event["input_tokens"], event["output_tokens"]) for event in named["MODEL_CALL_END"]] == [
        (11, 7),
        (30, 3),
    ]
    assert results(model.requests[1]) == [("call_1", "Sunny in Paris."), ("call_2", "Sunny in Rome.")]


KINDS = ("THINKING_BLOCK_DELTA", "TEXT_BLOCK_DELTA", "TOOL_RESULT_END", "MODEL_CALL_END")


@pytest.mark.agentscope2
async def test_agentscope2_friday_remembers_and_counts_no_notes() -> None:
    from agentscope.agent import Agent
    from agentscope.credential import OpenAICredential
    from agentscope.message import UserMsg
    from agentscope.model import OpenAIChatModel

    async with ScriptedModel() as model:
        credential = OpenAICredential(api_key="any", base_url=model.base_url)
        chat = OpenAIChatModel(credential=credential, model="scripted")
        agent = Agent(name="Friday", system_prompt="You're Friday.", model=chat)
        await agent.reply(UserMsg(name="user", content="My name is Alice."))
        reply = await agent.reply(UserMsg(name="user", content="What is my name?"))
    assert reply.get_text_content() == "Your name is Alice."
    assert roles(model.requests[1]).count("user") == 3  # two of the user, one note of the framework


# In a process of its own


async def test_a_child_serves_and_tells_its_counts() -> None:
    options = ("--script", "steady", "--deltas", "2", "--chunk-size", "3")
    async with child_model(*options) as child, aiohttp.ClientSession() as client:
        body = {"model": "scripted", "messages": QUESTION}
        async with client.post(f"{child.base_url}/chat/completions", json=body) as response:
            assert (await response.json())["choices"][0]["message"]["content"] == "xx xx "
        async with client.get(f"{child.url}/stats") as response:
            assert await response.json() == {"requests": 1, "open": 0, "completed": 1, "aborted": 0}
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


async def test_a_child_serves_a_script_named_by_module() -> None:
    async with (
        child_model("--script", "kits.scripted_model_script:tell_tool_results") as child,
        sdk(child.base_url) as client,
    ):
        completion = await client.chat.completions.create(model="scripted", messages=QUESTION)
        assert completion.choices[0].message.content == ""


async def test_a_child_that_cannot_start_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="did not start"):
        async with child_model("--script", "nonsense"):
            pass
    assert "use friday, counter, steady or module:name" in capfd.readouterr().err
