"""What dead processes left, in one file: many sessions, one that cannot be read, one that is large."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from greenroom.actors.errors import HandlerError, SessionDamaged
from greenroom.actors.events import (
    ItemStarted,
    Terminal,
    TextDelta,
    TurnAccepted,
    TurnCompleted,
    TurnFailed,
    TurnStarted,
)
from greenroom.actors.limits import Limits
from greenroom.actors.messages import SessionKey
from greenroom.actors.sharing import TAKEN_AT_ONCE
from greenroom.actors.system import ActorSystem
from greenroom.actors.watchdog import LoopLag, Watchdog
from greenroom.services.durable import Ending
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.sessions.head import ENTRY, decode_head, folder_of
from greenroom.services.sqlite.storage import SqliteStorage
from greenroom.services.storage import Cell, Change, Span
from kits.system import EPOCH, running_system, turn
from kits.until import until_answered

MANY = 500
POISONED, LARGE = SessionKey("u", "s0"), SessionKey("u", "s1")
GARBLED = b"\xc1 no message begins like this"


async def silent(msgs: Any) -> AsyncIterator[str]:
    yield "."


async def left(path: Path, count: int, large: int = 0) -> None:
    """A file with sessions each of which has a turn that had begun in a process that is gone, oldest first.

    `large`: thousands of events that the second one's turn has.
    """
    store = DurableSessions(SqliteStorage(path))
    await store.start()
    for number in range(count):
        one = turn(session=f"s{number}", id=f"t{number}")
        await store.accept(one)
        await store.append(one.key, one.id, 0, [TurnAccepted(one.id, EPOCH), TurnStarted()])
    if large:
        await store.append(LARGE, "t1", 2, [ItemStarted("i")])
    for thousand in range(large):
        await store.append(LARGE, "t1", 3 + thousand * 1000, [TextDelta("x" * 100, "i")] * 1000)
    await store.stop()


async def put(path: Path, key: SessionKey, entry: bytes) -> bytes:
    """Write over the entry of a session's open turn. Gives what was there."""
    storage = SqliteStorage(path)
    await storage.start()
    folder = await storage.read(folder_of(key))
    assert folder is not None
    number = decode_head(folder.head.body).open[0].number
    folder = await storage.read(folder_of(key), [Span(ENTRY, number, number)])
    assert folder is not None
    await storage.write([Change(key=folder_of(key), put=[(Cell(ENTRY, number), entry)])])
    await storage.stop()
    return folder.spans[0][0][1]


@asynccontextmanager
async def recovering(path: Path) -> AsyncIterator[ActorSystem]:
    store = DurableSessions(SqliteStorage(path))
    async with running_system(silent, store=store, limits=Limits(recovery_seconds=0.2)) as system:
        yield system


async def until_left(system: ActorSystem, keys: list[SessionKey], seconds: float = 20.0) -> None:
    """Wait until no other sessions are left that nobody has."""
    store = system.store
    assert isinstance(store, DurableSessions)

    async def asked() -> bool:
        return await store.orphans(MANY) == keys

    await until_answered(asked, seconds)


async def ending(system: ActorSystem, turn_id: str) -> Terminal:
    """A turn that was taken may be at its end still."""
    return await (await system.locate(turn_id)).ended()


async def test_one_that_is_damaged_is_in_the_way_of_no_other(tmp_path: Path) -> None:
    """It is the one left for longest, so each look finds it first. The large one does not block the loop."""
    path, blocked = tmp_path / "sessions.db", list[LoopLag]()
    await left(path, MANY, large=40)
    await put(path, POISONED, GARBLED)
    watchdog = Watchdog(0.5, blocked.append)
    watchdog.start()
    async with recovering(path) as system:
        await until_left(system, [POISONED], 60.0)
        for number in range(1, MANY):
            found = await ending(system, f"t{number}")
            assert isinstance(found, TurnFailed)
            assert found.error.code == "turn_interrupted"
    watchdog.stop()
    assert not blocked, blocked[0].stack


async def test_one_that_is_damaged_says_so_and_is_dealt_with_when_it_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    await left(path, 2)
    before = await put(path, POISONED, GARBLED)
    async with recovering(path) as system:
        await until_left(system, [POISONED])
        with pytest.raises(SessionDamaged, match="backup") as refused:
            await system.submit(turn(session="s0"))
        assert refused.value.retry_after is None
        await put(path, POISONED, before)
        await until_left(system, [])
        assert isinstance(await ending(system, "t0"), TurnFailed)


async def test_one_that_is_damaged_may_be_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    await left(path, 1)
    await put(path, POISONED, GARBLED)
    async with recovering(path) as system:
        await system.forget(POISONED)
        log = await system.submit(turn(session="s0"))
        assert isinstance(await log.ended(), TurnCompleted)


async def test_many_are_dealt_with_without_a_rest(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    await left(path, 3 * TAKEN_AT_ONCE)
    store = DurableSessions(SqliteStorage(path))
    async with running_system(silent, store=store, limits=Limits(recovery_seconds=3600)) as system:
        await until_left(system, [])


@pytest.mark.parametrize("place", ["retold", "finish"])
async def test_what_a_turn_said_is_not_in_the_way_of_its_ending(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sessions.db"
    await left(path, 1)
    finish = DurableSessions.finish

    async def refuses(store: DurableSessions, key: SessionKey, end: Ending) -> None:
        if end.record is not None:
            raise HandlerError("it cannot be kept")
        await finish(store, key, end)

    def fails(*_: object) -> None:
        raise ZeroDivisionError

    if place == "retold":
        monkeypatch.setattr("greenroom.actors.recovery.retold", fails)
    else:
        monkeypatch.setattr(DurableSessions, "finish", refuses)
    async with recovering(path) as system:
        await until_left(system, [])
        log = await system.locate("t0")
        assert isinstance(await log.ended(), TurnFailed)
        assert log.events() == [TurnAccepted("t0", EPOCH), TurnStarted(), log.terminal]
        monkeypatch.undo()
        more = await system.submit(turn(session="s0"))
        assert isinstance(await more.ended(), TurnCompleted)
