"""Random schedules of processes that share sessions: turns, writes that fail or come late, pauses, crashes.

Each process does what an actor system does with a `DurableStore`, and may be cut off at any write. A schedule is a list
of steps, so that one which fails can be run again. After each step what lies in the storage is looked at:

- no write of a process that had lost the session was accepted;
- no acknowledged turn is lost but by a session's deletion after its end, none is in the history twice;
- the state is the one that the turns in the history make, in their order;
- logs have no gaps, and all that was said to be written;
- of a turn that is not kept, and has ended, a repeat gets the answer, and nothing else is left;
- a turn that was cancelled is marked as such until it ends, and whoever takes it is told;
- what there is adds up, and belongs to a turn that is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from greenroom.actors.errors import SessionLost, StoreUnavailable, TurnOver
from greenroom.actors.events import Event, Item, TextDelta, TurnCompleted, TurnFailed
from greenroom.actors.messages import ErrorInfo, SessionKey, Text, Turn
from greenroom.services.durable import (
    Ending,
    ForRepeats,
    InLine,
    SessionTaken,
    TurnAccepted,
    TurnEntry,
    TurnJoined,
    TurnKnown,
)
from greenroom.services.sessions.aside import Aside
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.sessions.head import decode_head, folder_of
from greenroom.services.sessions.repeats import KIND, entry_for_repeats
from greenroom.services.sessions.turn_names import id_name, key_name
from greenroom.services.storage import Conflict, Fence, OwnerGone, Storage
from greenroom.services.store import TurnRecord
from kits.flaky_storage import Fault, FlakyStorage
from kits.session_findings import SECTIONS, Found, check_answer, tag_in
from kits.turns import a_turn

PROCESSES: Final = 3
SESSIONS: Final = 2
FAULTS: Final[tuple[Fault, ...]] = ("refused", "unsure", "held", "unheard")
WEIGHTS: Final = {
    "accept": 6,
    "repeat": 1,
    "append": 4,
    "finish": 8,
    "fail": 1,
    "take": 3,
    "release": 1,
    "delete": 1,
    "follow": 1,
    "cancel": 2,
    "expire": 1,
    "late": 1,
    "usurp": 4,
    "beat": 1,
    "go on": 3,
    "crash": 1,
}
"""How often processes do what."""


class Step(NamedTuple):
    """What process number `process` does with session number `session`, and what happens to its next write."""

    action: str
    process: int
    session: int
    fault: Fault | None = None
    given_up: bool = False
    """If the write is held: whether its caller gives it up."""


def schedule(seed: int, steps: int) -> list[Step]:
    """Steps by chance. Mostly the same process goes on with the same session."""
    rng = random.Random(seed)
    actions = rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=steps)
    process = session = 0
    made = []
    for action in actions:
        if rng.random() < 0.35:
            process, session = rng.randrange(PROCESSES), rng.randrange(SESSIONS)
        fault = rng.choice(FAULTS) if rng.random() < 0.2 else None
        made.append(Step(action, process, session, fault, rng.random() < 0.3))
    return made


class View:
    """What a process believes of a session of its own."""

    def __init__(self, entries: Sequence[TurnEntry]) -> None:
        self.open = [entry.turn for entry in entries]
        self.said = {entry.turn.id: len(entry.events) for entry in entries}
        self.state: bytes | None = None
        self.loaded = False
        self.ending: Ending | None = None
        """Tried, and not known to be written."""


class Process:
    """One of those that share the sessions: it does what an actor system does."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.link = FlakyStorage(world.storage)
        self.store = DurableSessions(self.link, max_holds=1, lease_seconds=600.0)
        self.store.when_lost(self.lost)
        self.store.when_joined(lambda key, turns: self.heard.add(key))
        self.heard: set[SessionKey] = set()
        """Lines that others have joined."""
        self.views: dict[SessionKey, View] = {}
        self.task: asyncio.Task[None] | None = None
        """What it was doing when it was cut off."""
        self.cancelled: frozenset[str] = frozenset()
        """Turns that were to be cancelled when it began that: of others their owner hears, which may be itself."""

    def lost(self) -> None:
        """It is another owner now."""
        self.views.clear()
        self.heard.clear()

    async def do(self, step: Step, key: SessionKey) -> None:
        """Carry a step out."""
        self.cancelled = frozenset(self.world.cancelled)
        try:
            await getattr(self, f"_{step.action}")(key)
            await self.hear()
        except StoreUnavailable:
            return
        except SessionLost:
            self.views.pop(key, None)
        finally:
            if (
                key in self.store._acceptor.half_taken
            ):  # it may have been another's meanwhile, for all it knows
                self.views.pop(key, None)

    async def hear(self) -> None:
        """Look at the lines of which something was heard."""
        while self.heard:
            key = self.heard.pop()
            try:
                await self._let_in(key)
            except SessionLost:
                self.views.pop(key, None)

    async def _let_in(self, key: SessionKey, before: Sequence[InLine] | None = None) -> None:
        """`before`: no others, as a turn that came here stands between these and those that joined later."""
        view = self.views.setdefault(key, View(()))
        known = {turn.id for turn in view.open}
        wanted = None if before is None else {one.turn_id for one in before}
        for entry in await self.store.line(
            key, lambda turn_id, _: turn_id not in known and (wanted is None or turn_id in wanted)
        ):
            view.open.append(entry.turn)
            view.said[entry.turn.id] = len(entry.events)

    async def _accept(self, key: SessionKey) -> None:
        turn = self.world.new_turn(key)
        self.world.sent.append(turn)
        await self._send(turn)

    async def _repeat(self, key: SessionKey) -> None:
        if self.world.sent:
            await self._send(self.world.sent[-1])

    async def _send(self, turn: Turn) -> None:
        world = self.world
        anew = turn.id in world.deleted
        answer = await self.store.accept(turn, lambda stands: None)
        if turn.id in world.deleted and not anew:  # meanwhile: before it was recorded, or after that
            anew = await world.storage.lookup(id_name(turn.id, turn.principal)) is not None
        if isinstance(answer, TurnAccepted | TurnJoined):
            assert turn.id not in world.acknowledged - world.deleted, "a turn was accepted twice"
            world.acknowledged.add(turn.id)
            if anew:
                world.deleted.discard(turn.id)
                world.said.pop(turn.id, None)
                world.anew[turn.id] += 1
        if isinstance(answer, TurnAccepted):
            if answer.fresh:
                self.views[turn.key] = View(())
            if answer.joined:
                await self._let_in(turn.key, answer.joined)
            view = self.views.setdefault(turn.key, View(()))
            view.open.append(turn)
            view.said[turn.id] = 0
        elif isinstance(answer, SessionTaken):
            assert answer.turns
            self._taken(turn.key, answer.turns)
        elif isinstance(answer, TurnKnown):
            assert answer.entry.turn == turn
        else:
            assert isinstance(answer, TurnJoined)
            assert answer.elsewhere.owner != self.store.owner
            world.joined += 1

    async def _append(self, key: SessionKey) -> None:
        view = self.views.get(key)
        if view is None or not view.open or view.ending is not None:
            return
        turn = view.open[0]
        first = view.said[turn.id]
        try:
            await self.store.append(key, turn.id, first, _events(first, 3))
        except TurnOver as over:
            raise self._gone(turn) from over
        view.said[turn.id] = first + 3
        self.world.said[turn.id] = max(first + 3, self.world.said.get(turn.id, 0))

    async def _take(self, key: SessionKey) -> None:
        entries = await self.store.take(key)
        if entries:
            self._taken(key, entries)

    def _taken(self, key: SessionKey, entries: Sequence[TurnEntry]) -> None:
        self.views[key] = View(entries)
        self.world.check_cancelled(self.cancelled, {entry.turn.id: entry.cancelled for entry in entries})

    async def _beat(self, key: SessionKey) -> None:
        await self.store._life.beat()
        await self.store._acceptor.settle_all()

    async def _fail(self, key: SessionKey) -> None:
        await self._finish(key, good=False)

    async def _finish(self, key: SessionKey, good: bool = True) -> None:
        view = self.views.get(key)
        if view is None or not view.open:
            return
        if not view.loaded:
            record = await self.store.load(key)
            view.state, view.loaded = None if record is None else record.state, True
        ending = view.ending
        if ending is None:
            ending = view.ending = self.world.new_ending(view, good)
        tag = tag_in(ending.events)
        try:
            await self.store.finish(key, ending)
        except SessionLost:
            if tag not in self.world.maybe:
                self.world.refused.add(tag)
            raise
        except TurnOver as over:
            raise self._gone(view.open[0], tag) from over
        except BaseException:
            self.world.maybe.add(tag)
            raise
        self.world.written.add(tag)
        if ending.state is not None:
            view.state = ending.state
        del view.open[0]
        view.ending = None

    def _gone(self, turn: Turn, tried: str | None = None) -> SessionLost:
        """What a turn comes to that is over in a session of this process's: it was another's, and ended there, and the
        session went, and has begun anew here. `tried`: the ending that this process wanted to write. Who wrote the one
        that it has may not have heard of that yet."""
        world = self.world
        ended = {world.ending[tag].id for tag in world.ending.keys() - world.refused - {tried}}
        assert turn.id in world.deleted | ended, "a turn is over that nobody has ended"
        return SessionLost("the turn went with its session")

    async def _release(self, key: SessionKey) -> None:
        view = self.views.get(key)
        if view is None or view.ending is not None or not view.open:
            return
        await self.store.release(key, begun=False)
        self.views.pop(key, None)

    async def _follow(self, key: SessionKey) -> None:
        """Write to a session that may be another process's, which has to notice."""
        turn = next((turn for turn in reversed(self.world.sent) if turn.key == key), None)
        if turn is not None:
            await self.store.leave_ending(turn.id, turn.principal)

    async def _cancel(self, key: SessionKey) -> None:
        """So may this. It may come to a turn that has ended, or of which it is not known whether it was accepted; and a
        repeat may have the turn begin anew before this is answered, and that one is not to be cancelled."""
        world = self.world
        turn = next((turn for turn in reversed(world.sent) if turn.key == key), None)
        if turn is not None:
            told, anew = turn.id in world.acknowledged - world.deleted, world.anew[turn.id]
            await self.store.ask_to_cancel(turn.id, turn.principal, f"by {self.store.owner}")
            if told and turn.id not in world.deleted and world.anew[turn.id] == anew:
                world.cancelled.add(turn.id)

    async def _delete(self, key: SessionKey) -> None:
        standing = await self.store.standing(key)
        if isinstance(standing, SessionTaken):
            assert standing.turns
            self._taken(key, standing.turns)
        elif isinstance(standing, Fence):
            self.views.pop(key, None)  # what it believes to be open in it has ended
            await self.world.may_go(key, standing)
            with contextlib.suppress(Conflict):
                await self.store.forget(key, standing)


