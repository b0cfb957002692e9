"""Drafts: one item of a turn's output while it is written. The composer gives them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from msgspec import Struct, field
from msgspec.structs import astuple

from greenroom.actors.errors import HandlerError, TurnTooLarge
from greenroom.actors.events import (
    ArgumentsDelta,
    Event,
    Item,
    ItemDone,
    ItemKind,
    Part,
    PartDone,
    TextDelta,
    ToolProgress,
)
from greenroom.actors.messages import Content, Text, ToolCall, ToolOutput, Usage


class Sink(Protocol):
    """Where events go. `emit` is looked up for each: a turn's log changes it when somebody follows."""

    @property
    def emit(self) -> Callable[[Event], None]:
        """Takes an event."""
        ...


class Pen(Protocol):
    """What drafts write with, unless the turn has `ended` or has `spent` more than its `limit`."""

    ended: bool
    spent: int
    limit: int

    @property
    def sink(self) -> Sink:
        """Where events go."""
        ...

    def spend(self, size: int) -> None:
        """Count text against the turn's bound. Raises `TurnTooLarge` when it is overrun."""
        ...

    def finished(self, draft: Draft, item: Item) -> None:
        """A draft is complete."""
        ...


OUTCOME_UNKNOWN = "interrupted, outcome unknown"
"""The result of a tool that was called and not heard of before its turn was stopped."""
NOT_CALLED = "interrupted before it was called"
_NO_CALL = ToolCall("", "")


def unheard() -> HandlerError:
    """What a handler gets that says something after its turn's end."""
    return HandlerError("the turn has ended; what its handler says now is not heard")


def too_large() -> TurnTooLarge:
    """What a handler gets that says more than a turn may."""
    return TurnTooLarge(
        "the turn said more than one turn may (Limits.turn_bytes); raise the limit or have the agent say less"
    )


def weight(part: Content) -> int:
    """What a part counts against a turn's bound: the length of its text, or of its data as text."""
    if type(part) is Text:
        return len(part.text)
    return sum(len(value if isinstance(value, str) else repr(value)) for value in astuple(part))


class Draft(Struct, eq=False):
    """One item while it is written. Use the subclass the composer gives; all end with `done`."""

    _pen: Pen
    id: str
    kind: ItemKind
    role: str
    _parts: list[Part] = field(default_factory=list)
    usage: Usage | None = None
    metadata: dict[str, Any] | None = None
    open: bool = True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.kind} {self.id} {'open' if self.open else 'done'}>"

    def _part_done(self, part: Part) -> None:
        if self._pen.ended:
            raise unheard()
        self._pen.sink.emit(PartDone(part, self.id, len(self._parts)))
        self._parts.append(part)

    def told(self, part: Part) -> None:
        """A part that was complete before, in another's words. Nothing is emitted."""
        self._parts.append(part)

    def _check_open(self) -> None:
        if not self.open:
            raise HandlerError(
                f"more was written to {self.kind} {self.id} after it was done; open a new item for what comes later"
            )

    def _check_heard(self) -> None:
        if self._pen.ended:
            raise unheard()

    def item(self, complete: bool) -> Item:
        """The item as it stands."""
        return Item(self.id, self.kind, self.role, tuple(self._parts), self.usage, self.metadata, complete)

    def abandon(self) -> Item:
        """Stop writing: the turn ends before the item does. Nothing is emitted."""
        self.open = False
        return self.item(complete=False)

    def done(self) -> None:
        """The item is complete. Doing it twice is fine."""
        if self.open:
            self.open = False
            pen = self._pen
            if pen.ended:
                raise unheard()
            item = self.item(complete=True)
            pen.sink.emit(ItemDone(self.id, item))
            pen.finished(self, item)


