"""Retelling: bringing a composer to where another one was that wrote the events there are of a turn.

The other one died with its process. What it had begun can then be ended as any turn's is: open items are kept as far as
they were said, and calls without a result get one that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from greenroom.actors.composer import NO_LIMIT, Composer, Listener
from greenroom.actors.drafts import CallDraft, Draft, MessageDraft, OutputDraft, Sink
from greenroom.actors.events import (
    ArgumentsDelta,
    Event,
    ItemDone,
    ItemStarted,
    PartDone,
    TextDelta,
    ToolProgress,
)
from greenroom.actors.messages import ToolCall


def retold(events: Iterable[Event], sink: Sink, new_id: Callable[[], str]) -> Composer:
    """A composer that has said this, and will say more to `sink`."""
    composer = Composer(Listener(_unsaid), new_id, NO_LIMIT)
    drafts: dict[str, Draft] = {}
    for event in events:
        _tell(composer, drafts, event)
    composer.sink = sink
    return composer


def _unsaid(event: Event) -> None:
    """It was said before."""


def _tell(composer: Composer, drafts: dict[str, Draft], event: Event) -> None:
    if isinstance(event, ItemStarted):
        drafts[event.item] = composer.resume(_draft(composer, event))
        return
    draft = drafts.get(getattr(event, "item", ""))
    if draft is None:
        return
    if isinstance(event, TextDelta) and isinstance(draft, MessageDraft):
        draft.text(event.text)
    elif isinstance(event, ArgumentsDelta) and isinstance(draft, CallDraft):
        draft.arguments(event.text)
    elif isinstance(event, ToolProgress) and isinstance(draft, OutputDraft):
        draft.progress(event.output)
    elif isinstance(event, PartDone):
        draft.told(event.content)
    elif isinstance(event, ItemDone) and event.done is not None:
        composer.finished(draft, event.done)


def _draft(composer: Composer, event: ItemStarted) -> Draft:
    if event.kind in ("message", "reasoning"):
        return MessageDraft(composer, event.item, event.kind, event.role)
    call = ToolCall(event.call_id or "", event.name or "", "", event.server_label)
    made = CallDraft if event.kind == "tool_call" else OutputDraft
    return made(composer, event.item, event.kind, event.role, call=call)