class World:
    """A storage that is started, some processes, and what they were told in the present schedule."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.processes: list[Process] = []
        self.endings: Counter[str] = Counter()
        """Of all schedules: how many were written, refused, and tried without anybody knowing; and joined turns."""
        self.begin("")

    def begin(self, name: str) -> None:
        """A new schedule, with sessions of its own. `name`: no other in the storage has it."""
        self.name = name
        self.keys = [SessionKey(name, str(number)) for number in range(SESSIONS)]
        self.sent: list[Turn] = []
        self.acknowledged: set[str] = set()
        self.said: dict[str, int] = {}
        self.written: set[str] = set()
        self.refused: set[str] = set()
        self.maybe: set[str] = set()
        self.ending: dict[str, Turn] = {}
        """By the tags of their endings, written or not."""
        self.deleted: set[str] = set()
        """Turns, and tags of endings, of sessions that may have been deleted since."""
        self.anew: Counter[str] = Counter()
        """How often turns have begun anew by repeats, after their sessions were deleted."""
        self.joined = 0
        """Turns that joined another process's line."""
        self.cancelled: set[str] = set()
        """Turns that are to be cancelled, if they have not ended."""
        self._count = 0
        for process in self.processes:
            process.lost()
            process.store._forget_all()  # or turns that are open for good would have it renew all the time

    def new_turn(self, key: SessionKey) -> Turn:
        """A turn that nobody has sent before. Every third is not kept, and has a key."""
        number = len(self.sent)
        turn = replace(a_turn(f"{self.name}-{number}"), key=key)
        if number % 3:
            return turn
        return replace(turn, kept=False, idempotency_key=turn.id)

    def new_ending(self, view: View, good: bool) -> Ending:
        """The end of a session's first turn, with a tag that no other ending has."""
        self._count += 1
        turn, tag = view.open[0], f"tag{self._count}"
        self.ending[tag] = turn
        output = (Item("1", "message", "assistant", (Text(tag),)),)
        last = TurnCompleted(1.0, output) if good else TurnFailed(1.0, ErrorInfo("interrupted", tag), output)
        first = view.said[turn.id]
        if not turn.kept:
            said = [*_events(0, first + 1), last]
            answer = ForRepeats(turn=turn, events=said, seconds=1e6)
            return Ending(turn_id=turn.id, first=first, events=said[first:], kept=False, for_repeats=answer)
        record = TurnRecord(turn.id, "completed" if good else "failed", 1.0, (), output)
        return Ending(
            turn_id=turn.id,
            record=record,
            state=(view.state or b"") + tag.encode() if good else None,
            first=first,
            events=[*_events(first, 1), last],
        )

    async def may_go(self, key: SessionKey, standing: Fence) -> None:
        """The session is about to be deleted as it stood."""
        folder = await self.storage.read(folder_of(key))
        if folder is not None and folder.head.fence == standing:
            assert not decode_head(folder.head.body).open, "a session with open turns is to be deleted"
        for tag, turn in self.ending.items():
            if turn.key == key:
                self.deleted |= {tag, turn.id}
                self.cancelled.discard(turn.id)
                self.said.pop(turn.id, None)  # by a repeat it may begin anew

    async def start_process(self) -> Process:
        """One more that shares the sessions."""
        process = Process(self)
        await process.store.start()
        return process

    async def crash(self, number: int) -> None:
        """The process is gone without a word; what it had sent comes through. Another one takes its place."""
        process = self.processes[number]
        await _give_up(process)
        heart = process.store._life._task
        assert heart is not None
        heart.cancel()
        await asyncio.wait([heart])
        await process.link.go_on()
        await self.expire(process)
        await process.link.stop()
        self.processes[number] = await self.start_process()

    async def expire(self, process: Process) -> None:
        """The process is late to renew, as far as the storage knows."""
        with contextlib.suppress(OwnerGone):
            await self.storage.renew(process.store.owner, 0.0, "gone")

    async def check(self) -> None:
        """Raises `AssertionError` for what must not be."""
        tags: set[str] = set()
        there: set[str] = set()
        for key in self.keys:
            folder = await self.storage.read(folder_of(key), SECTIONS)
            if folder is not None:
                found = Found(folder)
                found.check(self.said)
                self.check_cancelled(
                    self.cancelled, {opened.turn_id: opened.cancelled for opened in found.head.open}
                )
                tags |= found.tags
                there |= found.turns
        for turn in self.sent:
            entry = await self._for_repeats(turn)
            if entry is not None:
                check_answer(entry, turn, self.said)
                assert turn.id not in there, "a turn that is not kept is still with its session"
                tags.add(tag_in(entry.events))
                there.add(turn.id)
        lost = self.acknowledged - there - self.deleted
        assert not lost, f"turns were acknowledged and lost: {lost}"
        assert not tags & self.refused, f"stale writes were accepted: {tags & self.refused}"
        lost = self.written - tags - self.deleted
        assert not lost, f"endings were acknowledged and lost: {lost}"

    def check_cancelled(self, turns: Set[str], reasons: Mapping[str, str | None]) -> None:
        """Raises `AssertionError` for one of the turns that is open and not marked. `reasons`: by open turns."""
        lost = {turn_id for turn_id in turns & self.cancelled if reasons.get(turn_id, "ended") is None}
        assert not lost, f"turns were cancelled, and go on: {lost}"

    async def _for_repeats(self, turn: Turn) -> TurnEntry | None:
        """What a repeat gets of a turn that has ended and is not kept."""
        named = await self.storage.lookup(key_name(turn)) if turn.idempotency_key is not None else None
        if named is None or named.key.kind != KIND:
            return None
        return await entry_for_repeats(self.storage, Aside(), named)

    async def check_known(self) -> None:
        """Raises `AssertionError` when a living process has open turns of which it does not know: nobody would ever run
        or end them. Nothing is under way."""
        owners = {process.store.owner: process for process in self.processes}
        for key in self.keys:
            folder = await self.storage.read(folder_of(key), SECTIONS)
            if folder is None or folder.head.owner_state == "gone" or not folder.head.open:
                continue
            process = owners[folder.head.owner]
            if key in process.store._acceptor.half_taken:
                continue
            view = process.views.get(key)
            known = [] if view is None else [turn.id for turn in view.open]
            there = [opened.turn_id for opened in decode_head(folder.head.body).open]
            assert known, f"open turns that their owner knows nothing of: {there}"
            if view is not None and view.ending is not None and known[0] not in there:
                known = known[1:]  # it may have ended, which is heard of when that is tried again
            # What joined since then is at the end, and heard of when the first one ends.
            assert there[: len(known)] == known, (
                f"{known} is believed to be the beginning of the line {there}"
            )

    async def run(self, steps: Sequence[Step], name: str, *, each: bool = True) -> None:
        """Carry the steps out. `each`: look at what there is after each of them, and not only at the end."""
        self.begin(name)
        for step in steps:
            await _carry_out(self, step)
            if each:
                await self.check()
        for process in self.processes:
            await process.link.go_on()
            if process.task is not None:
                await process.task
                process.task = None
            await process.store._acceptor.settle_all()
            await process.hear()
        await self.check()
        await self.check_known()
        for word, tags in (("written", self.written), ("refused", self.refused), ("unsure", self.maybe)):
            self.endings[word] += len(tags)
        self.endings["joined"] += self.joined


