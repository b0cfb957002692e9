"""Writing the Responses API: a turn's canonical events become frames of its stream, or one response object.

Rule 1: no I/O, and nothing but the turn and its events decides the bytes: encoding them again gives the same ones.
Rule 2: sequence numbers start at 0 and have no gaps; output indices are given in the order items are shown; the final
response's output is the done items. A response that failed has one, if an empty one.
Rule 3: text is escaped once. A part's bytes are reused in its item's, and those in the response's.

What every turn writes is not encoded as structs, but filled into templates. Deltas, the path every token takes, have
all but the number and the text filled in once a part. The order in which items are shown is `responses_order`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from greenroom.actors.events import (
    TERMINAL,
    ArgumentsDelta,
    Event,
    Item,
    ItemDone,
    ItemStarted,
    PartDone,
    Terminal,
    TextDelta,
    ToolProgress,
    TurnAccepted,
    TurnCancelled,
    TurnCompleted,
    TurnFailed,
    TurnStarted,
)
from greenroom.actors.messages import Turn
from greenroom.transports import responses_templates as t
from greenroom.transports.json_text import encode
from greenroom.transports.responses_filling import tell_outcome, write_part, write_rest
from greenroom.transports.responses_object import NONE, ResponseShape
from greenroom.transports.responses_open import (
    IN_PROGRESS,
    INCOMPLETE,
    MESSAGE,
    REASONING,
    OpenCall,
    OpenItem,
    OpenOutput,
    OpenText,
    json_list,
)
from greenroom.transports.responses_order import Order, Step, Unit
from greenroom.transports.responses_packed import seal_summary
from greenroom.transports.responses_usual_frames import usual_frames
from greenroom.transports.sse import DONE

_encode = msgspec.json.Encoder().encode
_NOWHERE: list[bytes] = []
_NONE: frozenset[str] = frozenset()


class ResponsesEncoder:
    """Encodes one turn. `number`: the next frame's, which is the count of frames so far, `[DONE]` included."""

    __slots__ = (
        "_called",
        "_clients",
        "_done",
        "_format",
        "_frames",
        "_item",
        "_order",
        "_part",
        "_shape",
        "_speech",
        "_started",
        "_turn_id",
        "number",
    )

    def __init__(self, turn: Turn) -> None:
        self._turn_id = turn.id
        self._shape = ResponseShape(turn)
        options = turn.options
        self._clients = frozenset([tool.name for tool in options.tools]) if options is not None else _NONE
        self._order = None if options is None or options.answer is None else self._make_order(single=True)
        """Once there is anything to put in order."""
        self._speech: tuple[ItemStarted, OpenText] | None = None
        """The one message that is open, as long as nothing else was said meanwhile: most turns are no more."""
        self._done: list[bytes] = []
        """The items by index; empty while one is open."""
        self._called = _NONE
        """The ids of calls that are items of the type `function_call`."""
        self._started = False
        self._item = ""
        self._part = -1
        self._format: bytes | None = None
        """The template of deltas' frames, while that part of that item is open."""
        self._frames = _NOWHERE
        self.number = 0

    def __repr__(self) -> str:
        return f"<ResponsesEncoder at {self.number}, {self._order!r}>"

    @classmethod
    def whole(cls, turn: Turn, events: Sequence[Event]) -> list[bytes]:
        """All frames of a turn that has ended."""
        usual = turn.options is None or turn.options.answer is None  # which puts things in another order
        frames = usual_frames(ResponseShape(turn), events) if usual else None
        if frames is None:
            frames = []
            cls(turn).feed_all(events, frames)
        return frames

    def feed(self, event: Event, frames: list[bytes]) -> None:
        """Append the frames that the event makes, which may be none."""
        self.feed_all((event,), frames)

    def feed_all(self, events: Iterable[Event], frames: list[bytes]) -> None:
        """The same for events that follow one another. Every token comes this way: what can be looked up once is."""
        self._frames = frames
        item, part, form, number = self._item, self._part, self._format, self.number
        for event in events:
            if type(event) is TextDelta and form is not None and event.item == item and event.part == part:
                try:
                    text = _encode(event.text)
                except (TypeError, ValueError):  # what JSON cannot say as it is
                    text = encode(event.text)
                frames.append(form % (number, text))
                number += 1
            else:
                self.number = number
                _HEARD[type(event)](self, event)
                item, part, form, number = self._item, self._part, self._format, self.number
        self.number = number
        self._frames = _NOWHERE

    def skip(self, event: Event) -> None:
        """Go past an event whose frames nobody wants."""
        known = type(event) is TextDelta and self._format is not None
        if known and event.item == self._item and event.part == self._part:  # type: ignore[union-attr]
            self.number += 1
        else:
            self.feed_all((event,), [])

    def add(self, template: bytes, *holes: Any) -> None:
        """A frame: `holes` are those of the template after the number."""
        self._frames.append(template % (self.number, *holes))
        self.number += 1

    # -- the turn ------------------------------------------------------------------------------------------------------

    @property
    def done(self) -> list[bytes]:
        """The items that are done, as JSON."""
        return [line for line in self._done if line]

    def response(self, ending: Terminal | None = None, output: Iterable[bytes] | None = None) -> bytes:
        """The response as JSON, of a turn that runs or with its `ending`. `output`: instead of the items done."""
        items = json_list(self.done if output is None else [*output]) if self._done else NONE
        if ending is not None:
            return self._shape.ended(ending, items)
        return self._shape.line(IN_PROGRESS if self._begun else b"queued", items)

    def close(self, ending: Terminal, frames: list[bytes]) -> None:
        """Append the frames that come before those of the turn's end itself: what is open is closed."""
        self._frames = frames
        if not self._started and not isinstance(ending, TurnCancelled):
            self._start(None)
        self._hand_over()
        if self._order is not None:
            self._show(self._order.end())
            kept = {item.id: item for item in ending.output}
            for unit in self._order.shown:
                self._cut_off(unit, kept.get(unit.start.item), isinstance(ending, TurnCompleted))
            self._order.shown.clear()
        if isinstance(ending, TurnFailed) and not self._done:
            self._fall_silent()

    def _fall_silent(self) -> None:
        """An empty message, cut off. The AI SDK sends a stream's request again, and the turn would run again, when a
        response fails before it has had an item."""
        message = OpenText(MESSAGE, self._turn_id.removeprefix("resp_"), 0)
        message.status = INCOMPLETE
        self._begin(message)
        self._done[0] = message.close(self)

    @property
    def _begun(self) -> bool:
        """Whether the response is said to be in progress. One in the foreground is from the start."""
        return self._started or not self._shape.echo.background

    def _accepted(self, _: TurnAccepted) -> None:
        self.add(t.RESPONSE["created"], self.response())
        if not self._begun:
            self.add(t.RESPONSE["queued"], self.response())

    def _start(self, _: TurnStarted | None) -> None:
        self._started = True
        self.add(t.RESPONSE["in_progress"], self.response())

    def _ended(self, event: Terminal) -> None:
        self.close(event, self._frames)
        if not isinstance(event, TurnCancelled):
            self.add(t.RESPONSE[_word(event)], self.response(event))
        self._frames.append(DONE)
        self.number += 1
        self._done.clear()

    # -- items ---------------------------------------------------------------------------------------------------------

    def _item_started(self, event: ItemStarted) -> None:
        self._hand_over()
        order = self._order
        if event.kind == "message" and (order is None or order.idle):
            speech = OpenText(MESSAGE, event.item, len(self._done))
            self._speech = (event, speech)
            self._begin(speech)
            return
        if order is None:
            order = self._order = self._make_order()
        self._show(order.start(event))

    def _item_event(self, event: TextDelta | ArgumentsDelta | ToolProgress | PartDone) -> None:
        speech = self._speech
        if speech is not None and speech[0].item == event.item:
            if type(event) is TextDelta:
                self._grow(event, speech[1])
            elif type(event) is PartDone:
                self._format = None
                write_part(self, speech[1], event.content)
        elif self._order is not None:
            self._show(self._order.tell(event, event.item))

    def _item_done(self, event: ItemDone) -> None:
        speech = self._speech
        if speech is not None and speech[0].item == event.item:
            self._speech = None
            self._shut(speech[1])
        elif self._order is not None:
            self._show(self._order.done(event))

    def _hand_over(self) -> None:
        """More is said than one message: from now on what is open is shown in order."""
        if self._speech is not None:
            if self._order is None:
                self._order = self._make_order()
            self._order.adopt(*self._speech)
            self._speech = None

    def _make_order(self, *, single: bool = False) -> Order:
        display = self._shape.echo.display
        return Order(self._clients, hidden=display == "hidden", merged=display == "mcp_call", single=single)

    def _show(self, steps: Iterable[Step]) -> None:
        for event, unit in steps:
            if event is None:
                assert unit.wire is not None, f"{unit!r} is shown"
                self._shut(unit.wire)
            else:
                _WRITERS[type(event)](self, event, unit)

    def _open(self, event: ItemStarted, unit: Unit) -> None:
        if unit.wire is None:
            unit.wire = self._opened(event)
            self._begin(unit.wire)

    def _opened(self, event: ItemStarted) -> OpenItem:
        echo = self._shape.echo
        if event.kind == "message":
            return OpenText(MESSAGE, event.item, len(self._done))
        if event.kind == "reasoning":
            return OpenText(
                REASONING, event.item, len(self._done), seal_summary if echo.sealed_reasoning else None
            )
        call_id, name = event.call_id or event.item, event.name or ""
        if echo.display == "mcp_call" and name not in self._clients:
            label = event.server_label or echo.label
            return OpenCall(event.item, len(self._done), call_id, name, label)
        if event.kind == "tool_output" and call_id in self._called:
            return OpenOutput(event.item, len(self._done), call_id)
        self._called |= {call_id}
        call = OpenCall(event.item, len(self._done), call_id, name, None)
        if event.kind == "tool_call":
            return call
        self._begin(call)  # nobody told of it, and clients cannot send back an output that answers nothing
        self._done[call.index] = call.close(self)
        return OpenOutput(event.item, len(self._done), call_id)

    def _begin(self, item: OpenItem) -> None:
        self._done.append(b"")
        item.start(self)

    def _text(self, event: TextDelta, unit: Unit) -> None:
        assert isinstance(unit.wire, OpenText), f"text for {unit!r}"
        self._grow(event, unit.wire)

    def _grow(self, event: TextDelta, item: OpenText) -> None:
        self._item, self._part, self._format = event.item, event.part, item.grow(self)
        self._frames.append(self._format % (self.number, encode(event.text)))
        self.number += 1

    def _arguments(self, event: ArgumentsDelta, unit: Unit) -> None:
        assert isinstance(unit.wire, OpenCall), f"arguments for {unit!r}"
        unit.wire.grow(self, event.text)

    def _progress(self, event: ToolProgress, unit: Unit) -> None:
        """Has no place in this protocol: an output is whole."""

    def _part_done(self, event: PartDone, unit: Unit) -> None:
        assert unit.wire is not None, f"a part for {unit!r}"
        self._format = None
        write_part(self, unit.wire, event.content)

    def _close(self, event: ItemDone, unit: Unit) -> None:
        assert unit.wire is not None, f"{unit!r} is shown"
        if event.done is not None and event.done.kind == "tool_output":
            tell_outcome(unit.wire, event.done)

    def _cut_off(self, unit: Unit, kept: Item | None, completed: bool) -> None:
        """Close an item that the turn's end found open. `kept`: what there is of it."""
        item = unit.wire
        assert item is not None, f"{unit!r} is shown"
        write_rest(self, item, kept)
        if not completed:
            item.status = INCOMPLETE
        self._shut(item)

    def _shut(self, item: OpenItem) -> None:
        self._format = None
        self._done[item.index] = item.close(self)


