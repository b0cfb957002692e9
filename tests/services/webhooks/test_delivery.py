"""Webhooks under way: when they are sent, how often, how many at once, and who goes on when a process dies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import pytest
from msgspec import structs

from greenroom.actors.errors import InvalidRequest, Overloaded, StoreUnavailable
from greenroom.actors.events import Terminal, TurnCancelled, TurnCompleted, TurnFailed
from greenroom.actors.messages import ErrorInfo, Turn
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.storage import FolderKey, Head
from greenroom.services.webhooks import delivery as module
from greenroom.services.webhooks.delivery import ATTEMPTS, Answer, Webhooks, WebhookSettings
from greenroom.services.webhooks.outbox import KIND, Delivery, InMemoryOutbox, Outbox, StorageOutbox
from kits.system import EPOCH, turn
from kits.virtual_time import virtual_time
from kits.webhook_receiver import SECRET, Received

pytestmark = virtual_time

URL = "https://receiver.example/hook"
ARRIVED = Answer(204)
HANG = Answer(why="there is none")


class Way:
    """In place of the network: `answers` to the next attempts, one of which is to hang; then all arrive."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[float, str, Received]] = []
        self.under_way = 0
        self.most = 0
        self.closed = False

    async def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        self.sent.append((now(), url, Received(headers, body)))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            answer = self.answers.pop(0) if self.answers else ARRIVED
            if answer is HANG:
                await asyncio.Event().wait()
            await asyncio.sleep(0.5)
            return answer
        finally:
            self.under_way -= 1

    async def close(self) -> None:
        self.closed = True

    @property
    def times(self) -> list[float]:
        return [at for at, _, _ in self.sent]


def now() -> float:
    """By the loop's clock, which begins at 0."""
    return asyncio.get_running_loop().time()


def given(way: Way, _: object) -> Way:
    return way


def clock() -> float:
    return EPOCH + now()


@asynccontextmanager
async def webhooks(way: Way, outbox: Outbox | None = None, **settings: Any) -> AsyncIterator[Webhooks]:
    """With pauses of exactly their length."""
    hooks = Webhooks(
        WebhookSettings(secret=SECRET, **settings),
        outbox or InMemoryOutbox(),
        now=clock,
        chance=lambda: 0.5,
        send=partial(given, way),
    )
    hooks.start()
    try:
        yield hooks
    finally:
        await hooks.stop()


def hooked(turn_id: str = "t", url: str = URL, **fields: Any) -> Turn:
    return structs.replace(turn("hello", id=turn_id, session="s", user="u", **fields), webhook=url)


COMPLETED = TurnCompleted(0.0)


async def test_it_says_what_ended_and_where_to_ask_and_nothing_that_was_said() -> None:
    way = Way()
    async with webhooks(way) as hooks:
        hooks.ended(hooked("a/b"), TurnCompleted(EPOCH + 0.25))
        await asyncio.sleep(1)
    ((at, url, received),) = way.sent
    received.check()
    assert url == URL
    assert received.event == {
        "id": received.id,
        "object": "event",
        "type": "response.completed",
        "created_at": 1_795_000_000,
        "timestamp": "2026-11-18T11:06:40.250Z",
        "data": {
            "id": "a/b",
            "status": "completed",
            "session_id": "s",
            "user_id": "u",
            "url": "/process/a%2Fb",
        },
    }
    assert received.headers["webhook-timestamp"] == str(int(EPOCH + at))
    assert way.closed


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        (COMPLETED, "completed"),
        (TurnCompleted(0.0, incomplete="max_output_tokens"), "incomplete"),
        (TurnFailed(0.0, ErrorInfo("E", "no")), "failed"),
        (TurnCancelled(0.0, "asked"), "cancelled"),
    ],
)
async def test_every_ending_is_told(ending: Terminal, status: str) -> None:
    way = Way()
    async with webhooks(way) as hooks:
        hooks.ended(hooked(), ending)
        hooks.ended(structs.replace(hooked("without"), webhook=None), ending)
        await asyncio.sleep(1)
    ((_, _, received),) = way.sent
    assert (received.event["type"], received.event["data"]["status"]) == (f"response.{status}", status)


