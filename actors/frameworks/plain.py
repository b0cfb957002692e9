"""Handlers without a framework: they yield text, whole parts, or canonical events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import msgspec

from greenroom.actors.composer import Composer
from greenroom.actors.drafts import CallDraft, Draft, MessageDraft, OutputDraft
from greenroom.actors.errors import HandlerError
from greenroom.actors.events import (
    ArgumentsDelta,
    ItemDone,
    ItemStarted,
    PartDone,
    TextDelta,
    ToolProgress,
    UsageReported,
)
from greenroom.actors.frameworks.adapter import AgentDriver, Translator
from greenroom.actors.messages import (
    Audio,
    Data,
    File,
    Image,
    Message,
    Refusal,
    Text,
    ToolCall,
    ToolOutput,
    Usage,
    Video,
)
from greenroom.actors.offload import as_stream, call

PARTS = (Data, Image, Audio, Video, File, Refusal)


class PlainTranslator:
    """Text goes to the answer; canonical events to the item they name."""

    __slots__ = ("_composer", "_drafts")

    def __init__(self, composer: Composer) -> None:
        self._composer = composer
        self._drafts: dict[str, Draft] = {}

    def feed(self, item: object) -> None:
        if type(item) is str:
            speech = self._composer.speech
            if speech is not None and speech.open:  # as `say` does it; nearly every token comes this way
                speech.text(item)
            else:
                self._composer.say(item)
            return
        hear = HEARD.get(type(item))
        if hear is not None:
            hear(self, item)
        elif isinstance(item, str):
            self._composer.say(str(item))
        elif isinstance(item, Text):
            self._composer.say(item.text)
        elif isinstance(item, PARTS):
            self._composer.show(item)
        else:
            raise HandlerError(
                f"the handler yielded something of type {type(item).__name__}; with this framework it yields str, "
                "content parts (greenroom.Image, ...) or events (greenroom.ItemStarted, ...). "
                'For AgentScope say @app.query(framework="agentscope")'
            )

    def finish(self) -> None:
        self._composer.close()

    def _item_started(self, event: ItemStarted) -> None:
        if event.item in self._drafts:
            raise HandlerError(f"item {event.item!r} was started twice in one turn")
        self._drafts[event.item] = self._open(event)

    def _open(self, event: ItemStarted) -> Draft:
        if event.kind == "message":
            return self._composer.message(event.role)
        if event.kind == "reasoning":
            return self._composer.reasoning()
        if event.call_id is None or event.name is None:
            raise HandlerError(f"ItemStarted of a {event.kind} needs call_id and name")
        start = self._composer.call if event.kind == "tool_call" else self._composer.output_of
        return start(event.call_id, event.name, event.server_label)

    def _draft(self, item: str, *kinds: type[Draft]) -> Draft:
        draft = self._drafts.get(item)
        if draft is None or not isinstance(draft, kinds):
            what = "no item" if draft is None else f"a {draft.kind} item"
            raise HandlerError(
                f"the event names item {item!r}, which is {what}; start it with a fitting ItemStarted"
            )
        return draft

    def _message(self, item: str) -> MessageDraft:
        draft = self._draft(item, MessageDraft)
        assert isinstance(draft, MessageDraft)
        return draft

    def _text_delta(self, event: TextDelta) -> None:
        if event.item:
            self._message(event.item).text(event.text)
        else:
            self._composer.say(event.text)

    def _arguments_delta(self, event: ArgumentsDelta) -> None:
        draft = self._draft(event.item, CallDraft)
        assert isinstance(draft, CallDraft)
        draft.arguments(event.text)

    def _tool_progress(self, event: ToolProgress) -> None:
        draft = self._draft(event.item, OutputDraft)
        assert isinstance(draft, OutputDraft)
        draft.progress(event.output)

    def _part_done(self, event: PartDone) -> None:
        content = event.content
        if isinstance(content, ToolCall | ToolOutput):
            self._tool_part_done(event.item, content)
        elif not event.item:
            self.feed(content)
        elif isinstance(content, Text):
            message = self._message(event.item)
            message.text_so_far(content.text)
            message.end_text()
        else:
            self._message(event.item).content(content)

    def _tool_part_done(self, item: str, content: ToolCall | ToolOutput) -> None:
        draft = self._draft(item, CallDraft, OutputDraft)
        if isinstance(draft, CallDraft) and isinstance(content, ToolCall):
            draft.done(content.arguments)
        elif isinstance(draft, OutputDraft) and isinstance(content, ToolOutput):
            draft.done(content.output)
        else:
            raise HandlerError(f"item {item!r} is a {draft.kind} and cannot hold a {type(content).__name__}")

    def _item_done(self, event: ItemDone) -> None:
        self._draft(event.item, Draft).done()

    def _usage(self, usage: Usage) -> None:
        self._composer.report_usage(usage)

    def _usage_reported(self, event: UsageReported) -> None:
        self._composer.report_usage(event.usage)
        if event.item:
            self._draft(event.item, Draft).usage = event.usage


HEARD: Mapping[type, Callable[[PlainTranslator, Any], None]] = {
    ItemStarted: PlainTranslator._item_started,
    TextDelta: PlainTranslator._text_delta,
    ArgumentsDelta: PlainTranslator._arguments_delta,
    ToolProgress: PlainTranslator._tool_progress,
    PartDone: PlainTranslator._part_done,
    ItemDone: PlainTranslator._item_done,
    UsageReported: PlainTranslator._usage_reported,
    Usage: PlainTranslator._usage,
}


class PlainDriver:
    """Drives any object with `reply(messages)`, or a callable: it returns or yields what a handler would.

    Its state is what `state_dict()` gives and `load_state_dict()` takes, when it has them.
    """

    def __init__(self, agent: object) -> None:
        reply = getattr(agent, "reply", agent)
        if not callable(reply):
            raise HandlerError(
                f"the agent factory returned a {type(agent).__name__}, neither callable nor with reply(messages)"
            )
        self._agent = agent
        self._reply: Callable[[Sequence[Message]], Any] = reply

    def restore(self, state: bytes) -> None:
        load = getattr(self._agent, "load_state_dict", None)
        if load is not None:
            load(msgspec.json.decode(state))

    def run(self, messages: Sequence[Message]) -> AsyncIterator[object]:
        return self._run(messages)

    async def _run(self, messages: Sequence[Message]) -> AsyncIterator[object]:
        async for item in as_stream(await call(self._reply, messages)):
            yield item

    def save(self) -> bytes:
        state_dict = getattr(self._agent, "state_dict", None)
        return msgspec.json.encode(state_dict() if state_dict is not None else None)


class PlainAdapter:
    """`framework="text"` and `framework="events"`."""

    name = "text"
    honours: frozenset[str] = frozenset()

    def messages(self, messages: Sequence[Message]) -> Sequence[Message]:
        return messages

    def translator(self, composer: Composer) -> Translator:
        return PlainTranslator(composer)

    def driver(self, agent: object) -> AgentDriver:
        return PlainDriver(agent)
