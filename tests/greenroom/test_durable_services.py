"""Applications whose services outlive them: written with the turn, whole or not at all, and found after a restart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from redis.asyncio import Redis

from greenroom import (
    AgentApp,
    Message,
    PostgresSessionHistoryService,
    PostgresStateService,
    RedisSessionHistoryService,
    RedisStateService,
    Session,
    SqliteSessionHistoryService,
    SqliteStateService,
    Text,
    TurnCompleted,
    TurnFailed,
)
from greenroom.actors.errors import ConfigurationError
from greenroom.services.conversation_store import InMemoryConversations
from greenroom.services.durable_conversations import DurableConversations
from greenroom.services.durable_history import DurableSessionHistoryService
from greenroom.services.durable_responses import DurableResponses
from greenroom.services.durable_state import DurableStateService
from greenroom.services.memory_responses import InMemoryResponseStore
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.storage import Change, Fence
from kits.postgres_server import PostgresServer
from kits.redis_server import RedisServer
from kits.system import said


class Recording(MemoryStorage):
    """Remembers of which kinds the folders of each write were."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[set[str]] = []

    async def write(self, changes: Sequence[Change]) -> tuple[Fence, ...]:
        self.written.append({change.key.kind for change in changes})
        return await super().write(changes)


def counting(
    state: str | DurableSessions, states: DurableStateService, histories: DurableSessionHistoryService
) -> AgentApp:
    """Its turns count in a state and in a history, and fail when they are told to."""
    app = AgentApp(state=state)

    @app.init
    async def begin() -> None:
        await states.start()
        await histories.start()

    @app.shutdown
    async def end() -> None:
        await states.stop()
        await histories.stop()

    @app.query()
    async def answer(msgs: list[Message], session: Session) -> str:
        user, name = session.key
        before = await states.export_state(user, name) or {"turns": 0}
        conversation = await histories.get_session(user, name)
        assert conversation is not None
        await states.save_state(user, {"turns": before["turns"] + 1}, name)
        await histories.append_message(conversation, msgs)
        if msgs[0].content == (Text("fail"),):
            raise ValueError("as told")
        return f"{before['turns'] + 1} {len(conversation.messages)}"

    return app


async def test_what_a_turn_changes_in_services_is_written_with_its_ending() -> None:
    storage = Recording()
    states, histories = DurableStateService(storage), DurableSessionHistoryService(storage)
    async with counting(DurableSessions(storage), states, histories) as app:
        for number in (1, 2):
            storage.written.clear()
            ending = await app.process("go on", session_id="s").result()
            assert isinstance(ending, TurnCompleted)
            assert said(ending) == f"{number} {number}"
            assert [kinds for kinds in storage.written if kinds != {"session"}] == [
                {"session", "rounds", "history"}
            ]


async def test_a_turn_that_fails_changes_nothing_in_services() -> None:
    storage = Recording()
    states, histories = DurableStateService(storage), DurableSessionHistoryService(storage)
    async with counting(DurableSessions(storage), states, histories) as app:
        await app.process("go on", session_id="s").result()
        storage.written.clear()
        assert isinstance(await app.process("fail", session_id="s").result(), TurnFailed)
        assert {"session"} == set().union(*storage.written)
        ending = await app.process("go on", session_id="s").result()
        assert isinstance(ending, TurnCompleted)
        assert said(ending) == "2 2"


async def test_services_elsewhere_are_written_just_before_the_turn() -> None:
    storage, elsewhere = Recording(), Recording()
    states, histories = DurableStateService(elsewhere), DurableSessionHistoryService(elsewhere)
    async with counting(DurableSessions(storage), states, histories) as app:
        for number in (1, 2):
            ending = await app.process("go on", session_id="s").result()
            assert isinstance(ending, TurnCompleted)
            assert said(ending) == f"{number} {number}"
        assert elsewhere.written == [{"rounds", "history"}] * 2
        assert {"session"} == set().union(*storage.written)


async def remembers(
    state: str, services: Sequence[tuple[type, dict[str, object]]], *, shares: bool = True
) -> None:
    """Two applications, one after the other, with services made anew."""
    for number in (1, 2, 3):
        states, histories = (kind(**arguments) for kind, arguments in services)
        app = counting(state, states, histories)
        async with app:
            assert (states.storage is histories.storage) is shares
            ending = await app.process("go on", session_id="s", user_id="u").result()
        assert isinstance(ending, TurnCompleted)
        assert said(ending) == f"{number} {number}"


async def test_services_in_a_file_remember_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kinds = (SqliteStateService, SqliteSessionHistoryService)
    await remembers("sqlite:///friday%20%25.db", [(kind, {"path": "friday %.db"}) for kind in kinds])
    assert [path.name for path in tmp_path.iterdir()] == ["friday %.db"]


async def test_services_on_redis_remember_after_a_restart(redis_server: RedisServer) -> None:
    url = redis_server.url("?prefix=remembers")
    kinds = (RedisStateService, RedisSessionHistoryService)
    await remembers(url, [(kind, {"redis_url": url}) for kind in kinds])
    more = {"redis_url": redis_server.url(), "ttl_seconds": 600, "socket_timeout": 3.0, "max_connections": 4}
    await remembers(url, [(kind, more) for kind in kinds], shares=False)


@pytest.mark.parametrize("decodes", [False, True])
async def test_services_on_a_client_of_the_application_s_own_leave_it_open(
    redis_server: RedisServer, decodes: bool
) -> None:
    client = Redis.from_url(redis_server.url("?db=1"), decode_responses=decodes)
    given: dict[str, object] = {"redis_client": client}
    services = [(kind, given) for kind in (RedisStateService, RedisSessionHistoryService)]
    await client.flushdb()
    await remembers("memory", services, shares=False)
    assert await client.ping()
    await client.aclose()


async def test_services_in_postgres_remember_after_a_restart(postgres_server: PostgresServer) -> None:
    url = postgres_server.url()
    url = f"{url}{'&' if '?' in url else '?'}schema=remembers"
    kinds = (PostgresStateService, PostgresSessionHistoryService)
    await remembers(url, [(kind, {"url": url}) for kind in kinds])


async def test_a_service_in_the_application_s_file_shares_its_storage(tmp_path: Path) -> None:
    path = tmp_path / "friday.db"
    app = AgentApp(state=f"sqlite:///{path}")
    app.query()(lambda msgs: "hello")
    async with app:
        assert SqliteStateService(path).storage is app._runtime.system.store.storage  # type: ignore[union-attr]


async def test_what_protocols_keep_is_kept_with_the_sessions_unless_said_otherwise(tmp_path: Path) -> None:
    responses, conversations = InMemoryResponseStore(), InMemoryConversations()
    for given in (False, True):
        app = AgentApp(
            state=f"sqlite:///{tmp_path}/friday.db",
            responses=responses if given else None,
            conversations=conversations if given else None,
        )
        app.query()(lambda msgs: "hello")
        async with app:
            runtime = app._runtime
            assert runtime is not None
            if given:
                assert runtime.responses is responses
                assert runtime.conversations is conversations
            else:
                assert isinstance(runtime.responses, DurableResponses)
                assert isinstance(runtime.conversations, DurableConversations)


def test_a_file_in_memory_is_no_place_for_a_service() -> None:
    with pytest.raises(ConfigurationError, match="memory"):
        SqliteStateService(":memory:")
