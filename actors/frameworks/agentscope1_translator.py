"""What an AgentScope 1.x handler yields, as a turn's events.

AgentScope prints a message again and again while it grows: every time whole, under the same id. So each of its blocks
has a slot here that remembers what of it went out. Blocks are known by their kind and count within the message, not
by their place, because a block may come to stand before others.

Rule 1: of one message, reasoning and text go out one after the other: opening one completes what was open.
Rule 2: what grows after it was completed is kept and goes out at the message's end. Nothing said is lost.
Rule 3: where the answer must have a form, it is one message: see `held_message`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from agentscope.message import Msg

from greenroom.actors.composer import Composer
from greenroom.actors.drafts import CallDraft, MessageDraft, OutputDraft
from greenroom.actors.errors import HandlerError
from greenroom.actors.frameworks.agentscope1_blocks import (
    MEDIA,
    Block,
    described,
    final_arguments,
    is_error,
    to_content,
    to_contents,
    unknown_block,
)
from greenroom.actors.frameworks.agentscope1_options import TurnModels
from greenroom.actors.frameworks.held_message import HeldMessage
from greenroom.actors.messages import Usage
from greenroom.actors.scope import current_turn


class Slot:
    """One block of a message. `whole`: as heard last. `said`: what of it went out. `round`: when it was heard last."""

    __slots__ = ("draft", "kind", "rewritten", "round", "said", "whole")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.whole: Any = ""
        self.said: Any = ""
        self.rewritten = False
        self.round = 0
        self.draft: Any = None

    def __repr__(self) -> str:
        return f"<Slot {self.kind} {'said' if self.said == self.whole else 'behind'}>"


class Calls:
    """The calls of a turn that wait for their outputs, by call id: a result completes its call."""

    def __init__(self) -> None:
        self._open: dict[str, Slot] = {}

    def add(self, call_id: str, slot: Slot) -> None:
        self._open[call_id] = slot

    def answered(self, call_id: str) -> None:
        slot = self._open.pop(call_id, None)
        if slot is not None:
            end_call(slot)


def end_call(slot: Slot) -> None:
    draft: CallDraft | None = slot.draft
    if draft is not None and draft.open:
        draft.done(final_arguments(slot.whole))


class Reply:
    """One message of an agent while it is printed."""

    __slots__ = ("_calls", "_composer", "_draft", "_growing", "_held", "_round", "_slots", "_usage", "msg")

    def __init__(self, composer: Composer, calls: Calls, msg: Msg, held: HeldMessage | None = None) -> None:
        self.msg = msg
        self._held = held
        self._composer = composer
        self._calls = calls
        self._slots: dict[tuple[str, int], Slot] = {}
        self._draft: MessageDraft | None = None
        self._growing: Slot | None = None
        self._round = 0
        self._usage: Usage | None = None

    def __repr__(self) -> str:
        return f"<Reply {self.msg.id} {list(self._slots.values())}>"

    def hear(self, msg: Msg, blocks: Sequence[Block], last: bool, usage: Usage | None = None) -> None:
        """The message as it is now, and its blocks."""
        self.msg = msg
        self._round += 1
        self._usage = usage
        counts: dict[str, int] = {}
        for block in blocks:
            kind = block.get("type") if isinstance(block, dict) else None
            if kind not in HEARD:
                raise unknown_block(block)
            count = counts[kind] = counts.get(kind, -1) + 1
            slot = self._slots.get((kind, count))
            if slot is None:
                slot = self._slots[kind, count] = Slot(kind)
            slot.round = self._round
            HEARD[kind](self, slot, block, last)
        if last:
            self.end()

    def end(self) -> None:
        """There is no more to come: complete everything."""
        for slot in self._slots.values():
            if slot.kind == "tool_use":
                self._end_call(slot)
            elif slot.kind == "audio":
                self._show(slot)
            elif slot.kind == "tool_result":
                if slot.draft is not None:
                    slot.draft.done()
            elif slot.kind in TEXTUAL and slot is not self._growing and slot.whole != slot.said:
                self._say_the_rest(slot)
        said_late = self._draft is not None
        self._close()
        if said_late and any(slot.kind == "tool_use" for slot in self._slots.values()):
            self._go_on()

    # -- text and thinking -----------------------------------------------------------------------------------------

    def _hear_text(self, slot: Slot, block: Block, last: bool) -> None:
        whole = block.get("text") or ""
        if whole is not slot.whole:
            self._grow(slot, whole)

    def _hear_thinking(self, slot: Slot, block: Block, last: bool) -> None:
        whole = block.get("thinking") or ""
        if whole is not slot.whole:
            self._grow(slot, whole)

    def _grow(self, slot: Slot, whole: str) -> None:
        slot.whole = whole
        if whole == slot.said:
            if slot.rewritten and slot is self._growing:  # it was rewritten and is now what the deltas said
                slot.draft.text_so_far(whole)
            return
        if slot.draft is None and not self._is_late(slot):
            self._open(slot)
        if slot is not self._growing:
            return
        said: str = slot.said
        draft = cast("MessageDraft", slot.draft)  # what grows has one
        if not slot.rewritten and whole.startswith(said):
            draft.text(whole[len(said) :])
            slot.said = whole
        else:
            slot.rewritten = True
            draft.text_so_far(whole)

    def _is_late(self, slot: Slot) -> bool:
        """Whether this reasoning turns up before an answer that is being said already."""
        growing = self._growing
        if slot.kind != "thinking" or growing is None or growing.kind != "text":
            return False
        return growing.round != slot.round

    def _open(self, slot: Slot) -> None:
        slot.draft = self._item_of(slot.kind)
        slot.draft.end_text()
        self._settle_growing()
        self._growing = slot

    def _say_the_rest(self, slot: Slot) -> None:
        draft = self._item_of(slot.kind)
        draft.end_text()
        whole, said = slot.whole, slot.said
        draft.text(whole.removeprefix(said))
        draft.end_text()
        slot.said = whole

    def _item_of(self, kind: str) -> MessageDraft:
        """The message, or reasoning, that is open; another kind that was is completed first."""
        wanted = "reasoning" if kind == "thinking" else "message"
        if self._draft is not None and (self._draft.kind != wanted or not self._draft.open):
            self._close()
        if self._draft is None:
            message = self._composer.message if self._held is None else self._held.message
            self._draft = self._composer.reasoning() if wanted == "reasoning" else message(self.msg.role)
        return self._draft

    def _go_on(self) -> None:
        """There are tools to be heard of: what was said so far is not the answer."""
        if self._held is not None:
            self._held.demote()

    def _settle_growing(self) -> None:
        if self._growing is not None:
            self._growing.said = self._growing.whole
            self._growing = None

    def _close(self) -> None:
        self._settle_growing()
        draft, self._draft = self._draft, None
        if draft is not None:
            if draft.kind == "message":
                draft.usage, self._usage = self._usage, None
            draft.metadata = described(self.msg)
            draft.done()

    # -- images, sound, films --------------------------------------------------------------------------------------

    def _hear_media(self, slot: Slot, block: Block, last: bool) -> None:
        """Pictures and films are shown when they turn up, and sound, which grows, at its end: in its place, unless text
        is being said there."""
        slot.whole = block
        late = last and self._growing is None
        if late if slot.kind == "audio" else last or not slot.said:
            self._show(slot)

    def _show(self, slot: Slot) -> None:
        source = slot.whole.get("source")
        if source != slot.said:
            content = to_content(slot.whole)
            draft = self._item_of(slot.kind)
            draft.content(content)
            self._settle_growing()
            slot.said = source

    # -- tools -----------------------------------------------------------------------------------------------------

    def _hear_tool_use(self, slot: Slot, block: Block, last: bool) -> None:
        slot.whole = block
        name = block.get("name")
        if slot.draft is None:
            if not name and not last:  # some models tell the name a moment after the id
                return
            self._close()
            self._go_on()
            call_id = _call_id(block)
            slot.draft = self._composer.call(call_id, name or "")
            self._calls.add(call_id, slot)
        if slot.draft.open:
            raw = block.get("raw_input")
            if isinstance(raw, str) and raw is not slot.said:
                slot.draft.arguments_so_far(raw)
                slot.said = raw
            if last:
                self._end_call(slot)

    def _end_call(self, slot: Slot) -> None:
        if slot.draft is not None and slot.draft.open:
            slot.draft.usage, self._usage = self._usage, None
            end_call(slot)

    def _hear_tool_result(self, slot: Slot, block: Block, last: bool) -> None:
        output = to_contents(block.get("output"))
        draft: OutputDraft | None = slot.draft
        if draft is None or (not draft.open and output != slot.said):
            self._calls.answered(_call_id(block))
            self._close()
            self._go_on()
            draft = slot.draft = self._composer.output_of(_call_id(block), block.get("name") or "")
        if not draft.open:
            return
        draft.metadata = {"state": "error"} if is_error(output) else None
        if last:
            draft.done(output)
        elif output != (slot.said or ()):
            draft.progress(output)
        slot.said = output


def _call_id(block: Block) -> str:
    return str(block.get("id") or "")


TEXTUAL = frozenset({"text", "thinking"})
HEARD = {
    "text": Reply._hear_text,
    "thinking": Reply._hear_thinking,
    "tool_use": Reply._hear_tool_use,
    "tool_result": Reply._hear_tool_result,
    **dict.fromkeys(MEDIA, Reply._hear_media),
}


class AgentScope1Translator:
    """Hears `(msg, last)` or `(msg, last, speech)` as `stream_printing_messages` yields them, `Msg`, and `str`."""

    __slots__ = ("_calls", "_composer", "_held", "_models", "_replies", "_single")

    def __init__(self, composer: Composer, models: TurnModels | None = None) -> None:
        self._composer = composer
        self._models = models
        formed = models is not None and models.options.answer is not None
        self._held = HeldMessage(composer) if formed else None
        self._replies: dict[str, Reply] = {}
        self._calls = Calls()
        self._single: Reply | None = None

    def feed(self, item: object) -> None:
        if type(item) is tuple and len(item) in {2, 3} and isinstance(item[0], Msg):
            self._end_single()
            self._hear(item[0], bool(item[1]), item[2] if len(item) == 3 else None)
        elif isinstance(item, Msg):
            self._feed_single(item)
        elif isinstance(item, str):
            self._end_single()
            self._composer.say(item)
        else:
            raise HandlerError(
                f"the handler yielded {_described(item)}; with AgentScope 1.x it yields (msg, last) as "
                "stream_printing_messages does, a Msg, or text"
            )

    def finish(self) -> None:
        self._end_single()
        self._take_usage(None)
        for reply in self._replies.values():
            reply.end()
        if self._held is not None:
            self._held.release()
        if self._models is not None:
            self._models.demand.check_offered("ReActAgent")
            if self._models.spent:
                self._composer.cut_short("max_output_tokens")
        scope = current_turn.get()
        if scope is not None and scope.cut is not None:
            self._composer.cut_short(scope.cut)
        self._composer.close()

    def _feed_single(self, msg: Msg) -> None:
        """A `Msg` alone does not say whether more of it comes: something else that comes does, or the end."""
        if self._single is not None and self._single.msg.id != msg.id:
            self._end_single()
        self._single = self._hear(msg, False, None)

    def _end_single(self) -> None:
        if self._single is not None:
            self._single.end()
            self._single = None

    def _hear(self, msg: Msg, last: bool, speech: object) -> Reply:
        reply = self._replies.get(msg.id)
        if reply is None:
            reply = self._replies[msg.id] = Reply(self._composer, self._calls, msg, self._held)
        content = msg.content
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if speech and last:
            blocks = _with_speech(blocks, speech)
        reply.hear(msg, blocks, last, self._take_usage(msg) if last else None)
        return reply

    def _take_usage(self, msg: Msg | None) -> Usage | None:
        """Add the usage of the model calls that have ended to the turn's, and find the message's own."""
        scope = current_turn.get()
        if scope is None or not scope.usage:
            return None
        own = None
        for response_id, usage in scope.usage:
            self._composer.report_usage(usage)
            if msg is not None and response_id == msg.invocation_id:
                own = usage
        scope.usage.clear()
        return own


def _with_speech(blocks: Sequence[Block], speech: Any) -> Sequence[Block]:
    """The blocks and what was spoken, unless a model that speaks put that among the blocks itself."""
    if any(isinstance(block, dict) and block.get("type") == "audio" for block in blocks):
        return blocks
    return [*blocks, *([speech] if isinstance(speech, dict) else speech)]


def _described(item: object) -> str:
    if isinstance(item, tuple):
        return f"a tuple of {', '.join(type(part).__name__ for part in item) or 'nothing'}"
    return f"a {type(item).__name__}"