class MessageDraft(Draft):
    """A message (or reasoning): text that grows, and whole parts between."""

    _pieces: list[str] = field(default_factory=list)
    _rewritten: str | None = None

    def text(self, delta: str) -> None:
        """More text. Empty deltas say nothing and are dropped."""
        pen = self._pen
        if not self.open or pen.ended:
            self._check_open()
            self._check_heard()
        if delta:  # as all is counted and sent here: every token comes this way, and no call is idle
            spent = pen.spent = pen.spent + len(delta)
            if spent > pen.limit:
                raise too_large()
            pen.sink.emit(TextDelta(delta, self.id, len(self._parts)))
            self._pieces.append(delta)

    def text_so_far(self, whole: str) -> None:
        """The part's text, whole. What it adds to the last goes out as a delta.

        A whole that does not begin with what was said before is a rewrite: deltas cannot take words back, so none
        is sent, and the part ends with what was said last.
        """
        self._check_open()
        said = self._rewritten if self._rewritten is not None else self._said()
        if self._rewritten is None and whole.startswith(said):
            self.text(whole[len(said) :])
        elif whole != said:
            self._rewritten = whole
            self._pen.spend(len(whole) - len(said))

    def content(self, part: Content) -> None:
        """A whole part; text before it ends there."""
        self._check_open()
        self.end_text()
        self._pen.spend(weight(part))
        self._part_done(part)

    def end_text(self) -> None:
        """The text part that is open, if one is, is complete."""
        if self._rewritten is not None:
            self._part_done(Text(self._rewritten))
            self._rewritten = None
        elif self._pieces:
            self._part_done(Text("".join(self._pieces)))
        else:
            return
        self._pieces = []

    def told(self, part: Part) -> None:
        self._pieces = []
        super().told(part)

    def _said(self) -> str:
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    def _whole(self) -> str:
        return self._rewritten if self._rewritten is not None else self._said()

    def abandon(self) -> Item:
        if self._pieces or self._rewritten is not None:
            self._parts.append(Text(self._whole()))
        return super().abandon()

    def done(self) -> None:
        if self.open:
            self.end_text()
            Draft.done(self)


class CallDraft(Draft):
    """A tool call: its arguments are JSON text that grows."""

    call: ToolCall = _NO_CALL
    _pieces: list[str] = field(default_factory=list)

    def arguments(self, delta: str) -> None:
        """More of the arguments' JSON text."""
        self._check_open()
        if delta:
            self._check_heard()
            self._pen.spend(len(delta))
            self._pen.sink.emit(ArgumentsDelta(delta, self.id))
            self._pieces.append(delta)

    def arguments_so_far(self, whole: str) -> None:
        """The arguments' text, whole; sent as a delta where it extends what went before, else with `done`."""
        self._check_open()
        said = "".join(self._pieces)
        if whole.startswith(said):
            self._pieces = [said]
            self.arguments(whole[len(said) :])

    def _whole(self, arguments: str | None) -> ToolCall:
        whole = arguments if arguments is not None else "".join(self._pieces)
        return ToolCall(self.call.call_id, self.call.name, whole, self.call.server_label)

    def abandon(self) -> Item:
        self._parts.append(self._whole(None))
        return super().abandon()

    def done(self, arguments: str | None = None) -> None:
        """The call is complete; `arguments` overrules what the deltas said."""
        if self.open:
            self._part_done(self._whole(arguments))
            super().done()


class OutputDraft(Draft):
    """What a tool gives back."""

    call: ToolCall = _NO_CALL
    _output: tuple[Content, ...] = ()

    def progress(self, output: Sequence[Content]) -> None:
        """What there is so far, whole."""
        self._check_open()
        self._check_heard()
        # Each time: a log that holds every snapshot grows by it.
        self._pen.spend(sum(map(weight, output)))
        self._output = tuple(output)
        self._pen.sink.emit(ToolProgress(self.id, self._output))

    def break_off(self) -> None:
        """The turn ends before the tool does: what there is, and that it is not all."""
        self.done([*self._output, Text(OUTCOME_UNKNOWN)])

    def _whole(self) -> ToolOutput:
        return ToolOutput(self.call.call_id, self.call.name, self._output, self.call.server_label)

    def done(self, output: Sequence[Content] | None = None) -> None:
        """The output is complete; without `output` the last progress is it."""
        if self.open:
            if output is not None:
                self._pen.spend(sum(map(weight, output)))
                self._output = tuple(output)
            self._part_done(self._whole())
            super().done()
