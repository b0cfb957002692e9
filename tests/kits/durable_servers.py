"""Servers of `e2e/apps/durable.py` on one store, killed and started again, and a checker that reads the store."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from greenroom.actors.messages import SessionKey
from greenroom.services.store_urls import store_at
from greenroom.transports.json_checks import owner
from kits.rejoining import Told
from kits.server_process import ServerProcess, start


class Site:
    """A folder with a store and a trace, and servers on fixed ports that use them."""

    def __init__(self, folder: Path, state: str | None = None) -> None:
        self.state = state or f"sqlite:///{folder}/sessions.db"
        self.trace = folder / "trace"
        self.trace.touch()
        self.servers: list[ServerProcess] = []

    async def server(self, port: int, **environment: str) -> ServerProcess:
        """One that serves there."""
        env = {"DURABLE_STATE": self.state, "DURABLE_TRACE": str(self.trace), **environment}
        server = await start("durable.py", "--port", str(port), env=env)
        await server.ready()
        self.servers.append(server)
        return server

    def begun(self) -> Counter[str]:
        """How often each turn's handler was begun."""
        return self._traced("begun")

    def done(self) -> Counter[str]:
        """How often each turn's handler came to its end."""
        return self._traced("done")

    def said_of(self, turn: str) -> str:
        """What there is about a turn: its traces, and lines of the servers' logs."""
        lines = self.trace.read_text().splitlines()
        for server in self.servers:
            lines += [f"{server.process.pid}: {line}" for line in server.log.splitlines()]
        return "\n".join(line for line in lines if f"{turn} " in f"{line} ")

    def _traced(self, word: str) -> Counter[str]:
        lines = (line.split() for line in self.trace.read_text().splitlines())
        return Counter(turn for what, turn, _ in lines if what == word)

    async def check(self, turns: Iterable[Told], *, begun_once: bool = True) -> None:
        """Read the store: every turn that was acknowledged is there, once, as its client was told."""
        turns = list(turns)
        store = store_at(self.state)
        await store.start()
        try:
            for session in sorted({told.session for told in turns}):
                record = await store.load(SessionKey(owner(None, None, session), session))
                kept = record.turns if record is not None else ()
                ids = [turn.turn_id for turn in kept]
                assert len(ids) == len(set(ids)), f"a turn is in the history of {session} twice: {ids}"
                statuses = {turn.turn_id: turn.status for turn in kept}
                for told in turns:
                    if told.session == session:
                        expected = "cancelled" if told.status == "canceled" else told.status
                        assert statuses.get(told.id) == expected, (
                            told.id,
                            statuses.get(told.id),
                            told.trouble,
                        )
        finally:
            await store.stop()
        if begun_once:
            twice = {turn: times for turn, times in self.begun().items() if times > 1}
            assert not twice, f"begun more than once: {list(map(self.said_of, twice))}"
        lost = [told.id for told in turns if told.status == "completed" and not self.done()[told.id]]
        assert not lost, f"completed without having come to an end: {lost}"


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
