"""What is left when processes die: removed when their owner is dead, left alone when he lives or is unknown."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.errors import LeaseHeld, SandboxLost, SandboxUnavailable
from greenroom.sandbox.backend import FoundBox
from greenroom.sandbox.leases import Lease, LeaseKey
from greenroom.sandbox.owners import Standing
from greenroom.sandbox.reconcile import Found, decide
from kits.fake_backend import FakeBackend
from kits.keeping import KEY, OTHER, World, ask, raised
from kits.virtual_time import virtual_time

pytestmark = virtual_time


async def test_a_dead_process_s_boxes_are_removed_and_a_living_sibling_s_stay() -> None:
    world = World()
    dead = [await world.orphan("dead", "dead", key) for key in (KEY, OTHER, None)]
    alive = [
        await world.orphan("sibling", "alive", LeaseKey("v", str(number), "browser")) for number in range(2)
    ]
    unknown = await world.orphan("unknown", None, LeaseKey("w", "s", "browser"))
    async with world.keeping():
        assert set(world.engine.boxes) == {*alive, unknown}  # before the first call
        assert set(world.leases.now) == set(world.folders.there) == {*alive, unknown}
        assert not set(dead) & set(world.engine.boxes)
        await anyio.sleep(6)
        assert "dead" not in world.owners  # nothing of him is left
        assert "sibling" in world.owners
    assert set(world.engine.boxes) == {*alive, unknown}


async def test_one_that_dies_while_we_run_is_tidied_up_after_within_seconds() -> None:
    world = World()
    orphan = await world.orphan("sibling", "alive", KEY)
    async with world.keeping():
        await anyio.sleep(60)
        assert orphan in world.engine.boxes
        world.owners["sibling"] = "dead"
        await anyio.sleep(6)
        assert not world.engine.boxes
        assert not world.leases.now


async def test_a_key_that_a_living_process_has_is_refused_and_got_when_that_dies() -> None:
    world = World()
    await world.orphan("sibling", "alive", KEY)
    async with world.keeping() as keeper:
        assert "another process (it runs)" in await raised(ask(keeper), LeaseHeld)
        assert await ask(keeper, OTHER)
        world.owners["sibling"] = "dead"
        assert "process that had it ended" in await raised(ask(keeper), SandboxLost)  # nothing was waited for
        assert await ask(keeper) == world.engine.box().spec.lease
    assert not world.engine.boxes


async def test_an_unknown_owner_s_key_is_refused_in_words() -> None:
    world = World()
    await world.orphan("unknown", None, KEY)
    async with world.keeping() as keeper:
        assert "sandbox stop" in await raised(ask(keeper), LeaseHeld)


async def test_after_a_restart_an_agent_is_told_that_its_browser_is_another() -> None:
    world = World()
    await world.orphan("dead", "dead", KEY)
    async with world.keeping() as keeper:
        assert "gone" in await raised(ask(keeper), SandboxLost)
        assert await ask(keeper)
        assert await ask(keeper, OTHER)


async def test_a_box_whose_end_could_not_be_written_down_was_nobody_s_to_lose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def away(*what: object, **how: object) -> None:
        raise SandboxUnavailable("where leases are kept is away")

    world = World()
    async with world.keeping() as keeper:
        with monkeypatch.context() as meanwhile:
            for write in ("change", "erase"):
                meanwhile.setattr(world.leases, write, away)
            assert "is away" in await raised(ask(keeper), SandboxUnavailable)
        [left] = world.leases.now
        assert await ask(keeper) != left  # and nobody is told that a browser of his is gone
        assert left not in world.leases.now
    world.nothing_left()


async def test_a_dead_process_s_box_of_another_engine_gives_up_its_key_and_stays_written_down() -> None:
    for standing, backend in ELSEWHERE:
        world = World()
        orphan = await world.orphan("dead", standing, KEY, backend=backend)
        async with world.keeping() as keeper:
            await raised(ask(keeper), SandboxLost)
            assert await ask(keeper)
            await anyio.sleep(60)
            assert world.leases.now[orphan].key is None
            assert world.owners["dead"] == standing


ELSEWHERE: Sequence[tuple[Standing, str]] = (("dead", "docker"), ("elsewhere", "fake"))


async def test_boxes_and_directories_without_a_lease_are_removed_when_their_owner_is_dead() -> None:
    world = World()
    ids = [await world.orphan(owner, standing, None) for owner, standing in OWNERS]
    for lease in ids:
        await world.leases.erase(lease)
    world.engine.watch = bool  # there are boxes without a lease, on purpose
    async with world.keeping() as keeper:
        assert set(world.engine.boxes) == set(world.folders.there) == set(ids[1:])
        first = await ask(keeper)
        await anyio.sleep(60)
        assert first in world.engine.boxes
        for lease in ids[1:]:
            world.engine.boxes.pop(lease)


OWNERS: Sequence[tuple[str, Standing | None]] = (("dead", "dead"), ("alive", "alive"), ("unknown", None))


async def test_what_cannot_be_removed_is_tried_again_and_holds_up_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    orphan = await world.orphan("dead", "dead", KEY)
    world.engine.keeps = SandboxUnavailable("busy")
    async with world.keeping() as keeper:
        assert await ask(keeper, OTHER)
        await raised(ask(keeper), SandboxLost)
        await raised(ask(keeper), LeaseHeld)
        world.engine.keeps = None
        await anyio.sleep(6)
        assert orphan not in world.engine.boxes
        await raised(ask(keeper), SandboxLost)
        assert await ask(keeper)
        await anyio.sleep(6)
    assert "is tried again" in caplog.text
    world.nothing_left()


async def test_a_stuck_engine_is_started_without_waiting_for_ever() -> None:
    world = World()
    await world.orphan("dead", "dead", KEY)
    world.engine.stuck = lambda spec: spec is not None and spec.owner == "dead"
    async with world.keeping() as keeper:
        assert asyncio.get_running_loop().time() < 30
        assert await ask(keeper, OTHER)
        world.engine.loosen()
        await anyio.sleep(6)
    world.nothing_left()


async def test_two_processes_tidy_up_the_same_and_neither_minds() -> None:
    world = World(remove_seconds=1.0)
    for number in range(5):
        await world.orphan("dead", "dead", LeaseKey("u", str(number), "browser"))
    keepers = [world.keeper() for _ in range(3)]
    await asyncio.gather(*(keeper.start() for keeper in keepers))
    assert not world.engine.boxes
    await anyio.sleep(6)
    await asyncio.gather(*(keeper.stop() for keeper in keepers))
    world.nothing_left()


async def test_two_processes_that_want_a_key_at_once_make_one_box() -> None:
    world = World(create_seconds=1.0)
    async with world.keeping() as first, world.keeping() as second:
        got = await asyncio.gather(ask(first), ask(second), return_exceptions=True)
        assert sorted(type(answer) is str for answer in got) == [False, True]
        assert len(world.engine.ever) == 1


async def test_a_backend_that_stops_telling_of_endings_is_listened_to_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    tell = FakeBackend.endings

    async def broken(self: FakeBackend) -> Any:
        monkeypatch.setattr(FakeBackend, "endings", tell)
        raise SandboxUnavailable("the engine restarted")
        yield

    monkeypatch.setattr(FakeBackend, "endings", broken)
    async with world.keeping():
        await anyio.sleep(11)
        assert world.engine.listeners
    assert "stopped telling" in caplog.text


# ---------------------------------------------------------------------------------------------------------- decisions

IDS = st.sampled_from([f"{number:032x}" for number in range(6)])
WHO = st.sampled_from(["we", "alive", "dead", "elsewhere", "unknown"])
STANDING: dict[str, Standing] = {"we": "ours", "alive": "alive", "dead": "dead", "elsewhere": "elsewhere"}


@st.composite
def worlds(draw: Callable[..., Any]) -> Found:
    """Anything that may be found, in whatever disorder."""
    owner = draw(st.dictionaries(IDS, WHO))
    some = st.sets(st.sampled_from(sorted(owner))) if owner else st.just(set())
    leased = draw(some)
    ours = {lease for lease, who in owner.items() if who == "we"}
    return Found(
        standing=STANDING,
        there=frozenset(draw(some)) & ours,
        boxes=[FoundBox(lease, owner[lease], draw(st.booleans())) for lease in draw(some)],
        folders={lease: owner[lease] for lease in draw(some)},
        leases=[
            Lease(
                id=lease,
                key=None,
                owner=owner[lease],
                backend=draw(st.sampled_from(["fake", "docker"])),
                state="ready",
                created=0.0,
            )
            for lease in sorted(leased)
        ],
        known=frozenset(draw(some)) & ours,
    )


@given(worlds())
def test_only_what_is_a_dead_owner_s_or_our_own_forgotten_is_removed(found: Found) -> None:
    todo = decide(found, "fake")
    owner = {lease.id: lease.owner for lease in found.leases}
    owner |= {box.lease: box.owner for box in found.boxes} | dict(found.folders)
    for lease in todo.remove:
        assert owner[lease] in {"we", "dead"}
        assert lease not in found.known
    elsewhere = {lease.id for lease in found.leases if lease.backend != "fake"}
    assert not todo.remove & elsewhere
    for lease, who in owner.items():
        if who == "dead" or (who == "we" and lease not in found.known):
            assert lease in todo.remove | elsewhere  # and all of that is
    assert todo.lost <= found.there
    assert todo.lost.isdisjoint(box.lease for box in found.boxes if box.running)
    assert todo.forget <= {"dead"}
    assert not todo.forget or "dead" not in owner.values()
