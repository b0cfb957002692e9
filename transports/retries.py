"""Requests that a client sends once more, because its answer did not come in time: it gets the turn it began.

OpenAI's clients send a request again when they have waited long enough, say so (`x-stainless-retry-count`), and send
the same bytes; the AI SDK does not say so. A turn is not run again for it: the client joins the one that runs, or is
still being taken in, if its own connection is gone. A stream is sent again only when its connection broke before its
headers came, which they do when its turn is taken in; after those nothing is sent again.

What is remembered of a request is the id of its turn. When it comes again the turn is asked for once more by that id
(`actors.repeats.UNNAMED`), and whoever takes turns in says whether it is there, wherever that is by now.

A request with an idempotency key needs none of it either: it says itself which turn it means, and is joined to it where
turns are accepted. This is for the clients that send no key.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from msgspec import structs

from greenroom.actors.events import TurnCancelled
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import Turn
from greenroom.transports.turn_request import TurnRequest

UNANSWERED = 10_000
"""Requests without an answered client that are remembered; of more the oldest is forgotten, and would be run again."""
ALIKE = 100
"""Turns that are remembered of one request."""
REMEMBERED_SECONDS = 300.0
"""How long after its client has gone a turn is joined. SDKs send a request again within some seconds; what looks like
one of them much later is another."""

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


class Asking:
    """A request, from before its turn is taken in until its client is answered; as a context, for that time.

    `first`: the id of the turn that it began when it was sent before. Nothing of the request is held: its body may be
    large.
    """

    __slots__ = ("_asked", "_connection", "_left_at", "_retries", "_turn_id", "first")

    def __init__(self, retries: Retries, request: TurnRequest, asked: _Asked | None, turn: Turn) -> None:
        self._retries = retries
        self._asked = asked
        self._connection: asyncio.Transport | None = request.transport
        self._left_at: float | None = None
        self.first = None if asked is None or not _may_be_again(request) else retries.first_of(asked)
        self._turn_id = self.first or turn.id

    def __enter__(self) -> None:
        if self._asked is not None:
            self._retries.remember(self._asked, self)

    def __exit__(self, *_: object) -> None:
        """It stays remembered when the client has gone without its answer."""
        if self._asked is None:
            return
        if self.gone:
            self._left_at = asyncio.get_running_loop().time()
        else:
            self._retries.forget(self._asked, self)

    async def begin(self, turn: Turn, submit: Callable[[Turn], Awaitable[TurnLog]]) -> TurnLog:
        """The turn that the request began when it was sent before; if there is none, or it was cancelled, this one."""
        if self.first is not None:
            request = structs.replace(turn.request, id=self.first)
            log = await submit(structs.replace(turn, id=self.first, request=request))
            if not isinstance(log.terminal, TurnCancelled):
                return log
            self._turn_id = turn.id
        return await submit(turn)

    def unanswered(self) -> None:
        """The client has gone before anything of the turn was sent to it."""
        if self._asked is not None:
            self._connection = None
            self._left_at = asyncio.get_running_loop().time()
            self._retries.remember(self._asked, self)

    @property
    def gone(self) -> bool:
        """Whether nobody waits at the connection any more."""
        return self._connection is None or self._connection.is_closing()

    @property
    def turn_id(self) -> str | None:
        """The turn that its client joins when he asks again; none: he waits still, or went too long ago."""
        if not self.gone:
            return None
        left_at = self._left_at
        late = left_at is not None and asyncio.get_running_loop().time() - left_at > REMEMBERED_SECONDS
        return None if late else self._turn_id


class Retries:
    """The requests whose clients have not been answered."""

    def __init__(self) -> None:
        self._asking: OrderedDict[_Asked, list[Asking]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Retries {sum(map(len, self._asking.values()))}>"

    def asking(self, request: TurnRequest, principal: str | None, body: bytes, turn: Turn) -> Asking:
        """The request, which asks for this `turn`. One that is remembered is joined once."""
        joined = turn.disconnect.policy != "cancel" and turn.idempotency_key is None
        return Asking(self, request, _asked(request, principal, body) if joined else None, turn)

    def first_of(self, asked: _Asked) -> str | None:
        """The id of the turn that such a request began whose client has gone, which is then forgotten."""
        for asking in list(self._asking.get(asked, ())):
            if asking.gone:
                self.forget(asked, asking)
                if (turn_id := asking.turn_id) is not None:
                    return turn_id
        return None

    def remember(self, asked: _Asked, asking: Asking) -> None:
        """Doing it twice is fine. The oldest make room."""
        alike = self._asking.setdefault(asked, [])
        if asking not in alike:
            alike.append(asking)
        del alike[:-ALIKE]
        self._asking.move_to_end(asked)
        while len(self._asking) > UNANSWERED:
            self._asking.popitem(last=False)

    def forget(self, asked: _Asked, asking: Asking) -> None:
        """Doing it twice is fine."""
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
