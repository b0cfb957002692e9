"""The service that gives sessions their sandboxes: who gets which, for how long."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any

import anyio
import pytest
from anyio import to_thread

from greenroom.actors.errors import ConfigurationError, LeaseOver, SandboxLost
from greenroom.actors.messages import SessionKey
from greenroom.sandbox.base_sandbox import BaseSandbox
from greenroom.sandbox.browser_sandbox import BrowserSandbox
from greenroom.sandbox.keeper import Keeper
from greenroom.sandbox.leases import Leases
from greenroom.sandbox.result import ToolResult
from greenroom.sandbox.settings import SandboxSettings
from greenroom.services import sandbox_uses
from greenroom.services.sandbox_service import OnPassivate, SandboxService
from greenroom.services.service import Forkable
from greenroom.services.work import Work
from kits.fake_backend import FakeBox
from kits.in_turn import TRICKY_KEYS, in_turn
from kits.keeping import World
from kits.virtual_time import virtual_time

BROWSER = ["browser"]


@asynccontextmanager
async def serving(
    world: World, *, on_passivate: OnPassivate = "keep", **settings: Any
) -> AsyncIterator[SandboxService]:
    """A service at work on a world's engine."""
    async with service_of(world, on_passivate, **settings) as service:
        yield service


def service_of(world: World, on_passivate: OnPassivate = "keep", **settings: Any) -> SandboxService:
    async def keeper(given: SandboxSettings, leases: Leases | None) -> Keeper:
        keeper = world.keeper(**settings)
        await keeper.start()
        return keeper

    return SandboxService(on_passivate=on_passivate, keeper=keeper)


async def ask(box: BaseSandbox) -> str:
    """The lease of the box that answers."""
    return (await box.run_shell_command("ls")).text.partition(" ")[0]


@virtual_time
async def test_connect_starts_nothing_and_gives_the_same_for_the_same_tuple() -> None:
    world = World()
    async with serving(world) as service:
        (box,) = service.connect(session_id="s", user_id="u", sandbox_types=["browser"])
        assert isinstance(box, BrowserSandbox)
        assert service.connect("s", "u", BROWSER)[0] is box
        assert service.for_session(SessionKey("u", "s")) is box
        assert service.connect("s", "v", BROWSER)[0] is not box
        assert service.connect("s", None, BROWSER)[0] is service.connect("s", "", BROWSER)[0]
        base = service.connect("s", "u", ["base"])[0]
        assert type(base) is BaseSandbox
        assert {*service.connect("s", "u")} == {box, base}
        assert type(service.connect("new")[0]) is BaseSandbox
        assert not world.engine.ever
        assert await ask(box) == await ask(service.connect("s", "u", BROWSER)[0])
        assert len(world.engine.ever) == 1
    world.nothing_left()


@virtual_time
async def test_keys_that_look_alike_have_boxes_of_their_own() -> None:
    world = World()
    async with serving(world, boxes=len(TRICKY_KEYS)) as service:
        boxes = [service.connect(session_id, user_id, BROWSER)[0] for user_id, session_id in TRICKY_KEYS]
        assert len({await ask(box) for box in boxes}) == len(TRICKY_KEYS)


class Kind(Enum):
    """As AgentScope Runtime's `SandboxType`."""

    BROWSER = "browser"
    BROWSER_ASYNC = "browser_async"
    GUI = "gui"


@virtual_time
async def test_types_may_be_enums_and_unknown_ones_are_told_of() -> None:
    async with serving(World()) as service:
        first, second = service.connect("s", sandbox_types=[Kind.BROWSER, Kind.BROWSER_ASYNC])
        assert first is second
        with pytest.raises(ConfigurationError, match=r"'gui'.*'browser', 'base'"):
            service.connect("s", sandbox_types=[Kind.GUI])


async def test_it_says_how_it_is_used() -> None:
    service = SandboxService()
    assert not await service.health()
    with pytest.raises(ConfigurationError, match=r"start.*app\.init"):
        service.connect("s")
    with pytest.raises(ConfigurationError, match="one of them"):
        SandboxService("http://box", settings=SandboxSettings())
    with pytest.raises(ConfigurationError, match="drain_on_stop"):
        SandboxService(drain_on_stop=False)
    with pytest.raises(ConfigurationError, match="on_passivate"):
        SandboxService(on_passivate="maybe")  # type: ignore[arg-type]
    await service.stop()
    assert await service.release("s")
    await service.passivated(SessionKey("", "s"))
    assert not service.browsing(SessionKey("", "s"))
    service.hand_back(SessionKey("", "s"))


