"""What looking into sessions' browsers takes."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, NamedTuple, Protocol

from greenroom.actors.messages import SessionKey
from greenroom.transports.view_tickets import ViewTickets

if TYPE_CHECKING:
    from greenroom.sandbox.client import BoxClient


class Browsers(Protocol):
    """What a view needs of an application's sandboxes."""

    def browsing(self, key: SessionKey) -> bool:
        """Whether the session has a browser at this moment."""
        ...

    def look(self, key: SessionKey) -> AbstractAsyncContextManager[BoxClient]:
        """The client of the session's browser, which stays while it is used. Raises a `SandboxError`."""
        ...

    async def take_over(self, key: SessionKey) -> None:
        """Let the agent's calls wait. Returns when none is under way; cancelled before, nothing was taken over."""
        ...

    def hand_back(self, key: SessionKey) -> None:
        """Let the agent's calls go on."""
        ...

    def stops(self, key: SessionKey) -> None:
        """This process stops: let the agent's calls go on, unless another process keeps the browser for the person."""
        ...


class Looking(NamedTuple):
    """The browsers, and the links to them."""

    browsers: Browsers
    tickets: ViewTickets