_HEARD: dict[type, Callable[[ResponsesEncoder, Any], None]] = {
    TurnAccepted: ResponsesEncoder._accepted,
    TurnStarted: ResponsesEncoder._start,
    ItemStarted: ResponsesEncoder._item_started,
    TextDelta: ResponsesEncoder._item_event,
    ArgumentsDelta: ResponsesEncoder._item_event,
    ToolProgress: ResponsesEncoder._item_event,
    PartDone: ResponsesEncoder._item_event,
    ItemDone: ResponsesEncoder._item_done,
    **dict.fromkeys(TERMINAL, ResponsesEncoder._ended),
}
_WRITERS: dict[type, Callable[[ResponsesEncoder, Any, Unit], None]] = {
    ItemStarted: ResponsesEncoder._open,
    TextDelta: ResponsesEncoder._text,
    ArgumentsDelta: ResponsesEncoder._arguments,
    ToolProgress: ResponsesEncoder._progress,
    PartDone: ResponsesEncoder._part_done,
    ItemDone: ResponsesEncoder._close,
}


def _word(ending: TurnCompleted | TurnFailed) -> str:
    if isinstance(ending, TurnFailed):
        return "failed"
    return "completed" if ending.incomplete is None else "incomplete"


def event_json(frame: bytes) -> bytes | None:
    """The JSON of a frame, as a WebSocket carries it; none for `[DONE]`."""
    return None if frame is DONE or frame == DONE else frame[frame.index(b"\ndata: ") + 7 : -2]
