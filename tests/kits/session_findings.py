"""What lies in a storage of a session, and whether it can be true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from greenroom.actors.events import Event, Item, Terminal, TextDelta
from greenroom.actors.messages import Text, Turn
from greenroom.services.compact import decode_turn as decode_record
from greenroom.services.durable import TurnEntry
from greenroom.services.sessions.head import (
    EARLIER,
    ENDED,
    ENTRY,
    LOG,
    STATE,
    TURN,
    decode_ended,
    decode_head,
    log_span,
)
from greenroom.services.sessions.log import events_from
from greenroom.services.sessions.turn_codec import decode_turn
from greenroom.services.storage import Folder, Span
from greenroom.services.store import TurnRecord

SECTIONS: Final = tuple(Span(section) for section in (STATE, TURN, EARLIER, ENTRY, LOG, ENDED))


class Found:
    """What there is of a session."""

    def __init__(self, folder: Folder) -> None:
        self.stands = folder.head
        self.head = decode_head(folder.head.body)
        spans = (dict(span) for span in folder.spans)
        self.states, self.records, self.earlier, self.entries, self.logs, self.ended = spans
        self.history = [decode_record(raw) for raw in self.records.values()]
        self.tags = {tag_of(record) for record in self.history}
        """Of the endings in the history."""
        self.turns = {record.turn_id for record in self.history} | {one.turn_id for one in self.head.open}

    def check(self, said: dict[str, int]) -> None:
        """`said`: how many events of each turn were said to be written."""
        head = self.head
        ids = [record.turn_id for record in self.history]
        assert len(set(ids)) == len(ids), f"turns are in the history twice: {ids}"
        good = [tag_of(record) for record in self.history if record.status == "completed"]
        assert self.states.get(0, b"") == "".join(good).encode(), "the state is not the one of the history"
        assert head.commits == len(ids)
        numbers = [one.number for one in head.open]
        assert sorted([*numbers, *self.ended]) == list(self.entries)
        assert [one.running for one in head.open][1:] == [False] * (len(numbers) - 1)
        assert not numbers or head.open[0].running or not self.stands.owner, (
            "the first does not count as begun"
        )
        assert self.stands.open is bool(numbers)
        kept = [*self.records.values(), *self.earlier.values(), *self.states.values()]
        assert head.size == sum(map(len, kept))
        sizes = 0
        for number, raw in self.entries.items():
            sizes += self._check_turn(number, raw, said)
        assert sizes == head.ended_size
        assert not self.logs, "there are logs of turns that are not there"

    def _check_turn(self, number: int, entry: bytes, said: dict[str, int]) -> int:
        """Gives the bytes of an ended turn."""
        turn = decode_turn(entry)
        span = log_span(number)
        places = [place for place in self.logs if span.first <= place <= span.last]
        assert places == list(range(span.first, span.first + len(places)))
        chunks = [(place, self.logs.pop(place)) for place in places]
        events = events_from(0, chunks)
        words = [event.text for event in events if isinstance(event, TextDelta)]
        assert words == [str(place) for place in range(len(words))], "the log has gaps"
        assert len(events) >= said.get(turn.id, 0), "events were acknowledged and lost"
        if number not in self.ended:
            assert len(words) == len(events)
            return 0
        assert len(words) == len(events) - 1
        ended = decode_ended(self.ended[number])
        assert ended.size == len(entry) + sum(len(raw) for _, raw in chunks)
        assert ended.chunks == len(chunks)
        return ended.size


def check_answer(entry: TurnEntry, turn: Turn, said: dict[str, int]) -> None:
    """`entry`: what a repeat gets of that turn, of which nothing else is kept. `said`: as in `Found.check`."""
    assert (entry.turn, entry.status) == (turn, "ended")
    words = [event.text for event in entry.events[:-1] if isinstance(event, TextDelta)]
    assert words == [str(place) for place in range(len(entry.events) - 1)], "the log has gaps"
    assert len(words) >= said.get(turn.id, 0), "events were acknowledged and lost"


def tag_of(record: TurnRecord) -> str:
    """What tells an ending from all others: its words."""
    return _tag(record.output)


def tag_in(events: Sequence[Event]) -> str:
    """The same of the ending that ends a log."""
    last = events[-1]
    assert isinstance(last, Terminal)
    return _tag(last.output)


def _tag(output: tuple[Item, ...]) -> str:
    (part,) = output[0].parts
    assert isinstance(part, Text)
    return part.text
