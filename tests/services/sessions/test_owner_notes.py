"""Notes for owners, as processes of other versions write and read them."""

from __future__ import annotations

import pytest
from msgspec import Struct, msgpack

from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.sessions.owner_notes import Cancelled, CancelNote, FollowedNote


class OlderNote(Struct, array_like=True, tag="cancel"):
    """A turn that is to be cancelled, as it was said before turns shared notes."""

    turn_id: str
    principal: str | None
    reason: str


NOTE = CancelNote("turn-1", "Ada", "why", (Cancelled("turn-2", None, "too long"),))


@pytest.mark.parametrize(
    ("note", "asked"),
    [
        (NOTE, [("turn-1", "Ada", "why"), ("turn-2", None, "too long")]),
        (OlderNote("turn-1", "Ada", "why"), [("turn-1", "Ada", "why")]),
    ],
)
def test_turns_are_cancelled_as_notes_of_this_version_and_older_ones_say(
    note: Struct, asked: list[tuple[str, str | None, str]]
) -> None:
    heard: list[tuple[str, str | None, str]] = []
    store = DurableSessions(MemoryStorage())
    store.when_asked(lambda *what: heard.append(what))
    store._notes.read(msgpack.encode(note))
    assert heard == asked


def test_older_versions_read_the_first_turn_of_a_note() -> None:
    read = msgpack.decode(msgpack.encode(NOTE), type=OlderNote | FollowedNote)
    assert read == OlderNote("turn-1", "Ada", "why")


def test_a_note_of_a_version_that_is_not_known_is_logged_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    DurableSessions(MemoryStorage())._notes.read(msgpack.encode(["later", 1]))
    assert "a note of another version" in caplog.text
