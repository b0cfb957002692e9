"""Logs in chunks: whatever is added and written again, what is read is what a list would have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.events import Event, TextDelta
from greenroom.services.sessions import log as session_log
from greenroom.services.sessions.log import OpenLog, added, chunk_in_pieces, count_of, events_from, read_log
from greenroom.services.storage import Cell

NUMBER = 7
MOST = 6
ENTRY = b"entry"
STEPS = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from([0, 0, 0, 1, 3]), st.booleans(), st.booleans()),
    min_size=1,
    max_size=25,
)
"""Events to add, how many of those there are to write again, whether what was known of the log is forgotten, and
whether they are a chunk of their own."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks and logs so small that all bounds are met."""
    monkeypatch.setattr(session_log, "SINGLE", 3)
    monkeypatch.setattr(session_log, "CHUNK_BYTES", 40)
    monkeypatch.setattr(session_log, "CHUNKS", MOST)


class Stored:
    """The cells of a log."""

    def __init__(self) -> None:
        self.cells: dict[Cell, bytes] = {}

    def add(self, log: OpenLog, events: list[Event], *, apart: bool = False) -> OpenLog:
        chunk = chunk_in_pieces(log.events, events) if apart else None
        addition = added(log, NUMBER, events, chunk)
        for cell in addition.drop:
            del self.cells[cell]  # one that is not there would be a mistake
        self.cells.update(addition.put)
        assert addition.size == len(ENTRY) + sum(map(len, self.cells.values()))
        assert addition.log.there == len(self.cells)
        return addition.log

    @property
    def chunks(self) -> list[tuple[int, bytes]]:
        return sorted((cell.number, raw) for cell, raw in self.cells.items())


@given(steps=STEPS)
def test_a_log_is_what_a_list_is(steps: list[tuple[int, int, bool, bool]]) -> None:
    stored, model = Stored(), list[Event]()
    log = OpenLog((), len(ENTRY))
    for step, (count, back, forgotten, apart) in enumerate(steps):
        first = max(0, len(model) - back)
        if forgotten or first != log.events:
            log = read_log((), ENTRY, stored.chunks, first)
        assert log.events == first
        events: list[Event] = [TextDelta(f"{step}-{place}") for place in range(count)]
        model = [*model[:first], *events]
        log = stored.add(log, events, apart=apart and count > 0)
        assert count_of(stored.chunks) == len(model)
        assert len(stored.chunks) <= MOST
        for start in {0, 1, len(model) // 2, len(model)}:
            assert events_from(start, stored.chunks) == model[start:]


def test_a_log_that_does_not_reach_so_far_cannot_go_on() -> None:
    stored = Stored()
    stored.add(OpenLog((), len(ENTRY)), [TextDelta("a"), TextDelta("b")])
    assert read_log((), ENTRY, stored.chunks, 2).events == 2
    with pytest.raises(IndexError, match="has 2 events, and is to go on with number 3"):
        read_log((), ENTRY, stored.chunks, 3)


def test_a_long_log_is_made_of_few_chunks() -> None:
    stored, log = Stored(), OpenLog((), len(ENTRY))
    for number in range(200):
        log = stored.add(log, [TextDelta(str(number))])
    assert [len(raw) < 60 for _, raw in stored.chunks] == [True] * 5 + [False]
    assert count_of(stored.chunks) == 200
