"""Which sandboxes a session's turns have used, and since when: known in every process that shares the storage."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from greenroom.actors.messages import SessionKey
from greenroom.sandbox.backend import BoxKind
from greenroom.sandbox.leases import LeaseKey
from greenroom.services import sandbox_uses
from greenroom.services.durable_leases import DurableLeases
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sandbox_service import SandboxService
from greenroom.services.sandbox_uses import KIND, SandboxUses, by
from greenroom.services.storage import Storage
from kits.in_turn import TRICKY_KEYS, end, in_turn
from kits.memory_leases import MemoryLeases

KEY = SessionKey("u", "s")


class Process:
    """One that has a service with sandboxes."""

    def __init__(self, storage: Storage | None) -> None:
        self.uses = SandboxUses(storage)

    async def turn(
        self, turn_id: str, *kinds: BoxKind, key: SessionKey = KEY, ending: str = "commit"
    ) -> None:
        """A turn that uses these."""
        with in_turn(turn_id) as work:
            for kind in kinds:
                self.uses.stage(self, LeaseKey(*key, kind), work)
            await end(work, ending)


@pytest.fixture(params=["memory", "storage"])
async def storage(request: pytest.FixtureRequest) -> AsyncIterator[Storage | None]:
    """None: in memory alone."""
    storage = MemoryStorage() if request.param == "storage" else None
    if storage is not None:
        await storage.start()
    yield storage
    if storage is not None:
        await storage.stop()


async def test_the_first_turn_that_was_committed_counts(storage: Storage | None) -> None:
    process = Process(storage)
    await process.turn("1", "browser", ending="roll back")
    await process.turn("2")
    assert await process.uses.of(KEY) == {}
    await process.turn("3", "browser")
    await process.turn("4", "browser", "base")
    assert await process.uses.of(KEY) == {"browser": "3", "base": "4"}
    await process.uses.forget(KEY)
    assert await process.uses.of(KEY) == {}
    await process.turn("5", "base")
    assert await process.uses.of(KEY) == {"base": "5"}


async def test_keys_that_look_alike_are_others(storage: Storage | None) -> None:
    process = Process(storage)
    for number, key in enumerate(TRICKY_KEYS):
        await process.turn(str(number), "browser", key=SessionKey(*key))
    for number, key in enumerate(TRICKY_KEYS):
        assert await process.uses.of(SessionKey(*key)) == {"browser": str(number)}


@pytest.mark.parametrize("storage", ["storage"], indirect=True)
async def test_another_process_knows_it_and_keeps_what_was_first(storage: Storage) -> None:
    one, other = Process(storage), Process(storage)
    await one.turn("1", "browser")
    assert await other.uses.of(KEY) == {"browser": "1"}
    await other.turn("2", "browser", "base")
    await other.turn("3", "browser", "base")
    await one.turn("4", "browser", "base")
    for process in (one, other, Process(storage)):
        assert await process.uses.of(KEY) == {"browser": "1", "base": "2"}


@pytest.mark.parametrize("storage", ["storage"], indirect=True)
async def test_one_that_was_forgotten_elsewhere_begins_anew(storage: Storage) -> None:
    one, other = Process(storage), Process(storage)
    await one.turn("1", "browser")
    one.uses.lose(KEY)  # another process has the session now
    await other.uses.forget(KEY)
    assert await storage.sessions(KIND, "u") == ()
    await one.turn("2", "browser")
    assert await other.uses.of(KEY) == {"browser": "2"}


@pytest.mark.parametrize("storage", ["storage"], indirect=True)
async def test_of_one_that_was_forgotten_elsewhere_nothing_is_known(storage: Storage) -> None:
    one, other = Process(storage), Process(storage)
    await one.turn("1", "browser")
    await other.uses.forget(KEY)
    assert await one.uses.of(KEY) == {}
    await other.turn("2", "browser")
    assert await one.uses.of(KEY) == {"browser": "2"}


@pytest.mark.parametrize("storage", ["storage"], indirect=True)
async def test_what_is_known_is_not_written_again(storage: Storage) -> None:
    process = Process(storage)
    await process.turn("1", "browser")
    folder = await storage.read(sandbox_uses._folder(KEY))
    await process.turn("2", "browser")
    assert await storage.read(sandbox_uses._folder(KEY)) == folder


def test_it_is_where_leases_are_that_processes_share() -> None:
    storage, service = MemoryStorage(), SandboxService()
    assert service.uses.storage is None
    service.keep_leases_in(storage)
    assert service.uses.storage is storage
    assert SandboxService(leases=DurableLeases(storage)).uses.storage is storage
    assert SandboxService(leases=MemoryLeases()).uses.storage is None


def test_what_another_process_may_have_changed_is_known_no_more() -> None:
    shared, alone = SandboxService(), SandboxService()
    shared.keep_leases_in(MemoryStorage())
    for service in (shared, alone):
        service.uses.remember(KEY, {"browser": "1"})
        service.another_had(KEY)
    assert (shared.uses.known(KEY), alone.uses.known(KEY)) == ({}, {"browser": "1"})


def test_what_was_so_after_a_turn() -> None:
    first: dict[BoxKind, str] = {"browser": "2", "base": "3"}
    assert by("1", ["1", "2", "3"], first) == {}
    assert by("2", ["1", "2", "3"], first) == {"browser": "2"}
    assert by("3", ["1", "2", "3"], first) == first
    assert by("4", ["4", "5"], first) == first, "turns that are no longer kept came before"
