"""Disconnect policies of turns whose clients come and go in other processes than the one that runs them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom.actors.disconnects import RETURN_SECONDS
from greenroom.actors.errors import TurnNotFound
from greenroom.actors.events import TurnCancelled, TurnCompleted
from greenroom.actors.followers import AGAIN_SECONDS, HOLDS_SECONDS, RETRY_SECONDS, FollowedLog
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import Disconnect
from kits.sharing import LEASE, Diary, Process, processes, repeatable
from kits.system import turn
from kits.virtual_time import virtual_time

pytestmark = virtual_time

SOON = 1.1
"""A note is heard within a second while turns are open."""
CANCEL = Disconnect("cancel")
BOTH = pytest.mark.parametrize("policy", [CANCEL, Disconnect("grace", 3.0)], ids=lambda policy: policy.policy)


@pytest.fixture(autouse=True)
def nothing_begun() -> None:
    Diary.begun.clear()


def now() -> float:
    return asyncio.get_running_loop().time()


class Client:
    """Who follows a turn in one process, as a connection does."""

    def __init__(self, process: Process, log: TurnLog) -> None:
        self.log = log
        self._process = process
        log.watch(self._told)

    def _told(self) -> None:
        """There is more."""

    def leave(self) -> None:
        self.log.unwatch(self._told)
        self._process.system.client_left(self.log)


async def follow(process: Process, turn_id: str = "t") -> Client:
    client = Client(process, await process.system.locate(turn_id))
    await asyncio.sleep(0.0005)  # what is said of it is said
    return client


async def ask(process: Process, text: str, policy: Disconnect, turn_id: str = "t") -> Client:
    """A new turn, and the client that asked for it."""
    return Client(process, await process.system.submit(turn(text, id=turn_id, disconnect=policy)))


async def gone_at(log: TurnLog) -> float:
    """When the turn was cancelled. Nobody follows it for that."""
    while log.terminal is None:  # noqa: ASYNC110 - who waits for the ending follows the turn
        await asyncio.sleep(0.05)
    assert isinstance(log.terminal, TurnCancelled), log.terminal
    return now()


# -- a client that comes back in another process -----------------------------------------------------------------------


@pytest.mark.parametrize(("grace", "after"), [(5.0, 0.1), (5.0, 4.999), (0.3, 0.2)])
async def test_a_client_that_comes_back_in_another_process_keeps_its_turn(grace: float, after: float) -> None:
    async with processes() as (first, second):
        client = await ask(first, "a 60", Disconnect("grace", grace))
        await asyncio.sleep(1.5)
        client.leave()
        await asyncio.sleep(after)
        back = await follow(second)
        assert isinstance(await back.log.ended(), TurnCompleted)
        assert back.log.events() == client.log.events()


async def test_one_that_comes_back_too_late_does_not() -> None:
    async with processes() as (first, second):
        client = await ask(first, "a 60", Disconnect("grace", 5.0))
        await asyncio.sleep(1.5)
        client.leave()
        assert await gone_at(client.log) == pytest.approx(6.5, abs=0.1)
        assert (await follow(second)).log.terminal is not None


async def test_the_grace_runs_from_the_last_leave_wherever_that_was() -> None:
    async with processes() as (first, second):
        client = await ask(first, "a 60", Disconnect("grace", 4.0))
        client.leave()
        await asyncio.sleep(3)
        back = await follow(second)
        await asyncio.sleep(10)
        back.leave()
        assert 17 <= await gone_at(client.log) < 17 + SOON


async def test_who_is_in_another_process_keeps_the_turn_that_nobody_follows_here() -> None:
    async with processes() as (first, second):
        client = await ask(first, "a 60", CANCEL)
        other = await follow(second)
        client.leave()
        assert isinstance(await other.log.ended(), TurnCompleted)


async def test_it_is_kept_for_as_long_as_somebody_follows_there() -> None:
    async with processes() as (first, second):
        client = await ask(first, "a 3600", Disconnect("grace", 1.0))
        client.leave()
        back = await follow(second)
        assert isinstance(await back.log.ended(), TurnCompleted)


# -- a client that leaves in another process ---------------------------------------------------------------------------


@BOTH
async def test_a_client_that_leaves_in_another_process_has_left(policy: Disconnect) -> None:
    async with processes(3) as (first, second, third):
        client = await ask(first, "a 60", policy)
        others = [await follow(second), await follow(second), await follow(third)]
        client.leave()
        for other in others:
            await asyncio.sleep(7)
            assert client.log.terminal is None
            other.leave()
        left = now()
        grace = policy.grace_seconds if policy.policy == "grace" else 0.0
        assert grace <= await gone_at(client.log) - left < grace + SOON


async def test_one_that_stays_where_the_turn_runs_keeps_it() -> None:
    async with processes() as (first, second):
        client = await ask(first, "a 60", CANCEL)
        other = await follow(second)
        await asyncio.sleep(7)
        other.leave()
        assert isinstance(await client.log.ended(), TurnCompleted)


async def test_a_repeat_whose_client_went_before_it_was_answered_has_left() -> None:
    async with processes() as (first, second):
        log = await first.system.submit(repeatable("a 60", disconnect=CANCEL))
        again = await second.system.submit(repeatable("a 60", disconnect=CANCEL))
        second.system.client_left(again)
        assert await gone_at(log) < SOON


# -- processes that go -------------------------------------------------------------------------------------------------


@BOTH
async def test_what_a_process_said_that_died_does_not_hold_for_ever(policy: Disconnect) -> None:
    async with processes() as (first, second):
        client = await ask(first, "a 600", policy)
        await follow(second)
        client.leave()
        await asyncio.sleep(31)
        assert client.log.terminal is None
        second.storage.cut = True
        grace = policy.grace_seconds if policy.policy == "grace" else 0.0
        lasted = await gone_at(client.log) - 31
        assert HOLDS_SECONDS - AGAIN_SECONDS + grace - SOON < lasted < HOLDS_SECONDS + grace + SOON


async def test_a_process_that_stops_says_nothing_of_the_clients_that_it_cuts_off() -> None:
    async with processes(3) as (first, second, third):
        client = await ask(first, "a 60", CANCEL)
        there = await follow(second)
        client.leave()
        await asyncio.sleep(2)
        await second.system.drain(0)
        there.leave()
        await second.system.stop()
        await asyncio.sleep(5)
        back = await follow(third)
        assert isinstance(await back.log.ended(), TurnCompleted)


@pytest.mark.parametrize(
    ("policy", "seconds"),
    [
        (CANCEL, RETURN_SECONDS),
        (Disconnect("grace", 1.0), RETURN_SECONDS),
        (Disconnect("grace", 20.0), 20.0),
        (Disconnect(), None),
    ],
)
@pytest.mark.parametrize("dies", [True, False])
async def test_a_turn_that_is_taken_over_waits_so_long_for_its_client(
    policy: Disconnect, seconds: float | None, dies: bool
) -> None:
    async with processes(idempotent=True) as (first, second):
        await ask(first, "a 60", policy)
        await asyncio.sleep(2)
        _, taken = await taken_over([first, second], dies=dies)
        began = now()
        if seconds is None:
            assert isinstance(await taken.ended(), TurnCompleted)
        else:
            assert await gone_at(taken) - began == pytest.approx(seconds, abs=SOON)


async def taken_over(found: Sequence[Process], *, dies: bool) -> tuple[Process, TurnLog]:
    """The first one goes. Which process has its turn then, just now, and the turn's log there."""
    if dies:
        found[0].storage.cut = True
    else:
        await found[0].system.drain(0)
    async with asyncio.timeout(3 * LEASE):
        while True:
            for process in found[1:]:
                with suppress(TurnNotFound):
                    return process, process.system.find("t")
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("there", [True, False], ids=["where it runs", "elsewhere"])
@pytest.mark.parametrize("dies", [True, False])
async def test_a_client_that_comes_back_keeps_a_turn_that_was_taken_over(there: bool, dies: bool) -> None:
    async with processes(3, idempotent=True) as found:
        await ask(found[0], "a 60", CANCEL)
        await asyncio.sleep(2)
        new, log = await taken_over(found, dies=dies)
        await asyncio.sleep(RETURN_SECONDS - 1)
        back = await follow(new if there else next(one for one in found[1:] if one is not new))
        assert (back.log is log) == there
        assert isinstance(await log.ended(), TurnCompleted)


