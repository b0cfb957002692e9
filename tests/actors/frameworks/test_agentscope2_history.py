"""AgentScope 2.x agents that read and write a session's history."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kits.agentscope_line import require_line

require_line(2)

from agentscope.agent import Agent, ContextConfig
from agentscope.event import ConfirmResult, UserConfirmResultEvent
from agentscope.message import (
    Base64Source,
    DataBlock,
    HintBlock,
    Msg,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolCallState,
    ToolResultBlock,
    ToolResultState,
    URLSource,
    Usage,
)
from agentscope.model import ChatResponse
from agentscope.state import AgentState
from agentscope.types import ErrorInfo, ErrorType, ReplyFinishedReason

from greenroom.actors.frameworks.agentscope2 import AgentScope2Adapter
from greenroom.actors.frameworks.agentscope2_form import messages_of, msgs_of_history
from greenroom.actors.frameworks.agentscope2_history import AgentScopeSessionHistoryMiddleware
from greenroom.actors.messages import Data, Image, Message, Text
from greenroom.services.session_history import InMemorySessionHistoryService
from kits.agentscope2_agents import Said, agent, events_of, say, think, use, user
from kits.in_turn import in_turn

pytestmark = pytest.mark.agentscope2

# -- the form ----------------------------------------------------------------------------------------------------------

words = st.text(max_size=8)
names = st.text(min_size=1, max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | words, lambda inner: st.lists(inner, max_size=2)
)
dicts = st.dictionaries(words, values, max_size=2)
times = st.none() | st.just("2026-01-02T03:04:05.000006")
media_types = st.sampled_from(
    ["image/png", "audio/mpeg", "audio/wav", "video/mp4", "text/csv;a=b", "x", "", "image/"]
)
urls = st.sampled_from(["https://e.org/a?b=c#d", "http://e.org", "oss://bucket/key", "https://e.org/ä b"])
sources = st.builds(Base64Source, data=words, media_type=media_types) | st.builds(
    URLSource, url=urls, media_type=media_types
)
text_blocks = st.builds(TextBlock, text=words, id=names, finished_at=times)
data_blocks = st.builds(DataBlock, source=sources, name=st.none() | names, finished_at=times)
outputs = words | st.lists(text_blocks | data_blocks, max_size=3)
blocks = st.one_of(
    text_blocks,
    data_blocks,
    st.builds(ThinkingBlock, thinking=words, signature=words, finished_at=times),
    st.builds(HintBlock, hint=outputs, source=st.none() | words, finished_at=times),
    st.builds(ToolCallBlock, id=names, name=names, input=words, state=st.sampled_from(ToolCallState)),
    st.builds(
        ToolResultBlock,
        id=names,
        name=names,
        output=outputs,
        state=st.sampled_from(ToolResultState),
        metadata=dicts,
    ),
)
about: dict[str, Any] = {
    "name": names,
    "metadata": dicts,
    "finished_at": times,
    "finished_reason": st.none() | st.sampled_from(ReplyFinishedReason),
    "usage": st.none() | st.builds(Usage, input_tokens=st.integers(0, 9), output_tokens=st.integers(0, 9)),
    "structured_output": st.none() | dicts,
    "error": st.none() | st.builds(ErrorInfo, type=st.sampled_from(ErrorType), message=words),
}
msgs = st.one_of(
    st.builds(Msg, role=st.just("assistant"), content=st.lists(blocks, max_size=5), **about),
    st.builds(Msg, role=st.just("user"), content=st.lists(text_blocks | data_blocks, max_size=3), **about),
    st.builds(Msg, role=st.just("system"), content=st.lists(text_blocks, max_size=3), **about),
)


@given(st.lists(msgs, max_size=4))
def test_messages_come_back_as_they_went(sent: list[Msg]) -> None:
    stored = [message for msg in sent for message in messages_of(msg)]
    assert [msg.model_dump() for msg in msgs_of_history(stored)] == [msg.model_dump() for msg in sent]
    assert len({message.id for message in stored}) == len(stored)


@given(st.lists(msgs, max_size=3))
async def test_the_service_keeps_all_of_them(sent: list[Msg]) -> None:
    async with InMemorySessionHistoryService() as service:
        session = await service.create_session("u", "s")
        for msg in sent:
            await service.append_message(session, messages_of(msg))
        kept = await service.get_session("u", "s")
        assert kept is not None
    assert [msg.model_dump() for msg in msgs_of_history(kept.messages)] == [msg.model_dump() for msg in sent]


@given(
    st.builds(Msg, role=st.just("assistant"), content=st.lists(blocks, min_size=1, max_size=6), **about),
    st.data(),
)
def test_a_reply_that_is_written_in_two_goes_is_one_message(msg: Msg, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(msg.content)))
    stored = messages_of(msg, msg.content[:cut]) + messages_of(msg, msg.content[cut:], cut)
    (back,) = msgs_of_history(stored)
    assert back.model_dump() == msg.model_dump()


@given(st.lists(msgs, min_size=1, max_size=3), st.data())
def test_a_history_that_dropped_its_oldest_can_be_read(sent: list[Msg], data: st.DataObject) -> None:
    stored = [message for msg in sent for message in messages_of(msg)]
    kept = stored[data.draw(st.integers(0, len(stored))) :]
    back = msgs_of_history(kept)
    assert [msg.id for msg in back] == [msg.id for msg in sent[len(sent) - len(back) :]]


def test_whoever_reads_the_history_finds_messages_of_the_usual_kinds() -> None:
    msg = Msg(
        name="Friday",
        role="assistant",
        content=[
            ThinkingBlock(thinking="hm"),
            HintBlock(hint="12:00"),
            TextBlock(text="I look."),
            ToolCallBlock(id="1", name="look", input="{}"),
            ToolResultBlock(id="1", name="look", output=[TextBlock(text="a cat")]),
            TextBlock(text="A cat:"),
            DataBlock(source=Base64Source(data="aGk=", media_type="image/png")),
        ],
    )
    read = [(message.type, message.role, message.content) for message in messages_of(msg)]
    output = '[{"type":"text","text":"a cat"}]'
    assert read == [
        ("reasoning", "assistant", (Text("hm"),)),
        ("message", "system", (Text("12:00"),)),
        ("message", "assistant", (Text("I look."),)),
        ("plugin_call", "assistant", (Data({"call_id": "1", "name": "look", "arguments": "{}"}),)),
        ("plugin_call_output", "tool", (Data({"call_id": "1", "name": "look", "output": output}),)),
        ("message", "assistant", (Text("A cat:"), Image("data:image/png;base64,aGk="))),
    ]


def test_messages_of_other_origin_are_read_too() -> None:
    one, two = msgs_of_history([Message((Text("hi"),), name="alice"), Message((Text("hello"),), "assistant")])
    assert (one.name, one.role, one.get_text_content()) == ("alice", "user", "hi")
    assert (two.role, two.get_text_content()) == ("assistant", "hello")


# -- the middleware ----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _adapter() -> None:
    AgentScope2Adapter()


@pytest.fixture
async def service() -> AsyncIterator[InMemorySessionHistoryService]:
    async with InMemorySessionHistoryService() as started:
        yield started


def remembers(
    service: InMemorySessionHistoryService, session: str = "s"
) -> AgentScopeSessionHistoryMiddleware:
    return AgentScopeSessionHistoryMiddleware(service=service, session_id=session, user_id="u")


async def turn(
    service: InMemorySessionHistoryService, text: str, model: Said, *functions: Any, **kwargs: Any
) -> Agent:
    """One turn in the manner of the tutorial: an agent made for it."""
    friday = agent(model, *functions, middlewares=[remembers(service)], **kwargs)
    await events_of(friday, user(text))
    return friday


async def kept(service: InMemorySessionHistoryService, session: str = "s") -> list[Message]:
    found = await service.get_session("u", session)
    assert found is not None
    return found.messages


async def told(service: InMemorySessionHistoryService) -> list[str]:
    """The history's texts, without AgentScope's notes."""
    return [
        part.text
        for message in await kept(service)
        if message.role != "system"
        for part in message.content
        if isinstance(part, Text)
    ]


def context(friday: Agent) -> list[str | None]:
    return [msg.get_text_content() for msg in friday.state.context]


def asked(model: Said) -> list[str]:
    return [text for msg in model.asked[-1] if (text := msg.get_text_content()) is not None][1:]


async def test_an_agent_made_for_a_turn_knows_the_turns_before(
    service: InMemorySessionHistoryService,
) -> None:
    await turn(service, "My name is Alice.", Said(say("Hello Alice.")))
    model = Said(say("Alice."))
    await turn(service, "What is my name?", model)
    assert asked(model) == ["My name is Alice.", "Hello Alice.", "What is my name?"]
    assert await told(service) == ["My name is Alice.", "Hello Alice.", "What is my name?", "Alice."]


async def test_the_context_comes_back_block_by_block(service: InMemorySessionHistoryService) -> None:
    def look(where: str) -> str:
        """Look somewhere."""
        return f"a cat {where}"

    model = Said([*think("hm"), *use(("1", "look", '{"where": "there"}'))], say("A cat."))
    first = await turn(service, "Look.", model, look)
    second = await turn(service, "Again.", Said(say("The same.")))
    loaded, before = second.state.context[:2], first.state.context
    assert [msg.model_dump() for msg in loaded] == [msg.model_dump() for msg in before]


async def test_sessions_do_not_meet(service: InMemorySessionHistoryService) -> None:
    for session in ("one", "two"):
        friday = agent(Said(say(f"in {session}")), middlewares=[remembers(service, session)])
        await events_of(friday, user(session))
    assert [len(await kept(service, session)) for session in ("one", "two")] == [3, 3]


async def test_state_and_history_together_say_nothing_twice(service: InMemorySessionHistoryService) -> None:
    state: dict[str, Any] | None = None
    expected: list[str] = []
    for number in range(4):
        restored = AgentState.model_validate(state) if state else None
        model = Said(say(f"a{number}"))
        friday = await turn(service, f"q{number}", model, state=restored)
        state = friday.state.model_dump(mode="json")
        assert asked(model) == [*expected, f"q{number}"]
        expected += [f"q{number}", f"a{number}"]
        assert context(friday) == await told(service) == expected


async def test_a_warm_agent_reads_what_others_have_added(service: InMemorySessionHistoryService) -> None:
    model = Said(say("a0"), say("a2"))
    warm = await turn(service, "q0", model)
    await turn(service, "q1", Said(say("a1")))
    await events_of(warm, user("q2"))
    assert asked(model) == ["q0", "a0", "q1", "a1", "q2"]
    assert await told(service) == ["q0", "a0", "q1", "a1", "q2", "a2"]


async def test_a_state_that_is_older_than_the_history_catches_up(
    service: InMemorySessionHistoryService,
) -> None:
    state = (await turn(service, "q0", Said(say("a0")))).state.model_dump(mode="json")
    await turn(service, "q1", Said(say("a1")))
    model = Said(say("a2"))
    await turn(service, "q2", model, state=AgentState.model_validate(state))
    assert asked(model) == ["q0", "a0", "q1", "a1", "q2"]


async def test_a_state_from_before_the_history_says_nothing_twice(
    service: InMemorySessionHistoryService,
) -> None:
    first = await turn(service, "q0", Said(say("a0")))
    state = first.state.model_copy(update={"middle_context": {}})
    model = Said(say("a1"))
    await turn(service, "q1", model, state=state)
    assert asked(model) == ["q0", "a0", "q1"]


async def test_a_failed_reply_leaves_the_history_as_it_was(service: InMemorySessionHistoryService) -> None:
    await turn(service, "q0", Said(say("a0")))
    before = await kept(service)
    with pytest.raises(RuntimeError, match="gone"):
        await turn(service, "q1", Said(RuntimeError("gone")))
    assert await kept(service) == before


async def test_a_turn_that_is_rolled_back_leaves_the_history_as_it_was(
    service: InMemorySessionHistoryService,
) -> None:
    await turn(service, "q0", Said(say("a0")))
    with in_turn() as work:
        await turn(service, "q1", Said(say("a1")))
        assert await told(service) == ["q0", "a0", "q1", "a1"], "the turn reads its own writes"
    work.roll_back()
    assert await told(service) == ["q0", "a0"]


class Small(Said):
    """A model whose context is so short that it has to be compressed."""

    def __init__(self, *replies: Any) -> None:
        super().__init__(*replies)
        self.context_size = 400

    async def generate_structured_output(self, messages: list[Msg], *args: Any, **kwargs: Any) -> Any:
        summary: Any = dict.fromkeys(
            ("task_overview", "current_state", "important_discoveries", "next_steps"), "x"
        )
        return ChatResponse(content=summary | {"context_to_preserve": "x"}, is_last=True)


async def test_what_is_compressed_away_is_kept_in_the_history(service: InMemorySessionHistoryService) -> None:
    state = AgentState()
    expected: list[str] = []
    for number in range(4):
        model = Small(say(f"a{number} " * 60))
        config = ContextConfig(trigger_ratio=0.5, reserve_ratio=0.1)
        friday = await turn(service, f"q{number} " * 60, model, state=state, context_config=config)
        state = AgentState.model_validate(friday.state.model_dump(mode="json"))
        expected += [f"q{number} " * 60, f"a{number} " * 60]
    assert state.summary
    assert len("".join(msg.get_text_content() or "" for msg in state.context)) < len("".join(expected))
    assert await told(service) == expected


async def test_a_reply_that_is_resumed_is_one_message(service: InMemorySessionHistoryService) -> None:
    def erase() -> str:
        """Erase everything."""
        return "erased"

    def make(model: Said) -> Agent:
        return agent(model, erase, permission=None, middlewares=[remembers(service)])

    *_, asking = await events_of(make(Said(use(("1", "erase", "{}")))), user("erase it"))
    results = [ConfirmResult(confirmed=True, tool_call=call) for call in asking.tool_calls]
    again = make(Said(say("Done.")))
    again.state.reply_id = asking.reply_id
    confirmed = UserConfirmResultEvent(reply_id=asking.reply_id, confirm_results=results)
    _ = [event async for event in again.reply_stream(confirmed)]
    last = await turn(service, "thanks", Said(say("Welcome.")))
    question, reply, *_ = last.state.context
    assert question.get_text_content() == "erase it"
    assert [block.type for block in reply.content if block.type != "hint"] == [
        "tool_call",
        "tool_result",
        "text",
    ]
    assert reply.get_content_blocks("tool_call")[0].state == ToolCallState.FINISHED


async def test_a_history_that_dropped_a_call_drops_its_result() -> None:
    def look() -> str:
        """Look."""
        return "a cat"

    async with InMemorySessionHistoryService(messages_kept=2) as service:
        await turn(service, "Look.", Said(use(("1", "look", "{}")), say("A cat.")), look)
        assert [message.type for message in await kept(service)] == ["plugin_call_output", "message"]
        model = Said(say("Bye."))
        await turn(service, "Bye.", model)
    assert asked(model) == ["A cat.", "Bye."]
    assert not any(msg.has_content_blocks("tool_result") for msg in model.asked[-1])


async def test_appending_costs_the_same_however_long_the_history_is(
    service: InMemorySessionHistoryService,
) -> None:
    written: list[int] = []

    class Counting(InMemorySessionHistoryService):
        async def append_message(self, session: Any, message: Any) -> None:
            written.append(len(message))
            await super().append_message(session, message)

    async with Counting() as counting:
        for number in range(12):
            await turn(counting, f"q{number}", Said(say("ok")))
    assert len(set(written[1:])) == 1
