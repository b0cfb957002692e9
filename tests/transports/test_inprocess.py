"""The in-process transport."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest

from greenroom import AgentApp, AgentRequest, Disconnect, InvalidRequest, Message, NotServing, Text
from greenroom.actors.errors import GreenroomError
from greenroom.actors.events import TERMINAL, Event, TextDelta, TurnCancelled, TurnCompleted
from kits.grammar import check_events
from kits.system import said
from kits.transport_kit import Exchange, Refused, Script, TransportKit


class InProcessExchange:
    """A turn read through a log's iterator."""

    def __init__(self, turn_id: str, events: Any) -> None:
        self.id = turn_id
        self._events = events
        self._last: Event | None = None

    def __repr__(self) -> str:
        return f"<{self.id} {self._last}>"

    async def next_text(self) -> str:
        async for event in self._events:
            self._last = event
            if isinstance(event, TextDelta):
                return event.text
        raise StopAsyncIteration

    async def ending(self) -> tuple[Literal["completed", "failed", "cancelled"], str]:
        async for event in self._events:
            self._last = event
        assert isinstance(self._last, TERMINAL)
        if isinstance(self._last, TurnCompleted):
            return "completed", said(self._last)
        return "cancelled" if isinstance(self._last, TurnCancelled) else "failed", said(self._last)

    async def leave(self) -> None:
        await self._events.aclose()


class InProcessClient:
    def __init__(self, app: AgentApp) -> None:
        self._app = app

    async def ask(self, text: str, session: str, **options: Any) -> Exchange:
        if "disconnect" in options:
            options["disconnect"] = Disconnect(options["disconnect"])
        try:
            stream = self._app.process(text, session_id=session, **options)
            await stream.submit()
        except GreenroomError as error:
            raise Refused(error.code) from error
        return InProcessExchange(stream.id, aiter(stream))

    async def rejoin(self, turn_id: str) -> Exchange:
        try:
            events = self._app.follow(turn_id)
            await anext(events)  # it is accepted
            return InProcessExchange(turn_id, events)
        except GreenroomError as error:
            raise Refused(error.code) from error

    async def cancel(self, turn_id: str) -> None:
        try:
            await self._app.cancel(turn_id)
        except GreenroomError as error:
            raise Refused(error.code) from error


class TestInProcess(TransportKit):
    @asynccontextmanager
    async def connect(self, app: AgentApp) -> AsyncIterator[InProcessClient]:
        async with app:
            yield InProcessClient(app)


async def test_a_request_may_be_text_or_whole() -> None:
    async with Script().app as app:
        assert said(await app.process("hello").result()) == "hello"
        request = AgentRequest(input=(Message((Text("hi"),)),), session_id="s", user_id="u", id="mine")
        stream = app.process(request)
        assert (stream.id, tuple(stream.key)) == ("mine", ("u", "s"))
        check_events([event async for event in stream])


async def test_without_a_session_each_turn_has_one_of_its_own_and_the_user_is_named_after_it() -> None:
    async with Script().app as app:
        first, second = app.process("a"), app.process("b")
        assert first.key != second.key
        assert first.key.user_id == first.key.session_id


async def test_an_empty_request_is_refused() -> None:
    async with Script().app as app:
        with pytest.raises(InvalidRequest) as refused:
            app.process(AgentRequest(input=()))
        assert refused.value.field == "input"


async def test_outside_of_its_life_an_application_says_so() -> None:
    script = Script()
    with pytest.raises(NotServing, match="async with app"):
        script.app.process("hello")
    async with script.app:
        pass
    with pytest.raises(NotServing):
        script.app.process("hello")


async def test_several_applications_share_a_loop_and_none_touches_signals() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    scripts = [Script() for _ in range(3)]
    async with scripts[0].app as a, scripts[1].app as b, scripts[2].app as c:
        endings = await asyncio.gather(
            *(app.process("count", session_id="s").result() for app in (a, b, c, a))
        )
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert sorted(said(ending) for ending in endings) == ["1", "1", "1", "2"]


async def test_an_application_may_live_again() -> None:
    script = Script()
    for _ in range(2):
        async with script.app as app:
            assert said(await app.process("again").result()) == "again"


def request_of(*content: Any, **fields: Any) -> AgentRequest:
    return AgentRequest(input=(Message(*content),), **fields)


@pytest.mark.parametrize(
    ("request_", "arguments", "field"),
    [
        ("x", {"overlap": "replace"}, "overlap"),
        ("x", {"disconnect": "go"}, "disconnect"),
        ("x", {"disconnect": 5}, "disconnect"),
        ("x", {"session_id": 5}, "session_id"),
        ("x", {"session_id": "a\0"}, "session_id"),
        ("x", {"user_id": 5}, "user_id"),
        (5, {}, "request"),
        (None, {}, "request"),
        ({}, {}, "input"),
        ({"input": []}, {}, "input"),
        ({"input": [{"content": 5}]}, {}, "input[0].content"),
        ({"input": [{"content": "x"}], "overlap": "replace"}, {}, "overlap"),
        (AgentRequest(input=()), {}, "input"),
        (AgentRequest(input="x"), {}, "input"),  # type: ignore[arg-type]
        (AgentRequest(input=("x",)), {}, "input[0]"),  # type: ignore[arg-type]
        (request_of("x"), {}, "input[0].content"),
        (request_of(("x",)), {}, "input[0].content"),
        (request_of((Text("x"),), id=5), {}, "id"),
    ],
)
async def test_what_cannot_be_a_turn_is_refused_at_once_and_named(
    request_: Any, arguments: Any, field: str
) -> None:
    async with Script().app as app:
        with pytest.raises(InvalidRequest) as caught:
            app.process(request_, **arguments)
        assert caught.value.field == field
        assert app.statistics().accepted_turns == 0


async def test_a_dictionary_is_read_as_process_reads_it() -> None:
    asked = {
        "input": [{"content": "hello"}],
        "session_id": "s",
        "overlap": "reject",
        "disconnect": "grace=5s",
        "mine": 1,
    }
    async with Script().app as app:
        stream = app.process(asked)
        turn = (await stream.submit()).turn
        assert said(await stream.result()) == "hello"
        assert (turn.key.session_id, turn.overlap, turn.disconnect) == (
            "s",
            "reject",
            Disconnect("grace", 5.0),
        )
        assert turn.request.extra["mine"] == 1
        other = app.process(asked, session_id="t", overlap="queue", disconnect="cancel")
        turn = (await other.submit()).turn
        assert (turn.key.session_id, turn.overlap, turn.disconnect) == ("t", "queue", Disconnect("cancel"))
        await other.result()
    assert "session_id" in asked