@virtual_time
async def test_calls_that_nobody_awaits_are_carried_out_before_stop_returns() -> None:
    world = World(create_seconds=1.0)
    service = service_of(world)
    await service.start()
    await service.start()
    assert await service.health()
    box = service.connect("s", "u", BROWSER)[0]
    calls = [box.browser_navigate(f"http://{number}.test") for number in range(3)]
    await service.stop()
    await service.stop()
    assert [arguments["url"] for _, arguments in world.engine.box().asked] == [
        "http://0.test",
        "http://1.test",
        "http://2.test",
    ]
    for call in calls:
        assert not (await call).is_error
    with pytest.raises(LeaseOver, match="stopped"):
        await box.browser_snapshot()
    world.nothing_left()
    await service.start()
    assert await ask(service.connect("s", "u", BROWSER)[0])
    await service.stop()
    world.nothing_left()


@virtual_time
async def test_release_ends_the_box_and_the_object() -> None:
    world = World()
    async with serving(world) as service:
        box = service.connect("s", "u", BROWSER)[0]
        first = await ask(box)
        assert await service.release(session_id="s", user_id="u")
        assert not world.engine.boxes
        with pytest.raises(LeaseOver, match="connect again"):
            await box.browser_snapshot()
        again = service.connect("s", "u", BROWSER)[0]
        assert again is not box
        assert await ask(again) != first
        await again.close()
        assert not world.engine.boxes
        assert await ask(again)  # closing a leased one releases its box
        await service.forget(SessionKey("u", "s"))
        assert not world.engine.boxes


@virtual_time
async def test_inside_a_turn_a_box_is_held_until_the_turn_is_over() -> None:
    world = World()
    async with serving(world, idle_seconds=100.0) as service:
        with in_turn() as work:
            box = service.connect("s", "u", BROWSER)[0]
            first = await ask(box)
            await anyio.sleep(1000)
            assert await ask(box) == first
            work.commit()
        await anyio.sleep(90)
        assert world.engine.boxes
        with in_turn() as work:  # a kept object, without connecting
            assert await ask(box) == first
            await anyio.sleep(1000)
            assert await ask(box) == first
            work.roll_back()
        await anyio.sleep(200)
        assert not world.engine.boxes


@virtual_time
async def test_who_connects_after_its_turn_holds_nothing() -> None:
    world = World()
    async with serving(world, idle_seconds=100.0) as service:
        with in_turn() as work:
            work.commit()
            await ask(service.connect("s", "u", BROWSER)[0])
            await anyio.sleep(200)
            assert not world.engine.boxes


@virtual_time
@pytest.mark.parametrize("policy", ["keep", "release"])
async def test_a_session_that_is_put_away_keeps_or_releases_its_box(policy: OnPassivate) -> None:
    world = World()
    async with serving(world, on_passivate=policy) as service:
        box = service.connect("s", "u", BROWSER)[0]
        first = await ask(box)
        box.run_shell_command("make")  # not awaited
        await service.passivated(SessionKey("u", "s"))
        await service.passivated(SessionKey("u", "t"))
        if policy == "keep":
            assert await ask(box) == first
        else:
            assert not world.engine.boxes
            assert [tool for tool, _ in world.engine.box(0).asked] == ["run_shell_command"] * 2
            with pytest.raises(SandboxLost, match="put away"):
                await ask(box)
            assert await ask(box) != first


async def browsed(service: SandboxService, session_id: str, turn_id: str) -> None:
    """A turn that looks at its page."""
    with in_turn(turn_id) as work:
        await ask(service.connect(session_id, "u", BROWSER)[0])
        work.commit()


@virtual_time
async def test_a_fork_has_a_box_of_its_own_and_is_told_so() -> None:
    turns = ["1", "2", "3", "4"]
    source, fork, second = (SessionKey("u", name) for name in ("s", "fork", "second"))
    world = World()
    async with serving(world) as service:
        assert isinstance(service, Forkable)
        with in_turn("1") as work:
            service.connect("s", "u", BROWSER)  # and uses nothing
            work.commit()
        await browsed(service, "s", "2")
        await browsed(service, "s", "3")
        assert await service.fork(source, "3", turns, fork)
        assert len(world.engine.ever) == 1
        box = service.for_session(fork)
        with pytest.raises(SandboxLost, match=r"stayed with the other branch.*begin anew"):
            await ask(box)
        assert await ask(box) != await ask(service.for_session(source))
        assert await ask(service.connect("fork", "u", ["base"])[0])  # it had none that could be lost
        assert await service.fork(fork, "2", turns[:3], second)
        with pytest.raises(SandboxLost, match="other branch"):
            await ask(service.for_session(second))


@virtual_time
async def test_a_fork_whose_turns_used_no_box_has_nothing_to_be_told() -> None:
    turns = ["1", "2", "3"]
    source = SessionKey("u", "s")
    async with serving(World()) as service:
        with in_turn("1") as work:
            await ask(service.for_session(source))
            work.roll_back()  # nobody remembers what it did
        await browsed(service, "s", "2")
        await service.fork(source, "1", turns, SessionKey("u", "earlier"))
        assert await ask(service.connect("earlier", "u", BROWSER)[0])
        await service.fork(SessionKey("u", "other"), "3", turns, SessionKey("u", "fork of another"))
        assert await ask(service.connect("fork of another", "u", BROWSER)[0])
        await service.forget(source)
        await service.fork(source, "3", turns, SessionKey("u", "fork of nothing"))
        assert await ask(service.connect("fork of nothing", "u", BROWSER)[0])


