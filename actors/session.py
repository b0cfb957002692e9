"""The session as the user's code sees it: who it is, what was said, what it owns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from greenroom.actors.errors import ConfigurationError
from greenroom.actors.frameworks.adapter import AgentDriver
from greenroom.actors.messages import SessionKey, TurnOptions
from greenroom.services.store import SessionStore, TurnRecord
from greenroom.services.work import Work

if TYPE_CHECKING:
    from greenroom.sandbox.browser_sandbox import BrowserSandbox

NO_OPTIONS = TurnOptions()


class Sandboxes(Protocol):
    """What sessions have of sandboxes: `SandboxService` is one."""

    on_passivate: Literal["keep", "release"]
    """What `passivated` does; `keep` is nothing."""

    def for_session(self, key: SessionKey) -> BrowserSandbox:
        """The session's own, whose box is made when it is first used."""
        ...

    def at_work(self, key: SessionKey, work: Work) -> None:
        """A turn of the session begins, and is over when `work` is: its boxes stay meanwhile."""
        ...

    async def hand_over(self, key: SessionKey) -> None:
        """The session is another process's from now on: where processes share boxes, that one goes on with them."""
        ...

    def another_had(self, key: SessionKey) -> None:
        """The session is this process's from now on, and may have been another's: what is known of it holds no more."""
        ...

    async def passivated(self, key: SessionKey) -> None:
        """The session is no longer active: keep its boxes for its next turn, or let them go."""
        ...

    async def forget(self, key: SessionKey) -> None:
        """The session is deleted, and its boxes are too."""
        ...


class Session:
    """One conversation. An `@app.agent` factory gets it, and any handler that has a parameter called `session`.
    `options`: what the turn that runs was asked for besides its input.

    It is valid in the turn it is given to, and for an agent that is kept warm as long as that agent lives.
    """

    __slots__ = ("_sandboxes", "_store", "driver", "key", "options", "principal", "turn_id")

    def __init__(self, key: SessionKey, store: SessionStore, sandboxes: Sandboxes | None = None) -> None:
        self.key = key
        self.principal: str | None = None
        self.turn_id: str | None = None
        self.options = NO_OPTIONS
        self.driver: AgentDriver | None = None
        self._store = store
        self._sandboxes = sandboxes

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
    def browser(self) -> BrowserSandbox:
        """The browser leased to this session; it starts when one of its tools is first used.

        Raises `ConfigurationError` when the application has no sandboxes.
        """
        if self._sandboxes is None:
            raise ConfigurationError(
                'session.browser: this application has no sandboxes; give it some with AgentApp(sandboxes="auto")'
            )
        return self._sandboxes.for_session(self.key)
