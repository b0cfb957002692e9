"""The memory of AgentScope 1.x agents in a session history service: what `InMemoryMemory` does, and stored."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.errors import TurnOver
from greenroom.actors.events import TurnCancelled, TurnCompleted
from greenroom.actors.messages import Data, Message, SessionKey, Text
from greenroom.actors.scope import TurnScope, current_turn
from greenroom.services.session_history import InMemorySessionHistoryService, Session
from greenroom.services.work import Work
from kits.agentscope_line import require_line
from kits.in_turn import in_turn
from kits.system import turn

require_line(1)

from agentscope.agent import ReActAgent
from agentscope.memory import InMemoryMemory
from agentscope.message import Msg
from agentscope.pipeline import stream_printing_messages
from agentscope.token import CharTokenCounter
from agentscope.tool import ToolResponse

from greenroom.actors.frameworks.agentscope1_history import to_entries, to_messages
from greenroom.actors.frameworks.agentscope1_memory import AgentScopeSessionHistoryMemory
from kits.agentscope1_agents import Scripted, an_agent, ask, calls, says, serving, tool_says

pytestmark = pytest.mark.agentscope1

# -- without loss --------------------------------------------------------------------------------------------------

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
objects = st.dictionaries(words, json, max_size=3)
sources = st.one_of(
    st.fixed_dictionaries({"type": st.just("url"), "url": words | st.just("data:image/png;base64,AA==")}),
    st.fixed_dictionaries(
        {
            "type": st.just("base64"),
            "media_type": st.sampled_from(["image/png", "audio/wav", "audio/x-odd;rate=8", "video/mp4", ""]),
            "data": st.sampled_from(["AA==", "", "not base64"]),
        }
    ),
)
plain_blocks = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": words}, optional={"odd": json}),
    st.fixed_dictionaries({"type": st.sampled_from(["image", "audio", "video"]), "source": sources}),
)
blocks = st.one_of(
    plain_blocks,
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": words}, optional={"signature": words}),
    st.fixed_dictionaries(
        {"type": st.just("tool_use"), "id": words, "name": words, "input": objects},
        optional={"raw_input": words | st.just('{"q": 1}')},
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("tool_result"),
            "id": words,
            "name": words,
            "output": words | st.lists(plain_blocks, max_size=2),
        }
    ),
    st.fixed_dictionaries({"type": st.just("hologram"), "light": json}),
)


@st.composite
def a_msg(draw: st.DrawFn) -> Msg:
    msg = Msg(
        draw(words),
        draw(words | st.lists(blocks, max_size=5)),
        draw(st.sampled_from(["user", "assistant", "system"])),
        metadata=draw(objects),
        timestamp=draw(st.none() | st.just("2026-01-02 03:04:05.678")),
        invocation_id=draw(st.none() | words),
    )
    msg.metadata = draw(st.sampled_from([None, msg.metadata]))
    return msg


def looks(msg: Msg) -> dict[str, Any]:
    return {**msg.to_dict(), "invocation_id": msg.invocation_id}


@given(st.lists(st.tuples(a_msg(), st.lists(words, max_size=2)), max_size=5))
def test_a_msg_comes_back_as_it_was(given: list[tuple[Msg, list[str]]]) -> None:
    stored = [message for msg, marks in given for message in to_messages(msg, marks)]
    assert [(looks(entry.msg), entry.marks) for entry in to_entries(stored)] == [
        (looks(m), marks) for m, marks in given
    ]


@given(st.lists(a_msg(), max_size=3))
async def test_a_msg_comes_back_from_a_service_as_it_was(given: list[Msg]) -> None:
    async with InMemorySessionHistoryService() as service:
        await memory_of(service).add(given)
        assert [looks(msg) for msg in await memory_of(service).get_memory()] == [looks(msg) for msg in given]


def test_a_msg_is_stored_as_messages_that_others_can_read() -> None:
    msg = Msg(
        "Friday",
        [
            {"type": "thinking", "thinking": "hm"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "c1", "name": "search", "input": {"q": 1}, "raw_input": '{"q": 1}'},
            {"type": "tool_result", "id": "c1", "name": "search", "output": "found"},
        ],
        "assistant",
    )
    reasoning, message, call, output = to_messages(msg)
    assert (reasoning.type, reasoning.content) == ("reasoning", (Text("hm"),))
    assert (message.type, message.role, message.content) == ("message", "assistant", (Text("I look."),))
    assert call.content == (Data({"call_id": "c1", "name": "search", "arguments": '{"q": 1}'}),)
    assert (output.type, output.role) == ("plugin_call_output", "tool")
    assert output.content == (
        Data({"call_id": "c1", "name": "search", "output": '[{"type":"text","text":"found"}]'}),
    )


def test_messages_that_came_from_no_msg_are_read_as_a_handler_would_get_them() -> None:
    own = to_messages(
        Msg("Friday", [{"type": "thinking", "thinking": "a"}, {"type": "text", "text": "b"}], "assistant")
    )
    foreign = Message((Text("hi"),), id="m1")
    broken = Message((Data({"no": "call"}),), "assistant", "plugin_call")
    read = to_entries([foreign, own[0], *own, broken])
    assert [entry.msg.get_text_content() for entry in read] == ["hi", None, "b", '{"no":"call"}']
    assert (read[0].msg.id, read[0].msg.role) == ("m1", "user")


# -- what InMemoryMemory does --------------------------------------------------------------------------------------


def memory_of(service: InMemorySessionHistoryService) -> AgentScopeSessionHistoryMemory:
    return AgentScopeSessionHistoryMemory(service=service, session_id="s", user_id="u")


@contextmanager
def a_turn(number: int = 1) -> Iterator[Work]:
    """Inside a turn, as an actor makes one."""
    token = current_turn.set(TurnScope(SessionKey("u", "s"), f"turn{number}"))
    try:
        with in_turn(f"turn{number}") as work:
            yield work
    finally:
        current_turn.reset(token)


MARKS = ["hint", "compressed", "mine"]
marks = st.sampled_from([None, *MARKS]) | st.lists(st.sampled_from(MARKS), unique=True)
a_mark = st.sampled_from(MARKS)
ids = st.lists(st.integers(0, 5), max_size=3)
operations = st.one_of(
    st.tuples(st.just("add"), ids, marks, st.booleans()),
    st.tuples(st.just("delete"), ids),
    st.tuples(st.just("delete_by_mark"), a_mark | st.lists(a_mark, max_size=2)),
    st.tuples(st.just("update"), st.none() | a_mark, st.none() | a_mark, st.none() | ids),
    st.tuples(st.just("get"), st.none() | a_mark, st.none() | a_mark),
    st.tuples(st.just("summary"), words),
    st.tuples(st.just("size")),
    st.tuples(st.just("clear")),
)
POOL = [Msg("u", f"message {number}", "user") for number in range(6)]


async def perform(memory: Any, operation: tuple[Any, ...]) -> Any:
    name, *given = operation
    if name == "add":
        msgs = [POOL[number] for number in given[0]]
        return await memory.add(msgs, marks=given[1], allow_duplicates=given[2])
    if name == "delete":
        return await memory.delete([POOL[number].id for number in given[0]])
    if name == "delete_by_mark":
        return await memory.delete_by_mark(given[0])
    if name == "update":
        chosen = None if given[2] is None else [POOL[number].id for number in given[2]]
        return await memory.update_messages_mark(given[0], old_mark=given[1], msg_ids=chosen)
    if name == "get":
        return said(await memory.get_memory(mark=given[0], exclude_mark=given[1]))
    if name == "summary":
        return await memory.update_compressed_summary(given[0])
    return await (memory.size() if name == "size" else memory.clear())


def said(msgs: list[Msg]) -> list[str | None]:
    return [msg.get_text_content() for msg in msgs]


@given(st.lists(operations, max_size=15), st.booleans())
async def test_it_does_what_agentscopes_own_memory_does(script: list[tuple[Any, ...]], turns: bool) -> None:
    async with InMemorySessionHistoryService() as service:
        theirs, ours = InMemoryMemory(), memory_of(service)
        for number, operation in enumerate(script):
            expected = await perform(theirs, operation)
            if not turns:
                assert await perform(ours, operation) == expected
                continue
            with a_turn(number) as work:
                assert await perform(ours, operation) == expected
                work.commit()
        await theirs.delete_by_mark("hint")
        again = memory_of(service)
        again.load_state_dict(ours.state_dict())
        assert said(await again.get_memory()) == said(await theirs.get_memory())
        for mark in MARKS:
            assert said(await again.get_memory(mark=mark)) == said(await theirs.get_memory(mark=mark))


@pytest.mark.parametrize("bad", [1, [1], ("a",)])
async def test_marks_are_text(bad: Any) -> None:
    async with InMemorySessionHistoryService() as service:
        memory = memory_of(service)
        with pytest.raises(TypeError):
            await memory.add(POOL[0], marks=bad)
        with pytest.raises(TypeError):
            await memory.delete_by_mark(bad)
        with pytest.raises(TypeError):
            await memory.get_memory(mark=bad)


async def test_what_is_added_is_a_copy() -> None:
    async with InMemorySessionHistoryService() as service:
        memory, msg = memory_of(service), Msg("u", [{"type": "text", "text": "before"}], "user")
        await memory.add(msg)
        msg.content[0]["text"] = "after"
        assert said(await memory.get_memory()) == ["before"]


async def test_adding_nothing() -> None:
    async with InMemorySessionHistoryService() as service:
        await memory_of(service).add(None, marks="hint")
        assert await memory_of(service).size() == 0


# -- with the service ----------------------------------------------------------------------------------------------


class Counted(InMemorySessionHistoryService):
    """A service that counts what is asked of it."""

    reads = 0
    rewrites = 0

    async def get_session(self, user_id: str, session_id: str) -> Session | None:
        self.reads += 1
        return await super().get_session(user_id, session_id)

    async def replace_messages(self, session: Session, messages: Any) -> None:
        self.rewrites += 1
        await super().replace_messages(session, messages)


async def test_adding_in_a_turn_reads_the_history_once_and_rewrites_nothing() -> None:
    service = Counted()
    async with service:
        await memory_of(service).add(deepcopy(POOL))
        memory = memory_of(service)
        service.reads = 0
        with a_turn() as work:
            for number in range(20):
                await memory.add(Msg("a", f"more {number}", "assistant"))
                await memory.add(Msg("u", "psst", "user"), marks="hint")
                assert await memory.delete_by_mark("hint") == 1
            assert service.reads == 1
            work.commit()
        assert service.rewrites == 0
        assert len(await memory_of(service).get_memory()) == len(POOL) + 20


async def test_hints_never_reach_the_service() -> None:
    async with InMemorySessionHistoryService() as service:
        memory = memory_of(service)
        await memory.add(POOL[0])
        await memory.add(POOL[1], marks="hint")
        assert said(await memory.get_memory()) == ["message 0", "message 1"]
        assert said(await memory_of(service).get_memory()) == ["message 0"]


async def test_a_turn_that_fails_leaves_nothing_in_a_memory_that_lives_on() -> None:
    async with InMemorySessionHistoryService() as service:
        memory = memory_of(service)
        with a_turn(1) as work:
            await memory.add(POOL[0])
            work.commit()
        with a_turn(2) as work:
            await memory.add(POOL[1])
            work.roll_back()
            with pytest.raises(TurnOver):
                await memory.add(POOL[2])
        with a_turn(3) as work:
            await memory.add(POOL[3])
            work.commit()
        assert said(await memory.get_memory()) == ["message 0", "message 3"]


async def test_what_others_write_is_seen() -> None:
    async with InMemorySessionHistoryService() as service:
        one, two = memory_of(service), memory_of(service)
        await one.add(POOL[0])
        await two.add(POOL[1])
        await service.append_message(Session("s", "u"), Message((Text("from elsewhere"),)))
        assert (
            said(await one.get_memory())
            == said(await two.get_memory())
            == ["message 0", "message 1", "from elsewhere"]
        )
        await two.clear()
        assert await one.size() == 0


async def test_a_history_that_lost_its_oldest_messages_is_read_as_it_is() -> None:
    async with InMemorySessionHistoryService(messages_kept=3) as service:
        memory = memory_of(service)
        for msg in POOL:
            await memory.add(msg)
        assert said(await memory.get_memory()) == ["message 3", "message 4", "message 5"]


async def test_adding_at_once() -> None:
    async with InMemorySessionHistoryService() as service:
        memory = memory_of(service)
        await asyncio.gather(*(memory.add(msg) for msg in POOL))
        assert sorted(map(str, said(await memory_of(service).get_memory()))) == sorted(map(str, said(POOL)))


# -- state ---------------------------------------------------------------------------------------------------------


async def test_the_state_is_the_summary() -> None:
    async with InMemorySessionHistoryService() as service:
        memory = memory_of(service)
        await memory.add(POOL[0])
        await memory.update_compressed_summary("we met")
        assert memory.state_dict() == {"_compressed_summary": "we met"}
        again = memory_of(service)
        again.load_state_dict(memory.state_dict())
        assert said(await again.get_memory()) == ["we met", "message 0"]
        assert said(await again.get_memory(prepend_summary=False)) == ["message 0"]


async def test_messages_in_a_state_move_into_an_empty_history() -> None:
    before = InMemoryMemory()
    await before.add(POOL[0], marks="mine")
    await before.update_compressed_summary("we met")
    async with InMemorySessionHistoryService() as service:
        memory = memory_of(service)
        memory.load_state_dict(before.state_dict())
        assert said(await memory.get_memory(mark="mine")) == ["we met", "message 0"]
        again = memory_of(service)
        again.load_state_dict({"content": [POOL[1].to_dict()]})
        assert said(await again.get_memory()) == ["message 0"]


# -- with an agent -------------------------------------------------------------------------------------------------


def search() -> ToolResponse:
    """A tool."""
    return tool_says("found")


async def test_an_agent_remembers_over_turns_and_a_cancelled_turn_is_forgotten() -> None:
    models = [
        Scripted(calls("search"), says("one")),
        Scripted(says("lost"), hang=True),
        Scripted(says("three")),
    ]
    made = iter(models)
    async with InMemorySessionHistoryService() as service:

        async def answer(msgs: Any) -> AsyncIterator[Any]:
            agent = an_agent(next(made), search, memory=memory_of(service))
            async for item in stream_printing_messages([agent], agent(msgs)):
                yield item

        async with serving(answer) as system:
            assert isinstance(await ask(system, "a"), TurnCompleted)
            log = await system.submit(turn("b"))
            await models[1].hanging.wait()
            await system.cancel(log.id)
            assert isinstance(await log.ended(), TurnCancelled)
            assert isinstance(await ask(system, "c"), TurnCompleted)
        session = await service.get_session("u", "s")
    prompt = [(message["role"], message.get("content")) for message in models[2].asked[0]]
    assert [role for role, _ in prompt] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert session is not None
    kinds = [message.type for message in session.messages]
    assert kinds == ["message", "plugin_call", "plugin_call_output", "message", "message", "message"]


async def test_an_agent_that_compresses_its_memory() -> None:
    class Summarizing(Scripted):
        async def __call__(self, prompt: Any, *args: Any, structured_model: Any = None, **kwargs: Any) -> Any:
            responses = await super().__call__(prompt)
            if structured_model is None:
                return responses

            async def stream() -> AsyncIterator[Any]:
                async for response in responses:
                    response.metadata = dict.fromkeys(structured_model.model_fields, "short")
                    yield response

            return stream()

    async with InMemorySessionHistoryService() as service:
        config = ReActAgent.CompressionConfig(
            enable=True, agent_token_counter=CharTokenCounter(), trigger_threshold=10, keep_recent=1
        )
        memory = memory_of(service)
        model = Summarizing(says("one"), says("summary"), says("two"))
        agent = an_agent(model, memory=memory, compression_config=config)
        await agent(Msg("u", "a" * 100, "user"))
        await agent(Msg("u", "b", "user"))
        again = memory_of(service)
        again.load_state_dict(memory.state_dict())
        kept = said(await again.get_memory(exclude_mark="compressed"))
        assert "short" in str(kept[0])
        assert kept[1:] == ["b", "two"]
        assert said(await again.get_memory(mark="compressed", prepend_summary=False)) == ["a" * 100, "one"]
