"""What one write does to a session's folder, put together step by step: pure, from what the process holds of it.

What is over the session's bounds goes with the same write: first the oldest states, then the oldest turns with the
states after them; and of the ended turns that can be found, the oldest with their logs and names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct, UnsetType
from msgspec.structs import replace

from greenroom.actors.events import Event
from greenroom.actors.messages import SessionKey, Turn
from greenroom.actors.setting_checks import Count, Seconds, Share, kinds_of
from greenroom.services.sessions.earlier_states import shortened
from greenroom.services.sessions.head import (
    EARLIER,
    ENDED,
    ENTRY,
    STATE,
    TURN,
    EndedTurn,
    OpenTurn,
    encode_ended,
    encode_head,
    folder_of,
)
from greenroom.services.sessions.hold import Hold
from greenroom.services.sessions.lines import Line
from greenroom.services.sessions.log import Addition, OpenLog, added, cells
from greenroom.services.sessions.turn_names import names_of, value_of
from greenroom.services.storage import NOT_THERE, Cell, Change


class Retention(Struct, frozen=True, kw_only=True):
    """How much is kept of each session. Sizes are those of the encoded turns, states and logs."""

    turns_kept: Share = 200
    states_kept: Share = 50
    session_bytes: Share = 16 * 1024 * 1024
    logs_kept: Share = 200
    log_bytes: Share = 16 * 1024 * 1024


OPTIONS: Final = {**kinds_of(Retention), "lease_seconds": Seconds, "max_holds": Count, "hold_bytes": Count}
"""What stores of sessions take."""


class Draft:
    """A change of a session. `hold`: what is known of it once the change was written, but for the new fence."""

    __slots__ = ("_before", "_drop", "_names", "_put", "_unname", "hold")

    def __init__(self, hold: Hold) -> None:
        self.hold = Hold(
            hold.fence,
            hold.head,
            hold.owner,
            hold.turns,
            hold.earlier,
            hold.ended,
            hold.state,
            dict(hold.logs),
        )
        self._before = hold.head
        self._put: dict[Cell, bytes] = {}
        self._drop: list[Cell] = []
        self._names: list[tuple[bytes, bytes]] = []
        self._unname: list[bytes] = []

    def change(self, key: SessionKey, *, owner: str | None = None, take: bool = False) -> Change:
        """What is to be written. A session of which nothing is left has no folder."""
        hold, head = self.hold, self.hold.head
        there = hold.fence != NOT_THERE
        if there and not (head.commits or head.open or head.ended_size):
            return Change(key=folder_of(key), expected=hold.fence, delete=True)
        opened, was_open = bool(head.open), bool(self._before.open)
        return Change(
            key=folder_of(key),
            expected=hold.fence,
            take=take,
            head=None if there and head is self._before else encode_head(head),
            owner=owner,
            open=None if there and opened == was_open else opened,
            put=tuple(self._put.items()),
            drop=self._drop,
            names=self._names,
            unname=self._unname,
        )

    def accept(self, turn: Turn, raw: bytes, mark: str) -> int:
        """The turn is the last of the open ones. `mark`: of this acceptance alone. Gives its number."""
        head = self.hold.head
        number, first, names = head.next_entry, not head.open, names_of(turn)
        opened = OpenTurn(number, turn.id, turn.principal, first, int(first), mark, size=len(raw))
        self.hold.head = replace(head, next_entry=number + 1, open=(*head.open, opened))
        self.hold.logs[number] = OpenLog(names, len(raw))
        self._put[Cell(ENTRY, number)] = raw
        self._names += [(name, value_of(number)) for name in names]
        return number

    def take(self, mark: str) -> None:
        """Whoever takes the session begins the first of its turns, maybe not for the first time. Its log is held.
        `mark`: what its turns are marked with from now on, as they are known to who takes them."""
        head = self.hold.head
        turns = tuple(replace(one, mark=mark) for one in head.open)
        # Of one that was let go all is written down that anybody was told.
        if turns and turns[0].running and turns[0].taken_at is None:
            # That it was accepted is known, written down or not.
            known = max(1, self.hold.logs[turns[0].number].events)
            turns = (replace(turns[0], taken_at=known), *turns[1:])
        self.hold.head = replace(head, open=_first_begun(turns, again=True))

    def release(self, *, begun: bool) -> None:
        """Whoever takes the session begins the first of its turns, unless that has begun. Who lets it go has not failed
        at it: that it was to be begun here is not counted."""
        head = self.hold.head
        turns = (
            replace(one, running=begun, attempts=one.attempts - 1) if one.running else one
            for one in head.open
        )
        self.hold.head = replace(head, open=tuple(turns))

    def follow(self, number: int) -> bool:
        """The ending of the open turn with that number is to be left for who follows it. Whether it is open."""
        head = self.hold.head
        turns = tuple(replace(one, followed=True) if one.number == number else one for one in head.open)
        self.hold.head = replace(head, open=turns)
        return any(one.number == number for one in turns)

    def cancel(self, opened: OpenTurn, reason: str) -> None:
        """The turn is to be cancelled, by whoever has it or takes it over."""
        head = self.hold.head
        turns = tuple(replace(one, cancelled=reason) if one is opened else one for one in head.open)
        self.hold.head = replace(head, open=turns)

    def append(self, opened: OpenTurn, events: Sequence[Event], chunk: bytes | None = None) -> None:
        """Add events to the turn's log, which is held. `chunk`: as `log.added` says."""
        addition = self._add(opened, events, chunk)
        self.hold.logs[opened.number] = addition.log

    def commit(self, raw: bytes, state: bytes | None) -> None:
        """Add the record of a turn to the session's history, and maybe a new state. The state before it is held."""
        hold, head = self.hold, self.hold.head
        before, number = hold.state, head.commits + 1
        assert not isinstance(before, UnsetType)
        size = head.size + len(raw)
        if head.commits:
            short = shortened(before, before if state is None else state)
            self._put[Cell(EARLIER, head.commits)] = short
            hold.earlier = hold.earlier.add(head.commits, len(short))
            size += len(short)
        self._put[Cell(TURN, number)] = raw
        hold.turns = hold.turns.add(number, len(raw))
        if state is not None and state != before:
            self._put[Cell(STATE, 0)] = state
            size += len(state) - len(before or b"")
            hold.state = state
        hold.head = replace(head, commits=number, size=size)

    def end(
        self, opened: OpenTurn, events: Sequence[Event], chunk: bytes | None = None, *, kept: bool
    ) -> None:
        """The turn has ended, with these events. `chunk`: as `log.added` says. `kept`: whether it can be found."""
        hold = self.hold
        if kept:
            addition = self._add(opened, events, chunk)
            ended = EndedTurn(addition.size, addition.log.there, addition.log.names, opened.taken_at)
            self._put[Cell(ENDED, opened.number)] = encode_ended(ended)
            hold.ended = hold.ended.add(opened.number, ended)
            size = hold.head.ended_size + ended.size
        else:
            log = hold.logs[opened.number]
            self._drop_turn(opened.number, log.there, log.names)
            size = hold.head.ended_size
        del hold.logs[opened.number]
        left = _first_begun(tuple(one for one in hold.head.open if one.number != opened.number))
        hold.head = replace(hold.head, open=left, ended_size=size)

    def remove(self, number: int, ended: EndedTurn) -> None:
        """Nothing is kept of an ended turn but its record."""
        head = self.hold.head
        self._drop_turn(number, ended.chunks, ended.names)
        self._discard(Cell(ENDED, number))
        self.hold.head = replace(head, ended_size=head.ended_size - ended.size)

    def bound(self, retention: Retention, just: int | None = None) -> None:
        """Drop what is over the bounds, but not the newest, nor from the turn `just` ended on. Raises `NotRead`."""
        self._bound_turns(retention)
        self._bound_ended(retention, just)

    # ------------------------------------------------------------------------------------------------------------------

    def _bound_turns(self, retention: Retention) -> None:
        hold, head = self.hold, self.hold.head
        most, newest = retention.session_bytes, head.commits
        oldest = newest - retention.states_kept + 1
        first_state, size = self._shed(hold.earlier, head.oldest_state, oldest, head.size, most)
        oldest = newest - retention.turns_kept + 1
        first_turn, size = self._shed(hold.turns, head.oldest_turn, oldest, size, most)
        first_state, size = self._shed(hold.earlier, first_state, first_turn, size, size)
        if (first_state, first_turn) != (head.oldest_state, head.oldest_turn):
            hold.earlier, hold.turns = hold.earlier.since(first_state), hold.turns.since(first_turn)
            hold.head = replace(head, oldest_state=first_state, oldest_turn=first_turn, size=size)

    def _shed(self, line: Line[int], first: int, oldest: int, size: int, most: int) -> tuple[int, int]:
        """Drop what comes before `oldest`, and more while all takes more bytes than `most`. Gives the first that stays,
        and the size then."""
        newest = self.hold.head.commits
        while first < newest and (first < oldest or size > most):
            size -= line.at(first) or 0
            self._discard(Cell(line.section, first))
            first += 1
        return first, size

    def _bound_ended(self, retention: Retention, just: int | None) -> None:
        hold, head = self.hold, self.hold.head
        number, size = head.oldest_entry, head.ended_size
        oldest = head.next_entry - retention.logs_kept
        stop = min((one.number for one in head.open), default=head.next_entry)
        if just is not None:
            stop = min(stop, just)
        while number < stop and (number < oldest or size > retention.log_bytes):
            ended = hold.ended.at(number)
            if ended is not None:
                size -= ended.size
                self._drop_turn(number, ended.chunks, ended.names)
                self._discard(Cell(ENDED, number))
            number += 1
        if number != head.oldest_entry:
            hold.ended = hold.ended.since(number)
            hold.head = replace(head, oldest_entry=number, ended_size=size)

    def _add(self, opened: OpenTurn, events: Sequence[Event], chunk: bytes | None) -> Addition:
        addition = added(self.hold.logs[opened.number], opened.number, events, chunk)
        self._put.update(addition.put)
        self._drop += addition.drop
        return addition

    def _drop_turn(self, number: int, chunks: int, names: Sequence[bytes]) -> None:
        self._discard(Cell(ENTRY, number))
        self._drop += cells(number, 0, chunks)
        self._unname += names

    def _discard(self, cell: Cell) -> None:
        """A cell that this very change would write is not written instead."""
        if self._put.pop(cell, None) is None:
            self._drop.append(cell)


def _first_begun(turns: tuple[OpenTurn, ...], *, again: bool = False) -> tuple[OpenTurn, ...]:
    """The first of the open turns counts as begun. `again`: also when it was."""
    if not turns or (turns[0].running and not again):
        return turns
    first = replace(turns[0], running=True, attempts=turns[0].attempts + 1)
    return (first, *turns[1:])