async def test_who_follows_in_another_process_all_along_keeps_a_turn_that_changes_hands() -> None:
    async with processes(3, idempotent=True) as found:
        await ask(found[0], "a 60", CANCEL)
        others = [await follow(process) for process in found[1:]]
        await asyncio.sleep(2)
        _, log = await taken_over(found, dies=True)
        assert isinstance(await log.ended(), TurnCompleted)
        assert [other.log.terminal for other in others] == [None, None]  # they hear of it in a moment
        await asyncio.gather(*(other.log.ended() for other in others))


# -- a store that is away ----------------------------------------------------------------------------------------------


async def test_nobody_is_judged_while_it_is_not_known_who_follows() -> None:
    async with processes() as (first, second):
        client = await ask(first, "a 60", Disconnect("grace", 2.0))
        await asyncio.sleep(1.5)
        client.leave()
        await asyncio.sleep(1.5)
        first.storage.cut = True
        back = await follow(second)
        await asyncio.sleep(2)
        first.storage.cut = False
        assert isinstance(await back.log.ended(), TurnCompleted)


async def test_a_leave_that_could_not_be_told_is_told_later() -> None:
    async with processes() as (first, second):
        client = await ask(first, "a 60", CANCEL)
        other = await follow(second)
        client.leave()
        await asyncio.sleep(2)
        second.storage.cut = True
        other.leave()
        await asyncio.sleep(2)
        assert client.log.terminal is None
        second.storage.cut = False
        assert await gone_at(client.log) < 4 + RETRY_SECONDS + SOON