async def test_pauses_grow_and_in_the_end_it_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    way = Way(*[Answer(500, why="HTTP 500")] * (ATTEMPTS + 5))
    async with webhooks(way) as hooks:
        hooks.ended(hooked(), COMPLETED)
        assert hooks.pending == 1
        await asyncio.sleep(100_000)
        assert hooks.pending == 0
    pauses = [later - before - 0.5 for before, later in zip(way.times, way.times[1:], strict=False)]
    assert pauses == pytest.approx([5, 20, 80, 320, 1280, 5120, *[7200] * 5])
    assert len({received.id for _, _, received in way.sent}) == 1
    for at, _, received in way.sent:
        received.check()
        assert received.headers["webhook-timestamp"] == str(int(EPOCH + at))
    assert f"given up at attempt {ATTEMPTS}: HTTP 500" in caplog.text


async def test_pauses_are_spread() -> None:
    seen = set()
    for chance in (0.0, 0.999):
        way = Way(Answer(500))
        hooks = Webhooks(
            WebhookSettings(secret=SECRET),
            InMemoryOutbox(),
            now=clock,
            chance=partial(float, chance),
            send=partial(given, way),
        )
        hooks.ended(hooked(), COMPLETED)
        await asyncio.sleep(10)
        await hooks.stop()
        first, second = way.times
        seen.add(round(second - first - 0.5, 2))
    assert seen == {3.75, 6.25}


@pytest.mark.parametrize("answer", [Answer(410, why="HTTP 410"), Answer(why="it leads inside", final=True)])
async def test_what_is_of_no_use_is_not_tried_again(answer: Answer, caplog: pytest.LogCaptureFixture) -> None:
    way = Way(answer)
    async with webhooks(way) as hooks:
        hooks.ended(hooked(), COMPLETED)
        await asyncio.sleep(100)
        assert hooks.pending == 0
    assert len(way.sent) == 1
    assert answer.why in caplog.text


async def test_a_receiver_says_when_to_come_back() -> None:
    way = Way(Answer(503, retry_after=600.0), Answer(503, retry_after=1e9))
    async with webhooks(way) as hooks:
        hooks.ended(hooked(), COMPLETED)
        await asyncio.sleep(10_000)
    assert way.times == pytest.approx([0, 600.5, 7801])


async def test_one_that_hangs_does_not_hold_up_the_others() -> None:
    way = Way(*[HANG] * module.AT_ONCE_A_HOST)
    async with webhooks(way) as hooks:
        for number in range(10):
            hooks.ended(hooked(f"slow{number}", "https://slow.example/"), COMPLETED)
        await asyncio.sleep(0.1)
        assert len(way.sent) == module.AT_ONCE_A_HOST
        for number in range(20):
            hooks.ended(hooked(f"t{number}"), COMPLETED)
        await asyncio.sleep(100)
        assert len(way.sent) == module.AT_ONCE_A_HOST + 20
        assert hooks.pending == 10


async def test_so_many_are_sent_at_once_and_no_more() -> None:
    way = Way()
    async with webhooks(way) as hooks:
        for number in range(200):
            hooks.ended(hooked(f"t{number}", f"https://r{number % 50}.example/"), COMPLETED)
        await asyncio.sleep(1000)
        assert hooks.pending == 0
    assert way.most == module.AT_ONCE
    assert len({received.event["data"]["id"] for _, _, received in way.sent}) == len(way.sent) == 200
    assert not hooks._hosts


async def test_over_the_bound_a_request_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 3)
    async with webhooks(Way(*[HANG] * 3)) as hooks:
        for number in range(3):
            hooks.check(URL)
            hooks.ended(hooked(f"t{number}"), COMPLETED)
        with pytest.raises(Overloaded, match="3 webhooks are on their way"):
            hooks.check(URL)


async def test_turns_that_will_have_one_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 3)
    async with webhooks(Way(HANG)) as hooks:
        with pytest.raises(Overloaded, match="3 webhooks are on their way"):
            hooks.check(URL, turns=3)
        with hooks.promised(URL, turns=2), pytest.raises(Overloaded):  # which is being taken in
            hooks.check(URL, turns=2)
        hooks.ended(hooked(), COMPLETED)
        with pytest.raises(Overloaded):
            hooks.check(URL, turns=2)
        hooks.check(URL, turns=1)


