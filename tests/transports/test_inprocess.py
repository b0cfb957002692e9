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
