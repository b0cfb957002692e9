"""The canonical events of a turn: what every protocol is encoded from.

Contracts only. The order of a turn's events, which the composer keeps whatever a handler does::

    TurnAccepted [TurnStarted item*] (TurnCompleted | TurnFailed | TurnCancelled)
    item : ItemStarted (TextDelta | ArgumentsDelta | ToolProgress | PartDone)* ItemDone

Items may interleave (two tools that run at once). A handler with `framework="events"` yields `ItemStarted`,
`TextDelta`, `ArgumentsDelta`, `ToolProgress`, `PartDone`, `ItemDone` and `UsageReported`; its item ids are its own and
need only be unique in its turn.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from msgspec import Struct

from greenroom.actors.messages import Content, ErrorInfo, ToolCall, ToolOutput, Usage

ItemKind: TypeAlias = Literal["message", "reasoning", "tool_call", "tool_output"]
Part: TypeAlias = Content | ToolCall | ToolOutput
Incompleteness: TypeAlias = Literal["max_output_tokens", "content_filter"]
TurnStatus: TypeAlias = Literal["completed", "failed", "cancelled"]


class TurnAccepted(Struct, frozen=True, gc=False):
    """The turn has its place in the mailbox. `at`: seconds since the epoch."""

    turn: str
    at: float


class TurnStarted(Struct, frozen=True, gc=False):
    """The actor has begun to work the turn off."""


class ItemStarted(Struct, frozen=True, gc=False):
    """An item of output opens. Tool items name their call."""

    item: str
    kind: ItemKind = "message"
    role: str = "assistant"
    call_id: str | None = None
    name: str | None = None
    server_label: str | None = None


class TextDelta(Struct, frozen=True, gc=False):
    """More text of a message or of reasoning. Without `item`: of the message that is open, or a new one."""

    text: str
    item: str = ""
    part: int = 0


class ArgumentsDelta(Struct, frozen=True, gc=False):
    """More of a tool call's arguments (a piece of JSON text)."""

    text: str
    item: str


class ToolProgress(Struct, frozen=True):
    """What a tool has given back so far, whole each time."""

    item: str
    output: tuple[Content, ...]


class PartDone(Struct, frozen=True):
    """A part of an item is complete; `content` holds all of it."""

    content: Part
    item: str = ""
    part: int = 0


class Item(Struct, frozen=True):
    """A finished item. `complete` is false when the turn ended before the item did."""

    id: str
    kind: ItemKind
    role: str
    parts: tuple[Part, ...]
    usage: Usage | None = None
    metadata: dict[str, Any] | None = None
    complete: bool = True


class ItemDone(Struct, frozen=True):
    """An item is complete."""

    item: str
    done: Item | None = None


class UsageReported(Struct, frozen=True, gc=False):
    """A model call's usage; the turn's usage is the sum. `item`: the message it belongs to, if any."""

    usage: Usage
    item: str = ""


class TurnCompleted(Struct, frozen=True):
    """The ending of a turn that went well: everything it changed is committed. `incomplete`: what cut it short."""

    at: float
    output: tuple[Item, ...] = ()
    usage: Usage | None = None
    incomplete: Incompleteness | None = None


class TurnFailed(Struct, frozen=True):
    """The ending of a turn that did not: the session's state is the one before it. `output`: what it had said."""

    at: float
    error: ErrorInfo
    output: tuple[Item, ...] = ()
    usage: Usage | None = None


class TurnCancelled(Struct, frozen=True):
    """The ending of a turn somebody stopped: the session's state is the one before it. `output`: what it had said."""

    at: float
    reason: str
    output: tuple[Item, ...] = ()
    usage: Usage | None = None


Terminal: TypeAlias = TurnCompleted | TurnFailed | TurnCancelled
Event: TypeAlias = (
    TurnAccepted
    | TurnStarted
    | ItemStarted
    | TextDelta
    | ArgumentsDelta
    | ToolProgress
    | PartDone
    | ItemDone
    | Terminal
)
TERMINAL = (TurnCompleted, TurnFailed, TurnCancelled)
