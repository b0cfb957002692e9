"""Any interleaving of turns, cancels, interruptions and disconnects: one ending each, order kept, state agreed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

import kits.system
from greenroom.actors.errors import MailboxFull, SessionBusy
from greenroom.actors.events import TERMINAL, TurnCompleted
from greenroom.actors.limits import Limits
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import Disconnect, SessionKey
from kits.grammar import check_events
from kits.system import asked, new_store, running_system, said, turn
from kits.virtual_time import virtual_time

pytestmark = virtual_time


class Ledger:
    """An agent that remembers what it was asked, waits as told, and may fail or resist cancellation."""

    running: int = 0

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def reply(self, msgs: Any) -> AsyncIterator[str]:
        name, kind, seconds = asked(msgs[-1]).split()
        type(self).running += 1
        assert type(self).running == 1, "two turns of a session at once"
        try:
            yield f"{name} began"
            if kind == "resist":
                try:
                    await asyncio.sleep(float(seconds))
                except asyncio.CancelledError:
                    await asyncio.sleep(0.5)
            await asyncio.sleep(float(seconds))
            if kind == "fail":
                raise RuntimeError(name)
            self.asked.append(name)
            yield f"{name} done"
        finally:
            type(self).running -= 1

    def state_dict(self) -> list[str]:
        return self.asked

    def load_state_dict(self, state: list[str]) -> None:
        self.asked = list(state)


async def new_ledger() -> Ledger:
    return Ledger()


SECONDS = st.sampled_from([0.0, 0.25, 1.0, 3.0])
SUBMIT = st.tuples(
    st.just("submit"),
    st.sampled_from(["answer", "fail", "resist"]),
    SECONDS,
    st.sampled_from(["queue", "reject", "interrupt"]),
    st.sampled_from(["continue", "cancel", "grace"]),
)
STEP = st.one_of(
    SUBMIT,
    st.tuples(st.just("cancel"), st.integers(0, 10)),
    st.tuples(st.just("leave"), st.integers(0, 10)),
    st.tuples(st.just("wait"), SECONDS),
    st.tuples(st.just("yield"), st.integers(1, 4)),
)


@given(steps=st.lists(STEP, max_size=16), deadline=st.sampled_from([0.0, 2.0, 100.0]))
async def test_any_interleaving_keeps_the_laws(steps: list[Any], deadline: float) -> None:
    Ledger.running = 0
    store = new_store()
    logs: list[TurnLog] = []
    limits = Limits(waiting_turns=3, cancel_seconds=2.0, idle_seconds=1.0)
    async with running_system(new_ledger, agent=True, store=store, limits=limits) as system:
        for step in steps:
            await take(step, system, logs)
        await system.drain(deadline)
        record = await store.load(SessionKey("u", "s"))

    told = [log for log in logs if log.lost is None]
    assert told == logs or kits.system.kind == "shared", "in memory nothing is handed over"
    for log in told:
        check_events(log.events())
        assert sum(isinstance(event, TERMINAL) for event in log.events()) == 1
    completed = [log.id for log in logs if isinstance(log.terminal, TurnCompleted)]
    kept = record.turns if record is not None else ()
    assert [turn.turn_id for turn in kept if turn.status == "completed"] == completed, (
        "order or history disagree"
    )
    order = [log.id for log in logs]
    assert [turn.turn_id for turn in kept] == sorted((turn.turn_id for turn in kept), key=order.index)
    state = [] if record is None or record.state is None else msgspec.json.decode(record.state)
    assert state == completed, "state and history disagree"
    for log in logs:
        if isinstance(log.terminal, TurnCompleted):
            assert said(log.terminal) == f"{log.id} began{log.id} done"


async def take(step: tuple[Any, ...], system: Any, logs: list[TurnLog]) -> None:
    kind = step[0]
    if kind == "submit":
        _, how, seconds, overlap, disconnect = step
        name = f"t{len(logs)}-{id(logs)}"
        try:
            logs.append(
                await system.submit(
                    turn(
                        f"{name} {how} {seconds}",
                        id=name,
                        overlap=overlap,
                        disconnect=Disconnect(disconnect, 1.0),
                    )
                )
            )
        except (SessionBusy, MailboxFull):
            return
    elif kind == "wait":
        await asyncio.sleep(step[1])
    elif kind == "yield":
        for _ in range(step[1]):
            await asyncio.sleep(0)
    elif logs:
        log = logs[step[1] % len(logs)]
        if kind == "cancel":
            await system.cancel(log.id)
        else:
            system.client_left(log)
