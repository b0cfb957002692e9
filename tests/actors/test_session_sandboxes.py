"""Sessions and their sandboxes: whose browser it is, and when it is let go."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest

from greenroom.actors.events import TurnCompleted, TurnFailed
from greenroom.actors.frameworks.plain import PlainAdapter
from greenroom.actors.handler import QueryHandler
from greenroom.actors.limits import Limits
from greenroom.actors.messages import SessionKey
from greenroom.actors.session import Session
from greenroom.actors.system import ActorSystem
from greenroom.sandbox import BrowserSandbox
from greenroom.sandbox.leases import LeaseKey
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.sessions.memory_store import InMemoryStore
from greenroom.services.store import SessionStore
from greenroom.services.work import Work
from kits.fake_keeper import FakeKeeper
from kits.system import counting_sources, said, turn


class FakeSandboxes:
    """What a session has of `SandboxService`."""

    def __init__(self, on_passivate: Literal["keep", "release"] = "keep") -> None:
        self.on_passivate: Literal["keep", "release"] = on_passivate
        self.keeper = FakeKeeper()
        self.boxes: dict[SessionKey, BrowserSandbox] = {}
        self.passive: list[SessionKey] = []
        self.forgotten: list[SessionKey] = []
        self.at_it: list[SessionKey] = []
        self.handed_over: list[SessionKey] = []
        self.of_others: list[SessionKey] = []

    def for_session(self, key: SessionKey) -> BrowserSandbox:
        if key not in self.boxes:
            self.boxes[key] = BrowserSandbox.leased(self.keeper, LeaseKey(*key, "browser"))
        return self.boxes[key]

    def at_work(self, key: SessionKey, work: Work) -> None:
        self.at_it.append(key)
        work.when_over(lambda: self.at_it.remove(key))

    async def hand_over(self, key: SessionKey) -> None:
        self.handed_over.append(key)

    def another_had(self, key: SessionKey) -> None:
        self.of_others.append(key)

    async def passivated(self, key: SessionKey) -> None:
        await asyncio.sleep(0)
        self.passive.append(key)

    async def forget(self, key: SessionKey) -> None:
        self.forgotten.append(key)


async def browse(session: Session) -> str:
    return (await session.browser.browser_navigate(f"https://example.com/{session.session_id}")).text


class running:  # noqa: N801 - used as a function
    """A system whose sessions have sandboxes."""

    def __init__(
        self, function: Any, sandboxes: FakeSandboxes | None, store: SessionStore | None = None, **limits: Any
    ) -> None:
        self.system = ActorSystem(
            QueryHandler(function, PlainAdapter(), None),
            store or InMemoryStore(),
            sources=counting_sources(),
            limits=Limits(**limits),
            sandboxes=sandboxes,
        )

    async def __aenter__(self) -> ActorSystem:
        await self.system.start()
        return self.system

    async def __aexit__(self, *_: object) -> None:
        await self.system.stop()


async def test_each_session_has_a_browser_of_its_own() -> None:
    sandboxes = FakeSandboxes()
    async with running(browse, sandboxes) as system:
        first = await (await system.submit(turn(session="s1", user="u"))).ended()
        await (await system.submit(turn(session="s2", user="u"))).ended()
        await (await system.submit(turn(session="s1", user="u"))).ended()
    assert isinstance(first, TurnCompleted)
    assert said(first) == "browser_navigate {'url': 'https://example.com/s1'}"
    assert list(sandboxes.boxes) == [SessionKey("u", "s1"), SessionKey("u", "s2")]
    assert [key.session_id for key in sandboxes.keeper.keys] == ["s1", "s2", "s1"]


async def test_an_application_without_sandboxes_says_how_to_get_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(browse, None) as system:
        ending = await (await system.submit(turn())).ended()
    assert isinstance(ending, TurnFailed)
    assert 'AgentApp(sandboxes="auto")' in ending.error.message
    assert ending.error.code == "configuration_error"
    caplog.clear()


@pytest.mark.parametrize("policy", ["keep", "release"])
async def test_a_session_that_is_put_away_releases_its_sandboxes_by_policy(policy: Any) -> None:
    sandboxes = FakeSandboxes(policy)
    async with running(browse, sandboxes) as system:
        await (await system.submit(turn(session="s1", user="u"))).ended()
    assert sandboxes.passive == ([SessionKey("u", "s1")] if policy == "release" else [])


async def test_a_deleted_session_has_no_sandbox_any_more() -> None:
    sandboxes = FakeSandboxes()
    async with running(browse, sandboxes) as system:
        await (await system.submit(turn(session="s1", user="u"))).ended()
        await system.forget(SessionKey("u", "s1"))
    assert sandboxes.forgotten == [SessionKey("u", "s1")]


async def test_what_is_known_of_a_session_s_sandboxes_holds_until_another_process_may_have_had_it() -> None:
    key, sandboxes, storage = SessionKey("u", "s1"), FakeSandboxes(), MemoryStorage()
    await storage.start()
    async with (
        running(browse, sandboxes, DurableSessions(storage)) as system,
        running(browse, None, DurableSessions(storage)) as other,
    ):
        for number in range(2):
            await (await system.submit(turn(id=f"{number}", session="s1", user="u"))).ended()
            assert sandboxes.of_others == [key], "it is its own from its first turn on"
        await other.forget(key)
        await (await system.submit(turn(id="2", session="s1", user="u"))).ended()
        assert sandboxes.of_others == [key, key]
    await storage.stop()
