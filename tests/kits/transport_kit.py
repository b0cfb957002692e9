"""The conformance kit for transports: what every carrier must keep, whatever it speaks.

Subclass `TransportKit` in a test module, say how a client connects, and pytest runs the rest::

    class TestMine(TransportKit):
        @asynccontextmanager
        async def connect(self, app: AgentApp) -> AsyncIterator[Client]:
            mine = MyTransport()
            await app.start(mine)
            try:
                yield MyClient(mine.address)
            finally:
                await app.stop()

The client does no more than its protocol offers; what it is asked for is in `Client` and `Exchange`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol

import pytest

from greenroom import AgentApp, Limits
from greenroom.actors.errors import GreenroomError
from kits.system import asked


class Refused(Exception):
    """The transport refused a turn, with this code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Exchange(Protocol):
    """One turn, from the client's side."""

    id: str

    async def next_text(self) -> str:
        """The next piece of text. Raises `StopAsyncIteration` at the end."""
        ...

    async def ending(self) -> tuple[Literal["completed", "failed", "cancelled"], str]:
        """Read to the end: how it ended, and all text of the whole answer."""
        ...

    async def leave(self) -> None:
        """Hang up in the middle."""
        ...


class Client(Protocol):
    """One client of a running application."""

    async def ask(self, text: str, session: str, **options: Any) -> Exchange:
        """Send a turn. `options`: `overlap`, `disconnect` as the requests' fields. Raises `Refused`."""
        ...

    async def rejoin(self, turn_id: str) -> Exchange:
        """Follow a turn from its beginning. Raises `Refused`."""
        ...

    async def cancel(self, turn_id: str) -> None:
        """Stop a turn. Raises `Refused`."""
        ...


class Script:
    """An application whose handler does what the message says, and waits for the test where it says so."""

    def __init__(self, **options: Any) -> None:
        self.gate = asyncio.Event()
        self.asked: list[str] = []
        self.ended = asyncio.Event()
        options.setdefault("limits", Limits(cancel_seconds=1))
        options.setdefault("drain_seconds", 0)
        self.app = AgentApp("Script", **options)
        self.app.query()(self.answer)

    async def answer(self, msgs: Any) -> AsyncIterator[str]:
        text = asked(msgs[-1])
        self.asked.append(text)
        try:
            async for piece in self._say(text):
                yield piece
        finally:
            self.ended.set()

    async def _say(self, text: str) -> AsyncIterator[str]:
        if text == "fail":
            yield "so far"
            raise ValueError("internal matter")
        if text == "wait":
            yield "waiting"
            await self.gate.wait()
            yield " no more"
        elif text == "count":
            await asyncio.sleep(0)
            yield str(self.asked.count("count"))
        else:
            for word in text.split():
                yield word


class TransportKit:
    """The laws, seen from a client."""

    def connect(self, app: AgentApp) -> AbstractAsyncContextManager[Client]:
        """Start `app` with the transport, give a client, stop it."""
        raise NotImplementedError

    async def test_a_turn_is_answered_in_pieces_and_in_order(self) -> None:
        async with self.connect(Script().app) as client:
            exchange = await client.ask("one two three", "s")
            assert [await exchange.next_text() for _ in range(3)] == ["one", "two", "three"]
            assert await exchange.ending() == ("completed", "onetwothree")

    async def test_ten_turns_at_once_on_one_session_run_one_by_one_in_order(self) -> None:
        script = Script()
        async with self.connect(script.app) as client:
            exchanges = [await client.ask("count", "s") for _ in range(10)]
            endings = await asyncio.gather(*(exchange.ending() for exchange in exchanges))
        assert [text for _, text in endings] == [str(number) for number in range(1, 11)]

    async def test_a_failure_is_an_ending_and_keeps_the_inside_inside(self) -> None:
        async with self.connect(Script().app) as client:
            exchange = await client.ask("fail", "s")
            status, text = await exchange.ending()
        assert (status, text) == ("failed", "so far")
        assert "internal matter" not in repr(exchange)

    async def test_a_turn_is_stopped_by_its_id_once_and_for_all(self) -> None:
        async with self.connect(Script().app) as client:
            exchange = await client.ask("wait", "s")
            assert await exchange.next_text() == "waiting"
            for _ in range(2):
                await client.cancel(exchange.id)
            assert await exchange.ending() == ("cancelled", "waiting")
            after = await client.ask("go on", "s")
            await client.cancel(exchange.id)
            assert await after.ending() == ("completed", "goon")

    async def test_a_turn_nobody_knows_is_refused(self) -> None:
        async with self.connect(Script().app) as client:
            with pytest.raises(Refused) as refused:
                await client.cancel("response_unknown")
            assert refused.value.code == "turn_not_found"
            with pytest.raises(Refused):
                await client.rejoin("response_unknown")

    async def test_hanging_up_does_not_stop_a_turn(self) -> None:
        script = Script()
        async with self.connect(script.app) as client:
            exchange = await client.ask("wait", "s")
            await exchange.next_text()
            await exchange.leave()
            script.gate.set()
            again = await client.rejoin(exchange.id)
            assert await again.ending() == ("completed", "waiting no more")

    async def test_hanging_up_stops_a_turn_that_asked_for_it(self) -> None:
        script = Script()
        async with self.connect(script.app) as client:
            exchange = await client.ask("wait", "s", disconnect="cancel")
            await exchange.next_text()
            await exchange.leave()
            await script.ended.wait()
            again = await client.rejoin(exchange.id)
            assert await again.ending() == ("cancelled", "waiting")

    async def test_two_may_follow_one_turn(self) -> None:
        script = Script()
        async with self.connect(script.app) as client:
            first = await client.ask("wait", "s")
            await first.next_text()
            second = await client.rejoin(first.id)
            assert await second.next_text() == "waiting"
            script.gate.set()
            assert await first.ending() == await second.ending() == ("completed", "waiting no more")

    async def test_an_interruption_ends_the_running_turn_and_runs(self) -> None:
        async with self.connect(Script().app) as client:
            first = await client.ask("wait", "s")
            await first.next_text()
            second = await client.ask("now", "s", overlap="interrupt")
            assert await second.ending() == ("completed", "now")
            assert await first.ending() == ("cancelled", "waiting")

    async def test_a_busy_session_refuses_who_will_not_wait(self) -> None:
        script = Script()
        async with self.connect(script.app) as client:
            first = await client.ask("wait", "s")
            await first.next_text()
            with pytest.raises(Refused) as refused:
                await client.ask("now", "s", overlap="reject")
            assert refused.value.code == "session_busy"
            script.gate.set()
            assert (await first.ending())[0] == "completed"

    async def test_stopping_ends_open_turns_and_refuses_new_ones(self) -> None:
        script = Script(drain_seconds=0.05)
        async with self.connect(script.app) as client:
            exchange = await client.ask("wait", "s")
            await exchange.next_text()
            stopping = asyncio.create_task(script.app.stop())
            assert await exchange.ending() == ("cancelled", "waiting")
            with pytest.raises((Refused, GreenroomError, ConnectionError)):
                await client.ask("late", "s")
            await stopping
        assert "late" not in script.asked
