"""Composing a turn's events: what an adapter hears from a framework becomes canonical events in the one right order.

Rule 1: no I/O, no clock, no waiting; events go to `emit`.
Rule 2: an adapter cannot break the order. It opens drafts and writes to them; what it forgets to close is closed for
it, what it says after an item or the turn has ended raises `HandlerError`.

A draft is one item being written. A plain text handler needs only `Composer.say`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import astuple

from greenroom.actors.errors import HandlerError
from greenroom.actors.events import (
    ArgumentsDelta,
    Event,
    Item,
    ItemDone,
    ItemKind,
    ItemStarted,
    Part,
    PartDone,
    TextDelta,
    ToolProgress,
)
from greenroom.actors.messages import Content, Text, ToolCall, ToolOutput, Usage


def weight(part: Content) -> int:
    """What a part counts against a turn's bound: the length of its text, or of its data as text."""
    if type(part) is Text:
        return len(part.text)
    return sum(len(value if isinstance(value, str) else repr(value)) for value in astuple(part))


class Draft:
    """One item while it is written. Use the subclass the composer gives; all end with `done`."""

    __slots__ = ("_composer", "_parts", "id", "kind", "metadata", "open", "role", "usage")

    def __init__(self, composer: Composer, item: str, kind: ItemKind, role: str) -> None:
        self._composer = composer
        self._parts: list[Part] = []
        self.id = item
        self.kind: ItemKind = kind
        self.role = role
        self.usage: Usage | None = None
        self.metadata: dict[str, Any] | None = None
        self.open = True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.kind} {self.id} {'open' if self.open else 'done'}>"

    def _part_done(self, part: Part) -> None:
        self._composer.emit(PartDone(part, self.id, len(self._parts)))
        self._parts.append(part)

    def _check_open(self) -> None:
        if not self.open:
            raise HandlerError(
                f"more was written to {self.kind} {self.id} after it was done; open a new item for what comes later"
            )

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
            item = self.item(complete=True)
            self._composer.emit(ItemDone(self.id, item))
            self._composer.finished(self, item)


class MessageDraft(Draft):
    """A message (or reasoning): text that grows, and whole parts between."""

    __slots__ = ("_pieces", "_rewritten")

    def __init__(self, composer: Composer, item: str, kind: ItemKind, role: str) -> None:
        super().__init__(composer, item, kind, role)
        self._pieces: list[str] = []
        self._rewritten: str | None = None

    def text(self, delta: str) -> None:
        """More text. Empty deltas say nothing and are dropped."""
        if not self.open:
            self._check_open()
        if delta:
            self._composer.emit_text(TextDelta(delta, self.id, len(self._parts)))
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
            self._composer.spend(len(whole) - len(said))

    def content(self, part: Content) -> None:
        """A whole part; text before it ends there."""
        self._check_open()
        self.end_text()
        self._composer.spend(weight(part))
        self._part_done(part)

    def end_text(self) -> None:
        """The text part that is open, if one is, is complete."""
        if self._pieces or self._rewritten is not None:
            self._part_done(Text(self._whole()))
            self._pieces = []
            self._rewritten = None

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
            super().done()


class CallDraft(Draft):
    """A tool call: its arguments are JSON text that grows."""

    __slots__ = ("_call", "_pieces")

    def __init__(self, composer: Composer, item: str, call: ToolCall) -> None:
        super().__init__(composer, item, "tool_call", "assistant")
        self._call = call
        self._pieces: list[str] = []

    def arguments(self, delta: str) -> None:
        """More of the arguments' JSON text."""
        self._check_open()
        if delta:
            self._composer.emit_text(ArgumentsDelta(delta, self.id))
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
        return ToolCall(self._call.call_id, self._call.name, whole, self._call.server_label)

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

    __slots__ = ("_call", "_output")

    def __init__(self, composer: Composer, item: str, call: ToolCall) -> None:
        super().__init__(composer, item, "tool_output", "tool")
        self._call = call
        self._output: tuple[Content, ...] = ()

    def progress(self, output: Sequence[Content]) -> None:
        """What there is so far, whole."""
        self._check_open()
        self._composer.spend(
            sum(map(weight, output))
        )  # each time: a log that holds every snapshot grows by it
        self._output = tuple(output)
        self._composer.emit(ToolProgress(self.id, self._output))

    def _whole(self) -> ToolOutput:
        return ToolOutput(self._call.call_id, self._call.name, self._output, self._call.server_label)

    def abandon(self) -> Item:
        self._parts.append(self._whole())
        return super().abandon()

    def done(self, output: Sequence[Content] | None = None) -> None:
        """The output is complete; without `output` the last progress is it."""
        if self.open:
            if output is not None:
                self._composer.spend(sum(map(weight, output)))
                self._output = tuple(output)
            self._part_done(self._whole())
            super().done()