async def test_one_who_fails_at_what_was_said_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    async with processes() as (first, second):
        client = await ask(first, "a 60", CANCEL)
        first.system.store.when_followed(lambda *_: 1 / 0)  # type: ignore[attr-defined]
        await asyncio.sleep(1.5)
        await follow(second)
        client.leave()
        assert await gone_at(client.log) < 3
    assert "ZeroDivisionError" in caplog.text


# -- what it costs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [Disconnect(), CANCEL], ids=lambda policy: policy.policy)
async def test_a_turn_that_runs_on_whatever_happens_costs_nothing_more(
    policy: Disconnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with processes() as (first, second):
        looks = calls_of(monkeypatch, second.system.store, "find")
        lookups, notes = (calls_of(monkeypatch, second.storage, name) for name in ("lookup", "note"))
        client = await ask(first, "a 60", policy)
        await asyncio.sleep(1.5)
        renewals = calls_of(monkeypatch, first.storage, "renew")
        writes = first.storage.writes
        other = await follow(second)
        client.leave()
        await asyncio.sleep(20)
        other.leave()
        await asyncio.sleep(2)
        costs = policy.policy != "continue"
        assert bool(notes) == costs
        assert (len(lookups) > len(looks)) == costs
        assert any(at % 1 for at in renewals) == costs, "it renews each second while turns are open"
        assert isinstance(other.log, FollowedLog) == costs
        assert (first.storage.writes == writes) == (not costs)


def calls_of(monkeypatch: pytest.MonkeyPatch, of: object, name: str) -> list[float]:
    """When that method is called, from now on."""
    times: list[float] = []
    method = getattr(of, name)

    def noted(*args: Any) -> Any:
        times.append(now())
        return method(*args)

    monkeypatch.setattr(of, name, noted)
    return times


# -- any schedule ------------------------------------------------------------------------------------------------------

GRACE = 4.0
SLACK = 2.1
"""Notes are heard within a second, and a turn is looked at within one more; sums of seconds are not exact."""
STEPS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.3, 1.0, 2.5, 3.7, 7.0]), st.integers(0, 2), st.booleans()), max_size=12
)


@given(steps=STEPS)
@settings(max_examples=60)
async def test_a_turn_is_cancelled_when_nobody_follows_it_anywhere_for_its_grace(
    steps: Sequence[tuple[float, int, bool]],
) -> None:
    """`steps`: after so many seconds a client comes to a process, or one of those that are there goes."""
    async with processes(3) as found:
        clients: list[list[Client]] = [[await ask(found[0], "a 3600", Disconnect("grace", GRACE))], [], []]
        log, deserted = clients[0][0].log, 0.0
        alone: float | None = None
        for seconds, where, comes in [*steps, (2 * GRACE, 0, True)]:
            await asyncio.sleep(seconds)
            gap = 0.0 if alone is None else now() - alone
            deserted = max(deserted, gap)
            if log.terminal is not None or deserted > GRACE + SLACK:
                break
            if comes:
                clients[where].append(await follow(found[where]))
                alone = None
            elif clients[where]:
                clients[where].pop().leave()
                if not any(clients):
                    alone = now()
        if deserted < GRACE - 0.1:
            assert log.terminal is None
        elif deserted > GRACE + SLACK:
            assert isinstance(log.terminal, TurnCancelled)