@virtual_time
async def test_what_was_used_is_remembered_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_uses, "MOST", 2)
    async with serving(World()) as service:
        for name in ("a", "b", "c"):
            await browsed(service, name, "1")
            await service.fork(SessionKey("u", name), "1", ["1"], SessionKey("u", f"fork of {name}"))
        assert [bool(service.uses.known(SessionKey("u", name))) for name in ("a", "b", "c")] == [
            False,
            False,
            True,
        ]


@virtual_time
async def test_a_person_takes_over_and_stopping_waits_for_no_person() -> None:
    world = World()
    key = SessionKey("u", "s")
    service = service_of(world)
    async with service:
        box = service.for_session(key)
        assert not service.browsing(key)
        await box.browser_snapshot()
        assert service.browsing(key)
        await service.take_over(key)
        await service.take_over(key)
        async with service.look(key):
            call = box.browser_snapshot()
            await anyio.sleep(500)
            assert len(world.engine.box().asked) == 1
        service.hand_back(key)
        service.hand_back(key)
        assert not (await call).is_error
        await service.take_over(key)
        call = box.browser_snapshot()
    assert not (await call).is_error
    world.nothing_left()


async def test_it_connects_in_worker_threads_too() -> None:
    world = World()
    async with serving(world) as service:
        with in_turn() as work:
            box = await to_thread.run_sync(lambda: service.connect("s", "u", BROWSER)[0])
            said = await to_thread.run_sync(lambda: box.browser_snapshot().text)
            assert said.startswith(world.engine.box().spec.lease)
            assert service.connect("s", "u", BROWSER)[0] is box
            work.commit()


@virtual_time
async def test_objects_are_not_kept_for_those_who_have_let_go() -> None:
    world = World()
    async with serving(world) as service:
        for number in range(50):
            service.connect(f"s{number}", "u", BROWSER)
        kept = service.connect("kept", "u", BROWSER)[0]
        pending = service.connect("pending", "u", BROWSER)[0].run_shell_command("ls")
        gc.collect()
        assert len(service._objects) == 2
        assert not (await pending).is_error
        assert kept is service.connect("kept", "u", BROWSER)[0]


@virtual_time
async def test_a_call_is_cancelled_with_who_awaits_it() -> None:
    world = World()
    begun = anyio.Event()

    async def endless(box: FakeBox, arguments: dict[str, Any]) -> ToolResult:
        begun.set()
        await anyio.sleep_forever()
        raise AssertionError("unreachable")

    world.engine.tools["browser_snapshot"] = endless
    async with serving(world) as service:
        box = service.connect("s", "u", BROWSER)[0]

        async def wait() -> object:
            return await box.browser_snapshot()

        waiting = asyncio.create_task(wait())
        await begun.wait()
        waiting.cancel()
        await asyncio.wait({waiting})
        await ask(box)
        assert world.engine.box().cancelled == ["browser_snapshot"]


@virtual_time
async def test_a_session_at_work_keeps_its_box_though_it_is_not_used() -> None:
    world = World()
    async with serving(world, idle_seconds=30.0) as service:
        box = await ask(service.for_session(SessionKey("u", "s")))
        work = Work("turn")
        service.at_work(SessionKey("u", "s"), work)
        await anyio.sleep(600)  # somebody is asked for an approval, say
        assert await ask(service.for_session(SessionKey("u", "s"))) == box
        work.commit()
        await anyio.sleep(60)
        assert not world.engine.boxes


@virtual_time
async def test_a_session_that_is_handed_over_goes_on_with_its_box_and_its_person() -> None:
    world, key = World(), SessionKey("u", "s")
    async with serving(world, shared=True) as second:
        async with serving(world, shared=True) as first:
            box = await ask(first.for_session(key))
            await first.take_over(key)
            waiting = first.for_session(key).browser_click("the button", "e1")
            await anyio.sleep(1)
            first.stops(key)  # his view ends, and he does not hand back
        with pytest.raises(LeaseOver):
            await waiting
        work = Work("turn")
        second.at_work(key, work)
        await anyio.sleep(1)
        assert second.browsing(key)
        clicking = second.for_session(key).browser_click("the button", "e1")
        await anyio.sleep(30)
        second.hand_back(key)
        assert "was not carried out" in (await clicking).text
        assert await ask(second.for_session(key)) == box
        await second.hand_over(key)
        assert world.leases.now[box].state == "free"
        work.commit()
    world.nothing_left()


@virtual_time
async def test_without_shared_leases_a_person_s_view_that_ends_hands_back() -> None:
    world, key = World(), SessionKey("u", "s")
    async with serving(world) as service:
        box = await ask(service.for_session(key))
        await service.take_over(key)
        service.stops(key)
        await service.hand_over(key)
        assert (await service.for_session(key).browser_snapshot()).text.startswith(box)
