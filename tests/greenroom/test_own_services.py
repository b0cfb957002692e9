"""Services of an application that lie elsewhere than its sessions: forks and deletions reach them in a process where no
turn has used them yet, and reach no other application's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest

from greenroom import AgentApp, Message, Session, TurnCompleted, compat_app
from greenroom.actors.messages import SessionKey
from greenroom.services.durable_state import DurableStateService
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.storage import Storage
from kits.system import said, turn

KEY = SessionKey("u", "s")


def held_by_self(store: DurableSessions, states: DurableStateService) -> AgentApp:
    """As the tutorial has it."""
    app = AgentApp(state=store)

    @app.init
    def begin(self: Any) -> None:
        self.state_service = states

    return app


def started_by_a_hook(store: DurableSessions, states: DurableStateService) -> AgentApp:
    """Which may be started already; that is all that the application has to do with it."""
    app = AgentApp(state=store)
    app.init(states.start)
    return app


def set_from_outside(store: DurableSessions, states: DurableStateService) -> AgentApp:
    """By the program that has the application."""
    app = AgentApp(state=store)
    app.states = states  # type: ignore[attr-defined]
    return app


def on_a_runner(store: DurableSessions, states: DurableStateService) -> AgentApp:
    """As AgentScope Runtime has it."""
    app = compat_app.AgentApp(state=store)

    @app.init
    def begin(runner: Any) -> None:
        runner.states = states

    return app


def on_its_state(store: DurableSessions, states: DurableStateService) -> AgentApp:
    """By the other hook that AgentScope Runtime has."""

    def begin(app: Any) -> None:
        app.state.states = states

    return compat_app.AgentApp(state=store, before_start=begin)


Holding: TypeAlias = Callable[[DurableSessions, DurableStateService], AgentApp]
HOLDINGS: Sequence[Holding] = (held_by_self, started_by_a_hook, set_from_outside, on_a_runner, on_its_state)


class Process:
    """One that serves an application whose turns count in a state, and say how far they came."""

    def __init__(self, holding: Holding, sessions: Storage, elsewhere: Storage) -> None:
        self.states = DurableStateService(elsewhere)
        self.app = holding(DurableSessions(sessions), self.states)
        self.app.query("text")(self.count)

    async def __aenter__(self) -> Process:
        await self.states.start()
        await self.app.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.app.stop()
        await self.states.stop()

    async def count(self, msgs: list[Message], session: Session) -> str:
        before = await self.states.export_state(*session.key) or {"turns": 0}
        turns = before["turns"] + 1
        await self.states.save_state(session.user_id, {"turns": turns}, session.session_id)
        return str(turns)

    async def told(self, turn_id: str, after: str | None = None) -> str:
        """What a turn says."""
        assert self.app._runtime is not None
        log = await self.app._runtime.system.submit(turn(id=turn_id, after=after))
        ending = await log.ended()
        assert isinstance(ending, TurnCompleted)
        return said(ending)

    async def forget(self) -> None:
        """Delete the session."""
        assert self.app._runtime is not None
        await self.app._runtime.forget(KEY)


@pytest.fixture
async def places() -> AsyncIterator[tuple[Storage, Storage]]:
    """Where sessions are and where states are, of a session of three turns that a process had which is gone."""
    sessions, elsewhere = MemoryStorage(), MemoryStorage()
    await sessions.start()
    await elsewhere.start()
    async with Process(held_by_self, sessions, elsewhere) as process:
        assert [await process.told(turn_id) for turn_id in "abc"] == ["1", "2", "3"]
    yield sessions, elsewhere
    await elsewhere.stop()
    await sessions.stop()


@pytest.mark.parametrize("holding", HOLDINGS)
async def test_a_fork_has_what_they_had_then(holding: Holding, places: tuple[Storage, Storage]) -> None:
    async with Process(holding, *places) as process:
        assert await process.told("d", after="b") == "3"
        assert await process.told("e", after="a") == "2"
        assert await process.told("f", after="c") == "4"


@pytest.mark.parametrize("holding", HOLDINGS)
async def test_nothing_of_a_deleted_session_stays_with_them(
    holding: Holding, places: tuple[Storage, Storage]
) -> None:
    async with Process(holding, *places) as process:
        await process.forget()
        assert await process.states.export_state(*KEY) is None
        assert await process.told("d") == "1"


async def test_another_application_of_the_process_keeps_its_session_of_that_name(
    places: tuple[Storage, Storage],
) -> None:
    others = MemoryStorage(), MemoryStorage()
    async with Process(held_by_self, *places) as process, Process(started_by_a_hook, *others) as other:
        await other.told("a")
        await process.forget()
        assert await other.told("b") == "2"
        await other.forget()
        assert await process.told("d") == "1"


async def test_an_application_that_a_hook_starts_has_services_of_its_own(
    places: tuple[Storage, Storage],
) -> None:
    others = MemoryStorage(), MemoryStorage()
    inner = Process(started_by_a_hook, *others)
    process = Process(held_by_self, *places)
    process.app.init(inner.app.start)
    process.app.shutdown(inner.app.stop)
    async with process:
        await inner.told("a")
        await process.forget()
        assert await inner.told("b") == "2"


async def test_one_that_a_hook_stops_again_is_no_concern_of_the_application(
    places: tuple[Storage, Storage],
) -> None:
    process = Process(held_by_self, *places)
    passing = DurableStateService(MemoryStorage())

    @process.app.init
    async def look() -> None:
        async with passing:
            await passing.export_state("u", "s")

    async with process:
        await process.forget()


class Proxy:
    """Has every attribute there is, as proxies of remote objects seem to have."""

    def __getattr__(self, name: str) -> Any:
        def call(*_: object) -> None:
            raise AssertionError(f"{name} of it was called")

        return call


async def test_what_an_application_holds_besides_is_left_alone(places: tuple[Storage, Storage]) -> None:
    process = Process(held_by_self, *places)
    vars(process.app).update(
        proxy=Proxy(), store=DurableSessions(MemoryStorage()), kind=DurableStateService, one=SimpleNamespace()
    )
    async with process:
        assert await process.told("d", after="b") == "3"
        await process.forget()


@dataclass
class Forgetting:
    """A service of somebody's own: it cannot be hashed, and is equal to another that has forgotten the same."""

    forgotten: list[SessionKey] = field(default_factory=list)

    async def fork(self, source: SessionKey, turn_id: str, turns: Sequence[str], target: SessionKey) -> bool:
        return True

    async def forget(self, key: SessionKey) -> None:
        self.forgotten.append(key)


@dataclass(slots=True)
class Slotted:
    """Another one, that cannot be referenced weakly either."""

    forgotten: list[SessionKey] = field(default_factory=list)
    fork = Forgetting.fork

    async def forget(self, key: SessionKey) -> None:
        self.forgotten.append(key)


@pytest.mark.parametrize("kind", [Forgetting, Slotted])
async def test_services_of_any_class_follow_each_by_itself(
    kind: type[Any], places: tuple[Storage, Storage]
) -> None:
    process = Process(held_by_self, *places)
    both = [kind(), kind()]
    assert both[0] == both[1]

    @process.app.init
    def begin(self: Any) -> None:
        self.one, self.other = both

    async with process:
        await process.forget()
        assert [service.forgotten for service in both] == [[KEY], [KEY]]
