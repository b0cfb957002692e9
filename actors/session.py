"""The session as the user's code sees it: who it is, what was said, what it owns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from greenroom.actors.errors import MissingDependency
from greenroom.actors.frameworks.adapter import AgentDriver
from greenroom.actors.messages import SessionKey, TurnOptions
from greenroom.services.store import SessionStore, TurnRecord

NO_OPTIONS = TurnOptions()


class Session:
    """One conversation. An `@app.agent` factory gets it, and any handler that has a parameter called `session`.
    `options`: what the turn that runs was asked for besides its input.

    It is valid in the turn it is given to, and for an agent that is kept warm as long as that agent lives.
    """

    __slots__ = ("_store", "driver", "key", "options", "principal", "turn_id")

    def __init__(self, key: SessionKey, store: SessionStore) -> None:
        self.key = key
        self.principal: str | None = None
        self.turn_id: str | None = None
        self.options = NO_OPTIONS
        self.driver: AgentDriver | None = None
        self._store = store

    def __repr__(self) -> str:
        return f"<Session {self.session_id!r} of user {self.user_id!r}>"

    @property
    def user_id(self) -> str:
        """Whose conversation."""
        return self.key.user_id

    @property
    def session_id(self) -> str:
        """Which conversation of that user."""
        return self.key.session_id

    async def history(self) -> Sequence[TurnRecord]:
        """The turns that have ended, oldest first: input, output and how each ended. Bounded by the store."""
        record = await self._store.load(self.key)
        return record.turns if record is not None else ()

    async def state(self) -> bytes | None:
        """The agent's state after the last turn that went well, as its driver saved it."""
        record = await self._store.load(self.key)
        return record.state if record is not None else None

    @property
    def browser(self) -> Any:
        """The browser leased to this session."""
        raise MissingDependency(
            "session.browser comes with the sandbox, which this version of Greenroom does not have yet; "
            "give the agent other tools, or follow CHANGELOG.md for the version that has it"
        )
