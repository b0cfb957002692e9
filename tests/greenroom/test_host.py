"""What transports see of an application besides its turns: sessions, responses, what its handler does."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from greenroom import AgentApp, ConfigurationError, Host, InMemoryResponseStore, NotServing, SessionKey
from kits.system import turn

KEY = SessionKey("u", "s")


class Plug:
    """A transport that keeps the host."""

    name = "plug"
    host: Host

    async def start(self, host: Host) -> None:
        self.host = host

    async def stop(self, deadline: float) -> None:
        pass


class NotingResponses(InMemoryResponseStore):
    def __init__(self, notes: list[str]) -> None:
        super().__init__()
        self._notes = notes

    async def start(self) -> None:
        self._notes.append("starts")
        await super().start()

    async def stop(self) -> None:
        self._notes.append("stops")
        await super().stop()


async def hello(msgs: Any) -> str:
    return "hello"


async def test_responses_are_kept_where_the_application_says() -> None:
    notes: list[str] = []
    responses = NotingResponses(notes)
    plug = Plug()
    app = AgentApp(transports=[plug], responses=responses)
    app.query()(hello)
    async with app:
        assert notes == ["starts"]
        assert plug.host.responses is responses
        log = await plug.host.submit(structs.replace(turn("Hi", id="resp_1", stored=True), background=True))
        await log.ended()
    assert notes == ["starts", "stops"]
    await responses.start()
    record = await responses.get(None, "resp_1")
    assert record is not None
    assert (record.turn.id, record.key, record.background) == ("resp_1", KEY, True)


async def test_without_a_word_they_are_kept_in_memory() -> None:
    plug = Plug()
    app = AgentApp(transports=[plug])
    app.query()(hello)
    async with app:
        assert isinstance(plug.host.responses, InMemoryResponseStore)
        assert await plug.host.responses.get(None, "resp_1") is None


async def test_sessions_are_read_and_deleted_through_the_host() -> None:
    plug = Plug()
    app = AgentApp(transports=[plug])
    app.query()(hello)
    async with app:
        assert await plug.host.session(KEY) is None
        await (await plug.host.submit(turn("Hi", id="1"))).ended()
        record = await plug.host.session(KEY)
        assert record is not None
        assert [one.turn_id for one in record.turns] == ["1"]
        await plug.host.forget(KEY)
        assert await plug.host.session(KEY) is None
    for call in (plug.host.session(KEY), plug.host.forget(KEY)):
        with pytest.raises(NotServing, match="stopped"):
            await call


async def test_before_the_application_is_ready_its_sessions_are_not_read() -> None:
    plug = Plug()
    app = AgentApp(transports=[plug])
    app.query()(hello)

    @app.init
    async def ask() -> None:
        with pytest.raises(NotServing, match="starting"):
            await plug.host.session(KEY)

    async with app:
        assert await plug.host.session(KEY) is None


async def test_what_a_handler_does_itself_is_said_to_transports() -> None:
    plug = Plug()
    app = AgentApp(transports=[plug])
    app.query(honours={"tools"})(hello)
    async with app:
        assert plug.host.honours == {"tools", "instructions", "answer"}
    with pytest.raises(ConfigurationError, match="no option of a turn"):
        AgentApp().agent("text", honours={"tool"})(hello)
