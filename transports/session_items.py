"""What was said in a session, as items of the Responses API: by whatever protocol it was said.

Rule: no I/O. An item has the same id whenever it is looked at: it is decided by the turn and the item's place in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import structs

from greenroom.actors.events import (
    Event,
    Item,
    ItemDone,
    ItemStarted,
    PartDone,
    TurnAccepted,
    TurnCompleted,
    TurnStarted,
)
from greenroom.actors.messages import (
    AgentRequest,
    FunctionTool,
    SessionKey,
    ToolCall,
    ToolOutput,
    Turn,
    TurnOptions,
)
from greenroom.services.store import TurnRecord
from greenroom.transports.responses_decode import Settings
from greenroom.transports.responses_echo import ResponseEcho
from greenroom.transports.responses_listing import input_items, told_apart
from greenroom.transports.responses_whole import output_items


def session_items(records: Iterable[TurnRecord], settings: Settings) -> list[dict[str, Any]]:
    """The items of these turns, oldest first. Only of those that went well: of the others the agent knows nothing.

    What a turn was asked may repeat what an earlier one said, ids and all. It was said twice, so it is listed twice.
    """
    items: list[dict[str, Any]] = []
    known: set[str] = set()
    for record in records:
        if record.status == "completed":
            items += told_apart(turn_items(record, settings), record.turn_id, known)
    return items


def turn_items(record: TurnRecord, settings: Settings) -> list[dict[str, Any]]:
    """One turn's input and output."""
    asked = Turn(
        id=record.turn_id,
        key=SessionKey("", ""),
        request=AgentRequest(input=record.input),
        options=TurnOptions(tools=_run_by_the_client(record.output)),
        created_at=record.at,
    )
    shown = ResponseEcho(model=settings.model, label=settings.label, display=settings.display)
    answered = structs.replace(asked, echo=shown)
    return [*input_items(asked), *output_items(answered, _events(record))]


def _run_by_the_client(output: Sequence[Item]) -> tuple[FunctionTool, ...]:
    """The tools whose calls the turn left to the client: it has no output of theirs."""
    parts = [part for item in output for part in item.parts]
    answered = {part.call_id for part in parts if isinstance(part, ToolOutput)}
    left = {part.name for part in parts if isinstance(part, ToolCall) and part.call_id not in answered}
    return tuple(FunctionTool(name=name) for name in sorted(left))


def _events(record: TurnRecord) -> list[Event]:
    """The turn told once more, an item at a time."""
    events: list[Event] = [TurnAccepted(record.turn_id, record.at), TurnStarted()]
    for item in record.output:
        call = next((part for part in item.parts if isinstance(part, ToolCall | ToolOutput)), None)
        if call is None:
            events.append(ItemStarted(item.id, item.kind, item.role))
        else:
            events.append(
                ItemStarted(item.id, item.kind, item.role, call.call_id, call.name, call.server_label)
            )
        events += [PartDone(part, item.id, number) for number, part in enumerate(item.parts)]
        events.append(ItemDone(item.id, item))
    events.append(TurnCompleted(record.at, record.output))
    return events
