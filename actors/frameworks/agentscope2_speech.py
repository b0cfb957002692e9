"""What an AgentScope 2.x agent says: text, thinking and data, as messages and reasoning.

One is open at a time: thinking ends before the answer opens, and the text of a message before the data that follows it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from agentscope.event import (
    DataBlockDeltaEvent,
    DataBlockEndEvent,
    DataBlockStartEvent,
    TextBlockDeltaEvent,
    TextBlockEndEvent,
    ThinkingBlockDeltaEvent,
    ThinkingBlockEndEvent,
)

from greenroom.actors.composer import Composer
from greenroom.actors.drafts import MessageDraft
from greenroom.actors.frameworks.agentscope2_output import Fragments
from greenroom.actors.frameworks.held_message import HeldMessage
from greenroom.actors.messages import Content, Data

PLAIN = "plain text"
"""In place of a text block's id."""


class Speech:
    """A turn's text, thinking and data. `formed`: the answer must have a form, so it is one message, held back until it
    is known to be the answer."""

    __slots__ = (
        "_composer",
        "_data",
        "_held",
        "_held_message",
        "_message",
        "_reasoning",
        "_say",
        "_text_block",
        "_think",
        "_thinking_block",
    )

    def __init__(self, composer: Composer, formed: bool) -> None:
        self._composer = composer
        self._held_message = HeldMessage(composer) if formed else None
        self._message: MessageDraft | None = None
        self._reasoning: MessageDraft | None = None
        # The open blocks' ids and where their deltas go: one comparison and one call a token.
        self._text_block: str | None = None
        self._thinking_block: str | None = None
        self._say: Callable[[str], None]
        self._think: Callable[[str], None]
        self._data: dict[str, Fragments] = {}
        self._held: list[Content] = []
        """Data that was complete while a text block was open: it follows the text."""

    def _end_all(self) -> None:
        """All that was said is complete."""
        for block in list(self._data):
            self._end_data(block)
        self._end_speech()

    # -- text and thinking -----------------------------------------------------------------------------------------

    def _plain_text(self, text: str) -> None:
        if self._held_message is None:
            self._end_speech()
            self._composer.say(text)
        elif text:
            if self._text_block != PLAIN:
                self._open_text(PLAIN)
            self._say(text)

    def _text_delta(self, event: TextBlockDeltaEvent) -> None:
        if event.block_id != self._text_block:
            if not event.delta:
                return
            self._open_text(event.block_id)
        self._say(event.delta)

    def _text_end(self, event: TextBlockEndEvent) -> None:
        if event.text is not None:
            if event.text and event.block_id != self._text_block:
                self._open_text(event.block_id)
            if self._message is not None:
                self._message.text_so_far(event.text)
        if event.block_id == self._text_block:
            self._end_text()

    def _open_text(self, block: str) -> None:
        self._end_reasoning()
        self._end_text()
        if self._message is None:
            self._message = self._new_message()
        self._text_block = block
        self._say = self._message.text

    def _end_text(self) -> None:
        self._text_block = None
        if self._message is not None:
            self._message.end_text()
        if self._held:
            held, self._held = self._held, []
            for part in held:
                self._show(part)

    def _thinking_delta(self, event: ThinkingBlockDeltaEvent) -> None:
        if event.block_id != self._thinking_block:
            if not event.delta:
                return
            self._end_speech()
            self._reasoning = self._composer.reasoning()
            self._thinking_block = event.block_id
            self._think = self._reasoning.text
        self._think(event.delta)

    def _thinking_end(self, event: ThinkingBlockEndEvent) -> None:
        if event.block_id == self._thinking_block:
            self._end_reasoning()

    def _end_reasoning(self) -> None:
        self._thinking_block = None
        if self._reasoning is not None:
            self._reasoning.done()
            self._reasoning = None

    def _end_message(self) -> None:
        self._end_text()
        if self._message is not None:
            self._message.done()
            self._message = None

    def _new_message(self, role: str = "assistant") -> MessageDraft:
        return (self._held_message or self._composer).message(role)

    def _end_speech(self) -> None:
        self._end_reasoning()
        self._end_message()

    def _go_on(self) -> None:
        """There is more work: what was said before was not the answer."""
        self._end_speech()
        if self._held_message is not None:
            self._held_message.demote()

    # -- data ------------------------------------------------------------------------------------------------------

    def _data_start(self, event: DataBlockStartEvent) -> None:
        self._data[event.block_id] = Fragments(event.media_type, event.name)

    def _data_delta(self, event: DataBlockDeltaEvent) -> None:
        fragments = self._data.get(event.block_id)
        if fragments is None:
            fragments = self._data[event.block_id] = Fragments(event.media_type)
        self._composer.spend(fragments.add(event.data, event.url))

    def _data_end(self, event: DataBlockEndEvent) -> None:
        self._end_data(event.block_id)

    def _end_data(self, block: str) -> None:
        fragments = self._data.pop(block, None)
        if fragments is not None and fragments.any:
            self._show(fragments.part())

    def _show(self, part: Content) -> None:
        if self._text_block is not None:
            self._held.append(part)
            return
        self._end_reasoning()
        if self._message is None:
            self._message = self._new_message()
        self._message.content(part)

    def _structured(self, output: dict[str, Any]) -> None:
        """What a reply with a schema ends in."""
        if self._held_message is None:
            self._show(Data(output))
        else:
            self._open_text("structured output")
            self._say(msgspec.json.encode(output).decode())
