"""An application's sandboxes: made with it, held by its turns, gone with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio.to_thread
import pytest

from greenroom import (
    AgentApp,
    ConfigurationError,
    SandboxService,
    SandboxSettings,
    Session,
    SessionKey,
    Text,
    TurnCancelled,
    TurnCompleted,
    TurnFailed,
)
from greenroom.actors.errors import SandboxUnavailable
from greenroom.actors.system import ActorSystem
from greenroom.sandbox.keeper import Keeper
from greenroom.sandbox.leases import Leases
from greenroom.services import sandbox_service
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.storage import Storage
from kits.keeping import World
from kits.remembering import heard, tell
from kits.system import said


def service_in(world: World, **options: Any) -> SandboxService:
    async def keeper(settings: SandboxSettings, leases: Leases | None) -> Keeper:
        keeper = world.keeper()
        await keeper.start()
        return keeper

    return SandboxService(keeper=keeper, **options)


def browsing(world: World, storage: Storage | None = None, **options: Any) -> AgentApp:
    """An application that looks at a page and says which box showed it, unless its turn is to be quiet."""
    store = None if storage is None else DurableSessions(storage)
    app = AgentApp(sandboxes=service_in(world, **options), state=store)

    @app.query()
    async def answer(msgs: Any, session: Session) -> str:
        if msgs[0].content == (Text("quiet"),):
            return "quiet"
        return (await session.browser.browser_snapshot()).text.partition(" ")[0]

    return app


def system_of(app: AgentApp) -> ActorSystem:
    """What runs its turns."""
    assert app._runtime is not None
    return app._runtime.system


async def branched(system: ActorSystem, turn_id: str, after: str) -> bool:
    """Whether a turn that follows an earlier one is told that its browser is another."""
    fork = await tell(system, turn_id, after=after)
    if isinstance(fork.terminal, TurnFailed):
        assert "stayed with the other branch" in fork.terminal.error.message
        return True
    assert isinstance(fork.terminal, TurnCompleted)
    return False


async def test_a_session_has_one_browser_for_all_its_turns() -> None:
    world = World()
    async with browsing(world) as app:
        first = said(await app.process("look", session_id="s1").result())
        again = said(await app.process("look", session_id="s1").result())
        other = said(await app.process("look", session_id="s2").result())
        assert first == again != other
        assert len(world.engine.living()) == 2
    world.nothing_left()


async def test_an_application_whose_turns_browse_nothing_makes_no_box() -> None:
    world = World()
    app = AgentApp(sandboxes=service_in(world))

    @app.query()
    async def answer(msgs: Any, session: Session) -> str:
        return repr(session.browser)

    async with app:
        assert said(await app.process("hi", session_id="s1").result()) == "<BrowserSandbox of session 's1'>"
    assert not world.engine.ever


async def test_calls_that_a_turn_does_not_await_are_carried_out() -> None:
    world = World()
    app = AgentApp(sandboxes=service_in(world))

    @app.query()
    async def answer(msgs: Any, session: Session) -> str:
        _ = session.browser.browser_navigate("https://example.com/")
        _ = session.browser.browser_press_key("a")
        return "done"

    async with app:
        await app.process("hi", session_id="s1").result()
    assert [tool for tool, _ in world.engine.box().asked] == ["browser_navigate", "browser_press_key"]
    world.nothing_left()


async def test_synchronous_handlers_wait_in_their_thread() -> None:
    world = World()
    app = AgentApp(sandboxes=service_in(world))

    @app.query()
    def answer(msgs: Any, session: Session) -> str:
        _ = session.browser.browser_navigate("https://example.com/")
        text: str = session.browser.browser_snapshot().text
        return text

    async with app:
        assert '"ref"' in said(await app.process("hi", session_id="s1").result())
    assert [tool for tool, _ in world.engine.box().asked] == ["browser_navigate", "browser_snapshot"]


async def test_a_cancelled_turn_cancels_the_tool_in_the_box() -> None:
    world = World()
    begun = asyncio.Event()

    async def hang(box: Any, arguments: Any) -> Any:
        begun.set()
        await asyncio.Event().wait()

    world.engine.tools["browser_snapshot"] = hang
    async with browsing(world) as app:
        stream = app.process("look", session_id="s1")
        result = asyncio.create_task(stream.result())
        await begun.wait()
        await app.cancel(stream.id)
        assert isinstance(await result, TurnCancelled)
        assert world.engine.box().cancelled == ["browser_snapshot"]
        world.engine.tools.clear()
        ending = await app.process("look", session_id="s1").result()
        assert said(ending) == world.engine.box(0).spec.lease, "the box is the same, and works"


async def test_a_box_that_died_is_told_once_and_replaced() -> None:
    world = World()
    async with browsing(world) as app:
        first = said(await app.process("look", session_id="s1").result())
        await world.engine.box().die()
        lost = await app.process("look", session_id="s1").result()
        assert isinstance(lost, TurnFailed)
        assert lost.error.code == "sandbox_lost"
        assert said(await app.process("look", session_id="s1").result()) not in {"", first}


async def test_a_deleted_session_loses_its_box(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    async with browsing(world) as app:
        await app.process("look", session_id="s1", user_id="u").result()
        assert app._runtime is not None
        key = SessionKey("u", "s1")
        releases, released = SandboxService.forget, []

        async def release(service: SandboxService, key: SessionKey) -> None:
            released.append(key)
            await releases(service, key)

        monkeypatch.setattr(SandboxService, "forget", release)
        await app._runtime.forget(key)
        assert released == [key], "once"
        assert not world.engine.living()
    world.nothing_left()


async def test_a_session_that_branches_off_is_told_that_its_browser_is_another() -> None:
    world = World()
    async with browsing(world) as app:
        assert app._runtime is not None
        system = app._runtime.system
        box = heard(await tell(system, "first"))
        assert heard(await tell(system, "second")) == box
        fork = await tell(system, "third", after="first")
        assert isinstance(fork.terminal, TurnFailed)
        assert "stayed with the other branch" in fork.terminal.error.message
        session = fork.turn.key.session_id
        assert heard(await tell(system, "fourth", session=session)) not in {"", box}
        assert heard(await tell(system, "fifth")) == box
    world.nothing_left()


async def test_one_that_branches_off_in_another_process_is_told_so_too() -> None:
    """Also after all processes ended that its turns ran in."""
    storage, worlds = MemoryStorage(), [World(), World(), World()]
    await storage.start()
    async with browsing(worlds[0], storage) as one, browsing(worlds[1], storage) as other:
        assert heard(await tell(system_of(one), "quiet")) == "quiet"
        assert heard(await tell(system_of(one), "first")) == worlds[0].engine.box().spec.lease
        await tell(system_of(one), "second")
        assert await branched(system_of(other), "x", after="first")
        assert not await branched(system_of(other), "y", after="quiet")
    async with browsing(worlds[2], storage) as app:
        assert await branched(system_of(app), "z", after="first")
        assert not await branched(system_of(app), "0", after="quiet")
    await storage.stop()
    for world in worlds:
        world.nothing_left()


async def test_a_session_that_is_put_away_may_lose_its_box() -> None:
    world = World()
    async with browsing(world, on_passivate="release") as app:
        assert isinstance(await app.process("look", session_id="s1").result(), TurnCompleted)
        while world.engine.living():  # noqa: ASYNC110 - it goes right after its turn
            await asyncio.sleep(0)
        lost = await app.process("look", session_id="s1").result()
        assert isinstance(lost, TurnFailed)
        assert "put away" in lost.error.message


async def test_sandboxes_start_before_and_stop_after_the_turns() -> None:
    world = World()
    seen: list[bool] = []
    service = service_in(world)
    app = AgentApp(sandboxes=service, drain_seconds=30)
    going = asyncio.Event()

    @app.init
    async def begin() -> None:
        seen.append(await service.health())

    @app.shutdown
    async def end() -> None:
        seen.append(await service.health())

    @app.query()
    async def answer(msgs: Any, session: Session) -> AsyncIterator[str]:
        going.set()
        yield "…"
        yield (await session.browser.browser_snapshot()).text

    async with app:
        turn = asyncio.create_task(app.process("look", session_id="s1").result())
        await going.wait()
    assert isinstance(await turn, TurnCompleted)
    assert seen == [True, False]
    world.nothing_left()


async def test_where_no_sandbox_can_be_made_the_application_does_not_start() -> None:
    async def keeper(settings: SandboxSettings, leases: Leases | None) -> Keeper:
        raise SandboxUnavailable("install bubblewrap")

    app = AgentApp(sandboxes=SandboxService(keeper=keeper))
    app.query()(lambda msgs: "hi")
    with pytest.raises(SandboxUnavailable, match="install bubblewrap"):
        await app.start()


@pytest.mark.parametrize(
    ("given", "backend", "boxes"),
    [
        ("local", "local", 3),
        ("auto", "auto", 3),
        ("http://elsewhere:1/fastapi", "http://elsewhere:1/fastapi", 3),
        (SandboxSettings(backend="docker", boxes=7), "docker", 7),
    ],
)
async def test_they_may_be_named(
    given: Any, backend: str, boxes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREENROOM_SANDBOX_BOXES", "3")
    seen: list[SandboxSettings] = []
    world = World()

    class Noting(SandboxService):
        async def start(self) -> None:
            assert self._settings is not None
            seen.append(self._settings)

    monkeypatch.setattr(sandbox_service, "SandboxService", Noting)
    app = AgentApp(sandboxes=given)
    app.query()(lambda msgs: "hi")
    async with app:
        assert [(settings.backend, settings.boxes) for settings in seen] == [(backend, boxes)]
    world.nothing_left()


async def test_without_sandboxes_there_is_no_browser() -> None:
    app = AgentApp()

    @app.query()
    async def answer(msgs: Any, session: Session) -> str:
        with pytest.raises(ConfigurationError, match='sandboxes="auto"'):
            _ = session.browser
        return "none"

    async with app:
        assert said(await app.process("hi").result()) == "none"


def warm_agent(world: World) -> AgentApp:
    """An application of an agent that looks and says what it is told to."""
    from agentscope.agent import Agent
    from agentscope.tool import Toolkit

    from kits.agentscope2_agents import Said, say, use

    app = AgentApp(sandboxes=service_in(world))
    look = use(("1", "browser_snapshot", "{}"))

    @app.agent()
    def make_agent(session: Session) -> Any:
        model = Said(look, say("first"), look, say("second"))
        return Agent("Friday", "You help.", model, toolkit=Toolkit(tools=session.browser.tools()))

    return app


@pytest.mark.agentscope2
async def test_an_agent_that_is_kept_warm_keeps_its_browser() -> None:
    world = World()
    async with await anyio.to_thread.run_sync(warm_agent, world) as app:
        assert said(await app.process("look", session_id="s1").result()) == "first"
        assert said(await app.process("look", session_id="s1").result()) == "second"
        (box,) = world.engine.ever
        assert [tool for tool, _ in box.asked] == ["browser_snapshot", "browser_snapshot"]
    world.nothing_left()
