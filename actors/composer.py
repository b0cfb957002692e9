"""Composing a turn's events: what an adapter hears from a framework becomes canonical events in the one right order.

Rule 1: no I/O, no clock, no waiting; events go to a sink, which is mostly a turn's log.
Rule 2: an adapter cannot break the order. It opens drafts and writes to them; what it forgets to close is closed for
it, what it says after an item or the turn has ended raises `HandlerError`.

A draft is one item being written. A plain text handler needs only `Composer.say`.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, field

from greenroom.actors.drafts import (
    NOT_CALLED,
    OUTCOME_UNKNOWN,
    CallDraft,
    Draft,
    MessageDraft,
    OutputDraft,
    Sink,
    too_large,
    unheard,
)
from greenroom.actors.events import (
    Event,
    Incompleteness,
    Item,
    ItemKind,
    ItemStarted,
)
from greenroom.actors.messages import Content, Text, ToolCall, ToolOutput, Usage

NO_LIMIT = 1 << 62


class Listener(Struct, frozen=True):
    """A sink that is one function."""

    emit: Callable[[Event], None]


class Composer(Struct, eq=False):
    """Writes one turn. The `sink` gets each event as it arises; `new_id` makes item ids.

    `limit`: how much text the turn may say; `spent`: how much it has said. `speech`: the plain speech that was
    begun last, if it may be open still. `steps`: tool calls and outputs that are complete; what comes after one must
    not be known before it. A struct for `TurnLog`'s reason.
    """

    sink: Sink
    _new_id: Callable[[], str]
    limit: int = NO_LIMIT
    spent: int = 0
    _drafts: dict[str, Draft] = field(default_factory=dict)
    speech: MessageDraft | None = None
    output: list[Item] = field(default_factory=list)
    usage: Usage | None = None
    incomplete: Incompleteness | None = None
    ended: bool = False
    steps: int = 0

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
        draft = CallDraft(self, self._item_id(), "tool_call", "assistant", call=call)
        self._start(draft, call)
        return draft

    def output_of(self, call_id: str, name: str, server_label: str | None = None) -> OutputDraft:
        """The output of a tool call."""
        call = ToolCall(call_id, name, "", server_label)
        draft = OutputDraft(self, self._item_id(), "tool_output", "tool", call=call)
        self._start(draft, call)
        return draft

    # -- plain speech ----------------------------------------------------------------------------------------------

    def say(self, delta: str) -> None:
        """More text of the assistant's answer; the message is opened as needed."""
        speech = self.speech
        if speech is None or not speech.open:
            if not delta:
                return
            speech = self.speech = self.message()
        speech.text(delta)

    def show(self, part: Content) -> None:
        """A whole part of the assistant's answer."""
        if self.speech is None or not self.speech.open:
            self.speech = self.message()
        self.speech.content(part)

    def end_speech(self) -> None:
        """The plain speech that is open is complete."""
        if self.speech is not None:
            self.speech.done()
            self.speech = None

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
        if self._drafts:
            for draft in tuple(self._drafts.values()):
                draft.done()
        self.speech = None

    def abandon(self) -> None:
        """The turn ends now, whatever is open: its partial items are kept in `output`, marked incomplete.

        A tool call that has no result gets one that says so: models refuse a history with calls left unanswered. It
        comes after the call, as every output does.
        """
        self.limit = NO_LIMIT  # a turn that overran its bound still says how it ended
        unanswered = self._unanswered()
        for draft in self._unfinished():
            self._keep_partial(draft.abandon())
        self._end_calls(unanswered)
        self._drafts.clear()
        self.speech = None
        self.ended = True

    def _unfinished(self) -> list[Draft]:
        """What is open, but for the outputs of tools."""
        return [draft for draft in self._drafts.values() if not isinstance(draft, OutputDraft)]

    def _keep_partial(self, item: Item) -> None:
        """Behind what is complete; a call before its output, if that is there already."""
        place = len(self.output)
        for call in item.parts:
            if isinstance(call, ToolCall):
                told = [(number, part) for number, one in enumerate(self.output) for part in one.parts]
                of_it = [one for one in told if getattr(one[1], "call_id", None) == call.call_id]
                if of_it and isinstance(of_it[0][1], ToolOutput):
                    place = of_it[0][0]
        self.output.insert(place, item)

    def _end_calls(self, unanswered: list[tuple[ToolCall, bool]]) -> None:
        for call, complete in unanswered:
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

    def resume(self, draft: Draft) -> Draft:
        """An item that was begun before, by another composer."""
        self._drafts[draft.id] = draft
        return draft

    def close_broken(self) -> None:
        """All that is open stops here, as the turn is begun once more: what comes now is said by another attempt."""
        unanswered = self._unanswered()
        for draft in self._unfinished():
            draft.done()
        self.speech = None
        self._end_calls(unanswered)

    # -- for drafts ------------------------------------------------------------------------------------------------

    def spend(self, size: int) -> None:
        """Count text against the turn's bound. Raises `HandlerError` when it is overrun."""
        self.spent += size
        if self.spent > self.limit:
            raise too_large()

    def finished(self, draft: Draft, item: Item) -> None:
        """A draft is complete."""
        self.output.append(item)
        self._drafts.pop(draft.id, None)
        if item.kind != "message":
            self.steps += 1

    def _text_item(self, kind: ItemKind, role: str) -> MessageDraft:
        if self.speech is not None:
            self.end_speech()
        if self.ended:
            raise unheard()
        item = self._item_id()
        self.sink.emit(ItemStarted(item, kind, role))
        draft = self._drafts[item] = MessageDraft(self, item, kind, role)
        return draft

    def _start(self, draft: Draft, call: ToolCall) -> None:
        self.end_speech()
        if self.ended:
            raise unheard()
        self.sink.emit(
            ItemStarted(draft.id, draft.kind, draft.role, call.call_id, call.name, call.server_label)
        )
        self._drafts[draft.id] = draft

    def _item_id(self) -> str:
        return f"msg_{self._new_id()}"