@asynccontextmanager
async def a_world(storage: Storage) -> AsyncIterator[World]:
    """Processes that share a storage, which is started for so long."""
    await storage.start()
    world = World(storage)
    world.processes += [await world.start_process() for _ in range(PROCESSES)]
    yield world
    for process in world.processes:
        await process.store.stop()
    await storage.stop()


async def run_schedules(storage: Storage, count: int, *, at_once: int, steps: int = 15) -> Counter[str]:
    """Carry out the schedules of the seeds up to `count`. Gives how many endings were written, and how many refused."""
    seeds = iter(range(count))
    endings: Counter[str] = Counter()

    async def work() -> None:
        async with a_world(storage) as world:
            for seed in seeds:
                try:
                    await world.run(schedule(seed, steps), f"schedule-{seed}", each=False)
                except Exception as error:
                    error.add_note(f"the schedule of the seed {seed}")
                    raise
        endings.update(world.endings)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
    return endings


async def _carry_out(world: World, step: Step) -> None:
    process, key = world.processes[step.process], world.keys[step.session]
    if step.action == "expire":
        await world.expire(process)
    elif step.action == "late":
        await world.expire(process)
        await process.store._life.beat()  # whatever it is doing
    elif step.action == "usurp":
        await world.expire(process)
        other = (step.process + 1) % PROCESSES
        await _carry_out(world, step._replace(action="take", process=other))
    elif step.action == "crash":
        await world.crash(step.process)
    elif step.action == "go on":
        await process.link.go_on()
        if process.task is not None:
            await process.task
            process.task = None
    elif process.task is None:
        process.link.fault = step.fault
        await _until_stuck(process, process.do(step, key))
        process.link.fault = None
        if step.given_up:
            await _give_up(process)


async def _until_stuck(process: Process, doing: Coroutine[Any, Any, None]) -> None:
    """Let it be done, or go as far as a write that is held."""
    task = asyncio.get_running_loop().create_task(doing)
    stuck = asyncio.get_running_loop().create_task(process.link.stuck.wait())
    await asyncio.wait([task, stuck], return_when=asyncio.FIRST_COMPLETED)
    stuck.cancel()
    if task.done():
        await task
    else:
        process.task = task


async def _give_up(process: Process) -> None:
    """Whoever waits for what the process was doing waits no longer; a write that is held will be done all the same."""
    task, process.task = process.task, None
    process.link.stuck.clear()
    if task is not None:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            await task


def _events(first: int, count: int) -> list[Event]:
    return [TextDelta(str(number)) for number in range(first, first + count)]
