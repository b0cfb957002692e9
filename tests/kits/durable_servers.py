"""Servers of `e2e/apps/durable.py` on one store, killed and started again, and a checker that reads the store."""

from __future__ import annotations

import gc
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from greenroom.actors.messages import SessionKey
from greenroom.services.durable import DurableStore, TurnEntry
from greenroom.services.durable_leases import KIND
from greenroom.services.durable_state import DurableStateService
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.sessions.head import decode_head, folder_of
from greenroom.services.store_urls import storage_at
from greenroom.transports.json_checks import owner
from greenroom.transports.process_encode import ProcessEncoder
from kits.preloaded import Preloaded
from kits.rejoining import Told
from kits.server_process import ServerProcess, start


class Site:
    """A folder with a store and a trace, and servers on fixed ports that use them.

    `preloaded`: what starts them, where that can be; servers are started from nothing otherwise. `boxes`: a folder by a
    short name for what belongs to the boxes of sessions, which have local ones then.
    """

    def __init__(
        self,
        folder: Path,
        state: str | None = None,
        preloaded: Preloaded | None = None,
        boxes: Path | None = None,
    ) -> None:
        self.folder = folder
        self.state = state or f"sqlite:///{folder}/sessions.db"
        self.trace = folder / "trace"
        self.trace.touch()
        self.servers: list[ServerProcess] = []
        self.boxes = boxes
        self._preloaded = preloaded

    async def server(self, port: int, *, prefix: Sequence[str] = (), **environment: str) -> ServerProcess:
        """One that serves there. `prefix`: what runs it."""
        env = {"DURABLE_STATE": self.state, "DURABLE_TRACE": str(self.trace), **environment}
        if self.boxes is not None:
            env |= {
                "DURABLE_BOXES": "local",
                "GREENROOM_RUN": f"{self.boxes}/r",
                "GREENROOM_STATE": f"{self.boxes}/s",
            }
        options = ("durable.py", "--port", str(port))
        if self._preloaded is None or prefix or "LD_PRELOAD" in environment:
            server = await start(*options, env=env, prefix=prefix)
        else:
            server = await self._preloaded.start(*options, env=env)
        self.servers.append(server)
        await server.ready()
        return server

    async def end(self) -> None:
        """Kill the servers that are left."""
        for server in self.servers:
            if server.process.returncode is None:
                server.process.kill()
            await server.ended()

    def begun(self) -> Counter[str]:
        """How often each turn's handler was begun."""
        return self._traced("begun")

    def done(self) -> Counter[str]:
        """How often each turn's handler came to its end."""
        return self._traced("done")

    def used(self) -> Counter[str]:
        """How often each turn has used its session's box."""
        return self._traced("used")

    def said_of(self, turn: str) -> str:
        """What there is about a turn: its traces, and lines of the servers' logs."""
        lines = self.trace.read_text().splitlines()
        for server in self.servers:
            lines += [f"{server.process.pid}: {line}" for line in server.log.splitlines()]
        return "\n".join(line for line in lines if f"{turn} " in f"{line} ")

    def _traced(self, word: str) -> Counter[str]:
        lines = (line.split() for line in self.trace.read_text().splitlines())
        return Counter(turn for what, turn, _ in lines if what == word)

    async def entry(self, turn_id: str) -> TurnEntry:
        """What the store has of a turn."""
        async with self._opened() as (store, _):
            found = await store.find(turn_id, None)
        assert found is not None, f"the log of {turn_id} is not kept"
        return found

    async def leases(self) -> set[str]:
        """Those of boxes that are in the store."""
        gc.collect()  # as below
        storage = storage_at(self.state)
        await storage.start()
        try:
            return set(await storage.sessions(KIND, ""))
        finally:
            await storage.stop()

    def left_of_boxes(self) -> dict[str, list[str]]:
        """What lies in their folders, by folder: the boxes' own, their keys, and what is written down of them."""
        names = ("boxes", "keys", "local", "owners")
        assert self.boxes is not None
        found = {name: sorted(path.name for path in (self.boxes / "r" / name).glob("*")) for name in names}
        return {name: paths for name, paths in found.items() if paths}

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[tuple[DurableSessions, DurableStateService]]:
        gc.collect()  # of what tests before had: a place has one storage in a process as long as anybody has it
        storage = storage_at(self.state)
        store, states = DurableSessions(storage), DurableStateService(storage)
        await store.start()
        await states.start()
        try:
            yield store, states
        finally:
            await states.stop()
            await store.stop()

    async def check(
        self,
        turns: Iterable[Told],
        *,
        begun_once: bool = True,
        keys: Mapping[str, SessionKey] | None = None,
        refused: Iterable[Told] = (),
    ) -> None:
        """Read the store: every turn that was acknowledged is there, once, as its client was told; state, history and
        logs agree; no session has turns open; no box is left, nor a lease of one. `keys`: of sessions that have more
        than their id. `refused`: turns that were the first of their sessions, and of which nothing may be there."""
        turns = list(turns)
        async with self._opened() as (store, states):
            assert not await store.orphans(100), "sessions are left that nobody has"
            assert not (leases := await store.storage.sessions(KIND, "")), f"leases are left: {leases}"
            assert self.boxes is None or not self.left_of_boxes(), f"boxes are left: {self.left_of_boxes()}"
            for session in sorted({told.session for told in turns}):
                key = (keys or {}).get(session) or SessionKey(owner(None, None, session), session)
                await _check_session(store, states, key, [told for told in turns if told.session == session])
            for told in refused:
                assert await store.find(told.id, None) is None, f"{told.id} was refused and is kept"
                key = SessionKey(owner(None, None, told.session), told.session)
                assert await store.storage.read(folder_of(key)) is None, f"{told.session} was never begun"
                assert not self.begun()[told.id], f"{told.id} was refused and is begun"
        if begun_once:
            twice = {turn: times for turn, times in self.begun().items() if times > 1}
            assert not twice, f"begun more than once: {list(map(self.said_of, twice))}"
        lost = [told.id for told in turns if told.status == "completed" and not self.done()[told.id]]
        assert not lost, f"completed without having come to an end: {lost}"


