"""Webhooks: telling a URL that a turn has ended, signed, at least once.

A message says which turn ended and how, and where to ask for the rest; of what was said there is nothing in it. Its id
is the same at every attempt, also when another process makes it, so that a receiver can tell a second one. It has
arrived with a status of 2xx. Else it is sent again, after pauses that grow, and in the end given up.

Waiting costs a timer a message. So many are sent at once, and so many of them to one host, so that a receiver that
hangs does not hold up the others.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from typing import Final, NamedTuple, Protocol
from urllib.parse import quote, urlsplit

import anyio
import msgspec
from msgspec import Struct, structs

from greenroom.actors.errors import InvalidRequest, Overloaded, StoreUnavailable
from greenroom.actors.events import Terminal, TurnCancelled, TurnCompleted, TurnFailed
from greenroom.actors.messages import Turn
from greenroom.services.storage import Change
from greenroom.services.webhooks.gate import Gate
from greenroom.services.webhooks.outbox import Delivery, Outbox
from greenroom.services.webhooks.signing import Signer

logger = logging.getLogger("greenroom.webhooks")

ATTEMPTS: Final = 12
"""With the pauses below: over a bit more than eight hours."""
FIRST_PAUSE: Final = 5.0
GROWTH: Final = 4.0
LONGEST_PAUSE: Final = 2 * 3600.0
SPREAD: Final = 0.25
"""A pause is up to so much longer or shorter, so that a receiver that comes back is not met by all at once."""
WAITING: Final = 10_000
"""Messages under way, and turns at work that will have one, at most; over it a request with a webhook is refused."""
GONE: Final = 410
"""How a receiver says that it wants no more."""
STOP_SECONDS: Final = 5.0
AT_ONCE: Final = 32
AT_ONCE_A_HOST: Final = 4
LOOK_SECONDS: Final = 5.0
"""Between two looks for what processes that are gone left behind."""
TAKEN_AT_ONCE: Final = 100

_STATUS: Final = {TurnCompleted: "completed", TurnFailed: "failed", TurnCancelled: "cancelled"}


class Answer(NamedTuple):
    """What became of an attempt. `status`: HTTP's, none when there was no answer; `retry_after`: what it asked for, in
    seconds; `why`: what went wrong, for the log; `final`: trying again is of no use."""

    status: int | None = None
    retry_after: float = 0.0
    why: str = ""
    final: bool = False

    @property
    def arrived(self) -> bool:
        """Whether it was delivered."""
        return self.status is not None and 200 <= self.status < 300


class Send(Protocol):
    """Makes one attempt, as `Post` does."""

    async def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send it once. Does not raise for what the receiver does."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class WebhookSettings(Struct, frozen=True, kw_only=True):
    """`secret`: what messages are signed with; none: there are no webhooks. `private`: addresses and networks, besides
    those of the public internet, that they may go to."""

    secret: str | None = None
    private: Sequence[str] = ()

    @staticmethod
    def of(secret: str | None, private: Sequence[str]) -> WebhookSettings:
        """These, or what the environment says."""
        listed = os.environ.get("GREENROOM_WEBHOOK_PRIVATE", "").replace(",", " ").split()
        return WebhookSettings(
            secret=secret or os.environ.get("GREENROOM_WEBHOOK_SECRET") or None, private=private or listed
        )


class Webhooks:
    """Tells receivers of the endings of turns; the actors' `Announcer`. It has nothing to do until there is a turn with
    a webhook."""

    def __init__(
        self,
        settings: WebhookSettings,
        outbox: Outbox,
        *,
        now: Callable[[], float],
        chance: Callable[[], float] = random.random,
        send: Callable[[Gate], Send] | None = None,
    ) -> None:
        self._signer = None if settings.secret is None else Signer.of(settings.secret)
        self._gate = Gate(settings.private)
        self._outbox = outbox
        self._now = now
        self._chance = chance
        self._new_send = send or _post
        self._send: Send | None = None
        self._pending: set[str] = set()
        self._promised = 0
        """Turns with a webhook that are being taken in."""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._ready: deque[Delivery] = deque()
        self._sending: set[asyncio.Task[Delivery | None]] = set()
        self._hosts: Counter[str] = Counter()
        self._looking: asyncio.Task[None] | None = None
        self._stopped = False

    def __repr__(self) -> str:
        return f"<Webhooks: {len(self._timers)} wait, {len(self._ready)} are due, {len(self._sending)} are being sent>"

    @property
    def pending(self) -> int:
        """Messages that have not arrived yet."""
        return len(self._pending)

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Look, from now on, for what processes that are gone left behind."""
        if self._signer is not None and self._outbox.shared:
            self._looking = asyncio.get_running_loop().create_task(self._look(), name="greenroom webhooks")

    async def stop(self) -> None:
        """Send what is due, within a bound, and no more after that. In a storage the rest waits for another process."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        with anyio.move_on_after(STOP_SECONDS):
            while self._sending:
                await asyncio.wait(self._sending)
        self._stopped = True
        for timer in self._timers.values():
            timer.cancel()
        for task in self._sending:
            task.cancel()
        if self._sending:
            await asyncio.wait(self._sending)
        if self._pending:
            logger.warning("stopped with %s webhooks on their way", self.pending)
        if self._send is not None:
            await self._send.close()

    # -- turns -----------------------------------------------------------------------------------------------------

    @contextmanager
    def promised(self, url: str, turns: int) -> Iterator[None]:
        """While a turn with this webhook is being taken in. Raises as `check`."""
        self.check(url, turns)
        self._promised += 1
        try:
            yield
        finally:
            self._promised -= 1

    def check(self, url: str, turns: int = 0) -> None:
        """Whether a turn with this webhook can be taken. `turns`: how many with one are at work.

        Raises `InvalidRequest` and `Overloaded`.
        """
        if self._signer is None:
            raise InvalidRequest(
                "webhook: this application has nothing to sign webhooks with, so it sends none; give it "
                "AgentApp(webhook_secret=…), or GREENROOM_WEBHOOK_SECRET in its environment",
                field="webhook",
            )
        self._gate.read(url)
        waiting = self.pending + self._promised + turns
        if waiting >= WAITING:
            raise Overloaded(
                f"{waiting} webhooks are on their way, or wait for their turns to end, as many as may be; try again "
                "later, or without a webhook"
            )

    def changes(self, turn: Turn, ending: Terminal) -> Sequence[Change]:
        """What is to be written with the turn's ending."""
        delivery = self._delivery(turn, ending)
        return () if delivery is None else self._outbox.changes(delivery)

    def ended(self, turn: Turn, ending: Terminal) -> None:
        """The turn has this ending: tell it."""
        delivery = self._delivery(turn, ending)
        if delivery is not None:
            self._take_up(delivery)

    def _delivery(self, turn: Turn, ending: Terminal) -> Delivery | None:
        """The message; the same one whenever it is made."""
        if turn.webhook is None or self._signer is None:
            return None
        message_id = _message_id(turn)
        return Delivery(
            id=message_id,
            url=turn.webhook,
            body=_body(message_id, turn, ending),
            user_id=turn.key.user_id,
            turn_id=turn.id,
            due=ending.at,
        )

    # -- sending ---------------------------------------------------------------------------------------------------

    def _take_up(self, delivery: Delivery) -> None:
        if self._stopped or delivery.id in self._pending:
            return
        self._pending.add(delivery.id)
        wait = delivery.due - self._now()
        if wait <= 0:
            self._due(delivery)
        else:
            loop = asyncio.get_running_loop()
            self._timers[delivery.id] = loop.call_later(min(wait, LONGEST_PAUSE), self._due, delivery)

    def _due(self, delivery: Delivery) -> None:
        self._timers.pop(delivery.id, None)
        self._ready.append(delivery)
        self._begin_some()

    def _begin_some(self) -> None:
        """Begin to send what is due, as far as there is room; what goes to a host that has its share waits on."""
        held: list[Delivery] = []
        while self._ready and len(self._sending) < AT_ONCE:
            delivery = self._ready.popleft()
            host = _host(delivery)
            if self._hosts[host] >= AT_ONCE_A_HOST:
                held.append(delivery)
                continue
            self._hosts[host] += 1
            task = asyncio.get_running_loop().create_task(
                self._attempt(delivery), name=f"webhook of turn {delivery.turn_id}"
            )
            self._sending.add(task)
            task.add_done_callback(partial(self._attempted, delivery))
        self._ready.extendleft(reversed(held))

    def _attempted(self, delivery: Delivery, task: asyncio.Task[Delivery | None]) -> None:
        self._sending.discard(task)
        host = _host(delivery)
        self._hosts[host] -= 1
        if not self._hosts[host]:
            del self._hosts[host]
        if task.cancelled():
            return
        self._pending.discard(delivery.id)
        later = task.result()
        if later is not None:
            self._take_up(later)
        if not self._stopped:
            self._begin_some()

    async def _attempt(self, delivery: Delivery) -> Delivery | None:
        """Send it once. Gives what is to be sent later: nothing when it has arrived, or is given up."""
        assert self._signer is not None
        if self._send is None:
            self._send = self._new_send(self._gate)
        headers = self._signer.headers(delivery.id, self._now(), delivery.body)
        try:
            answer = await self._send(delivery.url, headers, delivery.body)
        except Exception:
            logger.exception(
                "sending the webhook of turn %s failed; this is a defect of Greenroom", delivery.turn_id
            )
            answer = Answer(why="it could not be sent")
        failed = delivery.attempts + 1
        if answer.arrived or answer.final or answer.status == GONE or failed >= ATTEMPTS:
            if not answer.arrived:
                logger.error(
                    "the webhook of turn %s is given up at attempt %s: %s",
                    delivery.turn_id,
                    failed,
                    answer.why,
                )
            await self._settle(self._outbox.over(delivery), delivery)
            return None
        pause = self._pause(delivery.attempts, answer.retry_after)
        logger.warning(
            "the webhook of turn %s did not arrive (%s); it is sent again in %.0f s",
            delivery.turn_id,
            answer.why,
            pause,
        )
        later = structs.replace(delivery, attempts=failed, due=self._now() + pause)
        ours = await self._settle(self._outbox.failed(later), delivery)
        return None if ours is False else later

    async def _settle(self, keeping: Awaitable[bool | None], delivery: Delivery) -> bool | None:
        """Write down how it went. When that fails the message may be sent once more than need be, and nothing else."""
        try:
            return await keeping
        except StoreUnavailable as error:
            logger.warning(
                "what became of the webhook of turn %s could not be kept: %s", delivery.turn_id, error.message
            )
            return None

    def _pause(self, attempts: int, retry_after: float) -> float:
        pause = min(FIRST_PAUSE * GROWTH**attempts, LONGEST_PAUSE)
        pause *= 1 - SPREAD + 2 * SPREAD * self._chance()
        return min(max(pause, retry_after), LONGEST_PAUSE)

    # -- what others left behind -----------------------------------------------------------------------------------

    async def _look(self) -> None:
        while True:
            try:
                await self._take_over()
            except StoreUnavailable as error:
                logger.warning("webhooks that others left behind cannot be looked for: %s", error.message)
            except Exception:
                logger.exception("webhooks that others left behind could not be looked for")
            await asyncio.sleep(LOOK_SECONDS * (1 - SPREAD + 2 * SPREAD * self._chance()))

    async def _take_over(self) -> None:
        room = WAITING - self.pending
        if room > 0:
            for delivery in await self._outbox.left_behind(min(room, TAKEN_AT_ONCE)):
                self._take_up(delivery)


def _post(gate: Gate) -> Send:
    from greenroom.services.webhooks.post import Post

    return Post(gate)


def _host(delivery: Delivery) -> str:
    return urlsplit(delivery.url).netloc


def _message_id(turn: Turn) -> str:
    """Of the one message that a turn has. An id that a client gives again, much later, is another turn."""
    words = msgspec.json.encode((turn.principal, turn.id, turn.created_at))
    return f"evt_{blake2b(words, digest_size=16).hexdigest()}"


def _body(message_id: str, turn: Turn, ending: Terminal) -> bytes:
    status = _STATUS[type(ending)]
    if isinstance(ending, TurnCompleted) and ending.incomplete is not None:
        status = "incomplete"
    at = datetime.fromtimestamp(ending.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return msgspec.json.encode(
        {
            "id": message_id,
            "object": "event",
            "type": f"response.{status}",
            "created_at": int(ending.at),
            "timestamp": at,
            "data": {
                "id": turn.id,
                "status": status,
                "session_id": turn.key.session_id,
                "user_id": turn.key.user_id,
                "url": f"/process/{quote(turn.id, safe='')}",
            },
        }
    )