class Composer:
    """Writes one turn. `emit` takes each event as it arises; `new_id` makes item ids."""

    __slots__ = ("_drafts", "_emit", "_limit", "_new_id", "_speech", "ended", "output", "spent", "usage")

    def __init__(
        self, emit: Callable[[Event], None], new_id: Callable[[], str], limit: int = 1 << 62
    ) -> None:
        self._emit = emit
        self._new_id = new_id
        self._limit = limit
        self.spent = 0
        self._drafts: dict[str, Draft] = {}
        self._speech: MessageDraft | None = None
        self.output: list[Item] = []
        self.usage: Usage | None = None
        self.ended = False

    # -- items -----------------------------------------------------------------------------------------------------

    def message(self, role: str = "assistant") -> MessageDraft:
        """A new message. The plain speech that is open ends first."""
        return self._text_item("message", role)

    def reasoning(self) -> MessageDraft:
        """New reasoning. The plain speech that is open ends first."""
        return self._text_item("reasoning", "assistant")

    def call(self, call_id: str, name: str, server_label: str | None = None) -> CallDraft:
        """A new tool call."""
        call = ToolCall(call_id, name, "", server_label)
        draft = CallDraft(self, self._item_id(), call)
        self._start(draft, call)
        return draft

    def output_of(self, call_id: str, name: str, server_label: str | None = None) -> OutputDraft:
        """The output of a tool call."""
        call = ToolCall(call_id, name, "", server_label)
        draft = OutputDraft(self, self._item_id(), call)
        self._start(draft, call)
        return draft

    # -- plain speech ----------------------------------------------------------------------------------------------

    def say(self, delta: str) -> None:
        """More text of the assistant's answer; the message is opened as needed."""
        speech = self._speech
        if speech is None or not speech.open:
            if not delta:
                return
            speech = self._speech = self.message()
        speech.text(delta)

    def show(self, part: Content) -> None:
        """A whole part of the assistant's answer."""
        if self._speech is None or not self._speech.open:
            self._speech = self.message()
        self._speech.content(part)

    def end_speech(self) -> None:
        """The plain speech that is open is complete."""
        if self._speech is not None:
            self._speech.done()
            self._speech = None

    # -- the turn --------------------------------------------------------------------------------------------------

    def report_usage(self, usage: Usage) -> None:
        """A model call's usage, added to the turn's."""
        before = self.usage or Usage()
        self.usage = Usage(
            before.input_tokens + usage.input_tokens,
            before.output_tokens + usage.output_tokens,
            before.cached_tokens + usage.cached_tokens,
            before.reasoning_tokens + usage.reasoning_tokens,
        )

    def close(self) -> None:
        """All that is open is complete: the handler has said all it had to say."""
        for draft in list(self._drafts.values()):
            draft.done()
        self._speech = None

    def abandon(self) -> None:
        """The turn ends now, whatever is open: its partial items are kept in `output`, marked incomplete."""
        for draft in list(self._drafts.values()):
            self.output.append(draft.abandon())
        self._drafts.clear()
        self._speech = None
        self.ended = True

    def end(self) -> None:
        """Nothing may be said any more."""
        self.ended = True

    # -- for drafts ------------------------------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        """Pass an event on. Raises `HandlerError` when the turn has ended."""
        if self.ended:
            raise _unheard()
        self._emit(event)

    def emit_text(self, event: TextDelta | ArgumentsDelta) -> None:
        """The same for text, which counts against the turn's bound. Every token comes this way: no call is idle."""
        if self.ended:
            raise _unheard()
        self.spent += len(event.text)
        if self.spent > self._limit:
            raise _too_large()
        self._emit(event)

    def spend(self, size: int) -> None:
        """Count text against the turn's bound. Raises `HandlerError` when it is overrun."""
        self.spent += size
        if self.spent > self._limit:
            raise _too_large()

    def finished(self, draft: Draft, item: Item) -> None:
        """A draft is complete."""
        self.output.append(item)
        self._drafts.pop(draft.id, None)

    def _text_item(self, kind: ItemKind, role: str) -> MessageDraft:
        self.end_speech()
        draft = MessageDraft(self, self._item_id(), kind, role)
        self._start(draft, None)
        return draft

    def _start(self, draft: Draft, call: ToolCall | None) -> None:
        if call is None:
            self.emit(ItemStarted(draft.id, draft.kind, draft.role))
        else:
            self.end_speech()
            self.emit(
                ItemStarted(draft.id, draft.kind, draft.role, call.call_id, call.name, call.server_label)
            )
        self._drafts[draft.id] = draft

    def _item_id(self) -> str:
        return f"msg_{self._new_id()}"


def _unheard() -> HandlerError:
    return HandlerError("the turn has ended; what its handler says now is not heard")


def _too_large() -> HandlerError:
    return HandlerError(
        "the turn said more than one turn may (Limits.turn_bytes); raise the limit or have the agent say less"
    )