async def test_an_ending_that_is_told_twice_is_sent_once() -> None:
    way = Way()
    async with webhooks(way) as hooks:
        for _ in range(2):
            hooks.ended(hooked(), COMPLETED)
        await asyncio.sleep(10)
    assert len(way.sent) == 1


async def test_ids_tell_messages_apart() -> None:
    """A client's id may come again, when the turn is long forgotten, or be another person's."""
    way = Way()
    turns = [
        hooked(),
        structs.replace(hooked(), created_at=hooked().created_at + 1),
        structs.replace(hooked(), principal="ann"),
        hooked("another"),
    ]
    async with webhooks(way) as hooks:
        for one in turns:
            hooks.ended(one, COMPLETED)
        await asyncio.sleep(10)
    assert len({received.id for _, _, received in way.sent}) == 4


async def test_what_is_sent_when_it_stops_is_sent_to_its_end_within_a_bound(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    way = Way(ARRIVED, HANG)
    async with webhooks(way) as hooks:
        hooks.ended(hooked("quick"), COMPLETED)
        hooks.ended(hooked("slow"), COMPLETED)
        before = now()
    assert now() - before == module.STOP_SECONDS
    assert "stopped with 1 webhooks on their way" in caplog.text
    assert way.under_way == 0
    hooks.ended(hooked("late"), COMPLETED)
    assert len(way.sent) == 2


async def test_without_a_secret_a_request_is_refused() -> None:
    hooks = Webhooks(WebhookSettings(), InMemoryOutbox(), now=clock)
    with pytest.raises(InvalidRequest, match="nothing to sign webhooks with") as refused:
        hooks.check(URL)
    assert refused.value.field == "webhook"
    assert hooks.changes(hooked(), COMPLETED) == ()
    hooks.ended(hooked(), COMPLETED)
    assert hooks.pending == 0
    await hooks.stop()


async def test_an_address_that_is_not_allowed_is_refused_with_the_request() -> None:
    async with webhooks(Way(), private=["10.0.0.0/8"]) as hooks:
        hooks.check("https://10.1.2.3/")
        with pytest.raises(InvalidRequest, match="loopback"):
            hooks.check("https://127.0.0.1/")


async def test_a_defect_in_sending_is_logged_and_not_the_end(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Way):
        async def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
            answer = await super().__call__(url, headers, body)
            if len(self.sent) == 1:
                raise RuntimeError("internal matter")
            return answer

    way = Broken()
    async with webhooks(way) as hooks:
        hooks.ended(hooked(), COMPLETED)
        await asyncio.sleep(100)
    assert len(way.sent) == 2
    assert "defect of Greenroom" in caplog.text


# -- in a storage ------------------------------------------------------------------------------------------------------


class Process:
    """One of the processes that share a storage."""

    def __init__(self, storage: MemoryStorage, name: str, way: Way) -> None:
        self.storage = storage
        self.name = name
        self.outbox = StorageOutbox(storage, lambda: self.name)
        self.hooks = Webhooks(
            WebhookSettings(secret=SECRET),
            self.outbox,
            now=clock,
            chance=lambda: 0.5,
            send=partial(given, way),
        )

    async def start(self) -> None:
        await self.storage.start()
        await self.storage.renew(self.name, 1e9)
        self.hooks.start()

    async def end_turn(self, turn: Turn, ending: Terminal = COMPLETED) -> None:
        """The ending is written, with what is to be told; then it is told."""
        await self.storage.write(self.hooks.changes(turn, ending))
        self.hooks.ended(turn, ending)

    async def die(self) -> None:
        """All that it did stops in the middle."""
        self.hooks._stopped = True
        for task in [*self.hooks._sending, *filter(None, [self.hooks._looking])]:
            task.cancel()
        await self.storage.renew(self.name, 0, "gone")


async def kept(storage: MemoryStorage) -> int:
    return len(await storage.sessions(KIND, "u"))


def clocked() -> MemoryStorage:
    return MemoryStorage(monotonic=now)


async def test_what_has_arrived_is_not_kept() -> None:
    storage, way = clocked(), Way(Answer(500))
    process = Process(storage, "one", way)
    await process.start()
    await process.end_turn(hooked())
    assert await kept(storage) == 1
    await asyncio.sleep(100)
    assert len(way.sent) == 2
    assert await kept(storage) == 0
    await process.hooks.stop()


@pytest.mark.parametrize("moment", ["before it is told", "while it is sent", "after an attempt"])
async def test_another_process_goes_on_for_one_that_died(moment: str) -> None:
    storage = clocked()
    first = Way(Answer(500) if moment == "after an attempt" else HANG)
    one = Process(storage, "one", first)
    await one.start()
    if moment == "before it is told":
        await storage.write(one.hooks.changes(hooked(), COMPLETED))
    else:
        await one.end_turn(hooked())
        await asyncio.sleep(1)
    await one.die()
    assert await kept(storage) == 1

    way = Way()
    other = Process(storage, "other", way)
    await other.start()
    await asyncio.sleep(60)
    ((at, _, received),) = way.sent
    received.check()
    assert await kept(storage) == 0
    if first.sent:
        assert received.id == first.sent[0][2].id
        assert received.body == first.sent[0][2].body
    if moment == "after an attempt":
        assert at == pytest.approx(5.5)  # when the one that died would have sent it
    await other.hooks.stop()


async def test_of_two_that_find_it_one_sends_it() -> None:
    class Distant(MemoryStorage):
        """What is seen is out of date before its reader has it."""

        async def orphans(self, kind: str, limit: int) -> tuple[Head, ...]:
            found = await super().orphans(kind, limit)
            await asyncio.sleep(0.1)
            return found

    storage, way = Distant(monotonic=now), Way()
    one = Process(storage, "one", Way(HANG))
    await one.start()
    for number in range(20):
        await storage.write(one.hooks.changes(hooked(f"t{number}"), COMPLETED))
    await one.die()
    others = [Process(storage, f"other{number}", way) for number in range(3)]
    for other in others:
        await other.start()
    await asyncio.sleep(60)
    assert len(way.sent) == 20
    assert await kept(storage) == 0
    for other in others:
        await other.hooks.stop()


async def test_one_that_was_taken_for_dead_leaves_it_to_the_other() -> None:
    """It was paused: its own attempt fails after another process has the message. Only that one goes on."""
    storage = clocked()
    way, others_way = Way(Answer(500)), Way(HANG)
    one, other = Process(storage, "one", way), Process(storage, "other", others_way)
    await one.start()
    await storage.write(one.hooks.changes(hooked(), COMPLETED))
    await storage.renew("one", 0, "gone")
    await other.start()
    await asyncio.sleep(0.1)
    one.hooks.ended(hooked(), COMPLETED)
    await asyncio.sleep(100)
    assert (len(way.sent), len(others_way.sent)) == (1, 1)
    assert one.hooks.pending == 0
    await one.hooks.stop()
    await other.hooks.stop()


async def test_a_store_that_is_down_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Down(StorageOutbox):
        async def failed(self, delivery: Delivery) -> bool:
            raise StoreUnavailable("it is down")

        async def over(self, delivery: Delivery) -> None:
            raise StoreUnavailable("it is down")

        async def left_behind(self, limit: int) -> Any:
            raise StoreUnavailable("it is down")

    storage, way = clocked(), Way(Answer(500))
    await storage.start()
    async with webhooks(way, Down(storage, lambda: "one")) as hooks:
        hooks.ended(hooked(), COMPLETED)
        await asyncio.sleep(60)
        assert hooks.pending == 0
    assert len(way.sent) == 2
    assert "could not be kept: it is down" in caplog.text
    assert "cannot be looked for: it is down" in caplog.text


async def test_one_that_cannot_be_read_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    storage, way = clocked(), Way()
    one = Process(storage, "one", Way())
    await one.start()
    (change,) = one.hooks.changes(hooked("bad"), COMPLETED)
    await storage.write([structs.replace(change, head=msgspec.msgpack.encode("nonsense"))])
    await storage.write(one.hooks.changes(hooked("good"), COMPLETED))
    await one.die()
    other = Process(storage, "other", way)
    await other.start()
    await asyncio.sleep(60)
    assert [received.event["data"]["id"] for _, _, received in way.sent] == ["good"]
    assert caplog.text.count("cannot be read") == 1
    assert await storage.read(FolderKey(KIND, "u", change.key.session_id)) is not None
    await other.hooks.stop()
