"""Requests that a client sends once more, because its answer did not come in time: it gets the turn it began.

OpenAI's clients send a request again when they have waited long enough, say so (`x-stainless-retry-count`), and send
the same bytes; the AI SDK does not say so. A turn is not run again for it: the client joins the one that runs, if its
own connection is gone. A stream is sent again only when its connection broke before its headers came, which they do at
once; after those nothing is sent again.

A request with an idempotency key needs none of it either: it says itself which turn it means, and is joined to it where
turns are accepted. This is for the clients that send no key.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from greenroom.actors.errors import TurnNotFound
from greenroom.actors.events import TurnCancelled
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import Turn
from greenroom.transports.transport import Host
from greenroom.transports.turn_request import TurnRequest

UNANSWERED = 10_000
"""Requests without an answered client that are remembered; of more the oldest is forgotten, and would be run again."""
ALIKE = 100
"""Turns that are remembered of one request."""

_COUNT = "x-stainless-retry-count"
_UNCOUNTED = "ai-sdk/"
"""A part of the `User-Agent` of a client that sends requests again without counting."""


class _Asked(NamedTuple):
    """What makes two requests the same. `body`: its hash; the bytes need not be kept, and the key is not guessable."""

    principal: str | None
    remote: str | None
    authorization: str | None
    path: str
    size: int
    body: int


class _Asking(NamedTuple):
    """A turn and the connection that waits for it, or did. Nothing of the request is held: its body may be large."""

    turn_id: str
    connection: asyncio.Transport | None

    @property
    def gone(self) -> bool:
        """Whether nobody waits at the connection any more."""
        return self.connection is None or self.connection.is_closing()


class Retries:
    """The turns whose clients have not been answered."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._asking: OrderedDict[_Asked, list[_Asking]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Retries {sum(map(len, self._asking.values()))}>"

    def turn_of(self, request: TurnRequest, principal: str | None, body: bytes, turn: Turn) -> TurnLog | None:
        """The turn that this request began when it was sent before; none if it is to begin one, this `turn`."""
        if turn.idempotency_key is not None or not _may_be_again(request):
            return None
        asked = _asked(request, principal, body)
        for asking in list(self._asking.get(asked, ())):
            if not asking.gone:
                continue
            self._forget(asked, asking)
            log = self._find(asking.turn_id, principal)
            if log is not None:
                return log
        return None

    @contextmanager
    def answering(
        self, request: TurnRequest, principal: str | None, body: bytes, log: TurnLog
    ) -> Iterator[None]:
        """While a client waits for a turn. It is remembered after that when the client has gone without its answer."""
        if log.turn.disconnect.policy == "cancel" or log.turn.idempotency_key is not None:
            yield
            return
        asked, asking = _asked(request, principal, body), _Asking(log.id, request.transport)
        self._remember(asked, asking)
        try:
            yield
        finally:
            if not asking.gone:
                self._forget(asked, asking)

    def unanswered(self, request: TurnRequest, principal: str | None, body: bytes, log: TurnLog) -> None:
        """The client has gone before anything of the turn was sent to it."""
        if log.turn.disconnect.policy != "cancel" and log.turn.idempotency_key is None:
            self._remember(_asked(request, principal, body), _Asking(log.id, None))

    def _remember(self, asked: _Asked, asking: _Asking) -> None:
        alike = self._asking.setdefault(asked, [])
        alike.append(asking)
        del alike[:-ALIKE]
        self._asking.move_to_end(asked)
        while len(self._asking) > UNANSWERED:
            self._asking.popitem(last=False)

    def _find(self, turn_id: str, principal: str | None) -> TurnLog | None:
        try:
            log = self._host.find(turn_id, principal)
        except TurnNotFound:
            return None
        return None if isinstance(log.terminal, TurnCancelled) else log

    def _forget(self, asked: _Asked, asking: _Asking) -> None:
        known = self._asking.get(asked)
        if known is not None and asking in known:
            known.remove(asking)
            if not known:
                del self._asking[asked]


def _asked(request: TurnRequest, principal: str | None, body: bytes) -> _Asked:
    authorization = request.headers.get("Authorization")
    return _Asked(principal, request.remote, authorization, request.path, len(body), hash(body))


def _may_be_again(request: TurnRequest) -> bool:
    count = request.headers.get(_COUNT)
    return _UNCOUNTED in request.headers.get("User-Agent", "") if count is None else count != "0"
