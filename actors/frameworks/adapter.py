"""The plug for frameworks: three small Protocols.

An adapter is made once an application. For each turn it gives a `Translator`, which is fed what the handler yields and
writes it to the composer; for `@app.agent` it wraps the agent in an `AgentDriver`. Its conformance kit is
`tests/kits/framework_kit.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from greenroom.actors.composer import Composer
from greenroom.actors.messages import Message


class ForeignState(Exception):
    """A saved state has nothing that this agent knows; it says what it may be the state of."""


class Translator(Protocol):
    """Hears one turn's handler. No I/O and no waiting: it runs on the token path."""

    def feed(self, item: object) -> None:
        """One thing the handler yielded. Raises `HandlerError` for what it cannot mean."""
        ...

    def finish(self) -> None:
        """The handler has ended well: complete what is open."""
        ...


class AgentDriver(Protocol):
    """One session's agent, as its actor drives it."""

    def restore(self, state: bytes) -> None:
        """Load what `save` gave. Called before the first `run`, if there is a saved state.

        Raises `ForeignState` for one that another kind of agent left, of which nothing fits: the agent begins anew.
        """
        ...

    def run(self, messages: Sequence[Message]) -> AsyncIterator[object]:
        """Answer; what is yielded is fed to the adapter's translator."""
        ...

    def save(self) -> bytes:
        """The agent's whole state, as JSON bytes."""
        ...


class FrameworkAdapter(Protocol):
    """What a framework needs to be served.

    `honours`: which of a turn's options (the field names of `TurnOptions`, like `tools`) its agents do as asked; a
    request for another is refused. Where they come from in a turn: `current_turn.get().options`.
    """

    name: str
    honours: frozenset[str]

    def messages(self, messages: Sequence[Message]) -> object:
        """A turn's input as the handler gets it. Raises `InvalidRequest` for what the framework cannot take."""
        ...

    def translator(self, composer: Composer) -> Translator:
        """A translator for one turn."""
        ...

    def driver(self, agent: object) -> AgentDriver:
        """Drive an agent that an `@app.agent` factory made. Raises `HandlerError` for what is no agent."""
        ...