async def _check_session(
    store: DurableStore, states: DurableStateService, key: SessionKey, turns: Sequence[Told]
) -> None:
    folder = await store.storage.read(folder_of(key))
    assert folder is not None, f"nothing is kept of {key.session_id}"
    assert not (left := decode_head(folder.head.body).open), f"turns of {key.session_id} are open: {left}"
    record = await store.load(key)
    kept = record.turns if record is not None else ()
    ids = [turn.turn_id for turn in kept]
    assert len(ids) == len(set(ids)), f"a turn is in the history of {key.session_id} twice: {ids}"
    statuses = {turn.turn_id: turn.status for turn in kept}
    for told in turns:
        expected = "cancelled" if told.status == "canceled" else told.status
        assert statuses.get(told.id) == expected, (told.id, statuses.get(told.id), told.trouble)
        entry = await store.find(told.id, None)
        assert entry is not None, f"the log of {told.id} is not kept"
        assert entry.status == "ended"
        assert type(entry.events[-1]).__name__ == f"Turn{expected.title()}", "log and history disagree"
        if "sequence_number" in told.frames[0]:  # it was told in `/process`'s events
            assert told.frames == _frames(entry), f"a client and the log disagree about {told.id}"
    completed = [turn for turn, status in statuses.items() if status == "completed"]
    state = await states.export_state(*key)
    expected_state = {"turns": len(completed), "last": completed[-1]} if completed else None
    assert state == expected_state, "state and history disagree"


def _frames(entry: TurnEntry) -> list[dict[str, Any]]:
    """What a client has that has seen all of the turn."""
    lines = b"".join(ProcessEncoder.whole(entry.turn, entry.events)).decode().splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
