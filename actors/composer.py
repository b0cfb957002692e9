"""Composing a turn's events: what an adapter hears from a framework becomes canonical events in the one right order.

Rule 1: no I/O, no clock, no waiting; events go to `emit`.
Rule 2: an adapter cannot break the order. It opens drafts and writes to them; what it forgets to close is closed for
it, what it says after an item or the turn has ended raises `HandlerError`.

A draft is one item being written. A plain text handler needs only `Composer.say`.
"""

from __future__ import annotations

from collections.abc import Callable

from greenroom.actors.drafts import (
    NOT_CALLED,
    OUTCOME_UNKNOWN,
    CallDraft,
    Draft,
    MessageDraft,
    OutputDraft,
)
from greenroom.actors.errors import HandlerError
from greenroom.actors.events import (
    ArgumentsDelta,
    Event,
    Incompleteness,
    Item,
    ItemKind,
    ItemStarted,
    TextDelta,
)
from greenroom.actors.messages import Content, Text, ToolCall, ToolOutput, Usage

NO_LIMIT = 1 << 62


class Composer:
    """Writes one turn. `emit` takes each event as it arises; `new_id` makes item ids."""

    __slots__ = (
        "_drafts",
        "_emit",
        "_limit",
        "_new_id",
        "_speech",
        "ended",
        "incomplete",
        "output",
        "spent",
        "usage",
    )

    def __init__(
        self, emit: Callable[[Event], None], new_id: Callable[[], str], limit: int = NO_LIMIT
    ) -> None:
        self._emit = emit
        self._new_id = new_id
        self._limit = limit
        self.spent = 0
        self._drafts: dict[str, Draft] = {}
        self._speech: MessageDraft | None = None
        self.output: list[Item] = []
        self.usage: Usage | None = None
        self.incomplete: Incompleteness | None = None
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

    def cut_short(self, by: Incompleteness) -> None:
        """The answer is not all it would have been. What is said counts, and the turn completes."""
        self.incomplete = by

    def close(self) -> None:
        """All that is open is complete: the handler has said all it had to say."""
        for draft in list(self._drafts.values()):
            draft.done()
        self._speech = None

    def abandon(self) -> None:
        """The turn ends now, whatever is open: its partial items are kept in `output`, marked incomplete.

        A tool call that has no result gets one that says so: models refuse a history with calls left unanswered.
        """
        self._limit = NO_LIMIT  # a turn that overran its bound still says how it ended
        self._end_calls()
        self.output += [draft.abandon() for draft in self._drafts.values()]
        self._drafts.clear()
        self._speech = None
        self.ended = True

    def _end_calls(self) -> None:
        for call, complete in self._unanswered():
            output = self.output_of(call.call_id, call.name, call.server_label)
            output.done([Text(OUTCOME_UNKNOWN if complete else NOT_CALLED)])
        for draft in list(self._drafts.values()):
            if isinstance(draft, OutputDraft):
                draft.break_off()

    def _unanswered(self) -> list[tuple[ToolCall, bool]]:
        """The calls without a result or the beginning of one, and whether their arguments were complete."""
        drafts = self._drafts.values()
        parts = [part for item in self.output for part in item.parts]
        calls = [(part, True) for part in parts if isinstance(part, ToolCall)]
        calls += [(draft.call, False) for draft in drafts if isinstance(draft, CallDraft)]
        answered = {part.call_id for part in parts if isinstance(part, ToolOutput)}
        answered |= {draft.call.call_id for draft in drafts if isinstance(draft, OutputDraft)}
        return [(call, complete) for call, complete in calls if call.call_id not in answered]

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
