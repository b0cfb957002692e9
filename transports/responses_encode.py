"""Writing the Responses API: a turn's canonical events become frames of its stream, or one response object.

Rule 1: no I/O, and nothing but the turn and its events decides the bytes: encoding them again gives the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from greenroom.actors.events import Event
from greenroom.actors.messages import Turn


class ResponsesEncoder:
    """Encodes one turn. `number`: the next frame's, which is the count of frames so far, `[DONE]` included."""

    def __init__(self, turn: Turn) -> None:
        self.number = 0

    def feed(self, event: Event, frames: list[bytes]) -> None:
        """Append the frames that the event makes."""
        raise NotImplementedError

    def feed_all(self, events: Iterable[Event], frames: list[bytes]) -> None:
        """The same for events that follow one another."""
        raise NotImplementedError

    def skip(self, event: Event) -> None:
        """Go past an event whose frames nobody wants."""
        raise NotImplementedError


def event_json(frame: bytes) -> bytes | None:
    """The JSON of a frame, as a WebSocket carries it; none for `[DONE]`."""
    raise NotImplementedError


def response_object(turn: Turn, events: Sequence[Event]) -> bytes:
    """The response as it stands after these events: queued, in progress or ended."""
    raise NotImplementedError


def with_tutorial_key(turn: Turn, events: Sequence[Event]) -> bytes:
    """The same with a key `response` on top: the response with its last message alone, where the tutorial looks."""
    raise NotImplementedError


def output_items(turn: Turn, events: Sequence[Event]) -> list[dict[str, Any]]:
    """The items of the output so far, as clients see them."""
    raise NotImplementedError
