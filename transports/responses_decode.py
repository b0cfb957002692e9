"""Reading `POST /responses`: a request's bytes become a `CreateRequest`, from which a `Turn` is made once its session
is known.

Rule 1: no I/O, no clock of its own: time and ids come from `Sources`.
Rule 2: any bytes whatever give a request or a `GreenroomError` that names the field and says what would be right.
Rule 3: what a request asks for is done or refused, never dropped. Hints to a model (temperature, effort) are handed on.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from msgspec import Struct

from greenroom.actors.ids import Sources
from greenroom.actors.messages import (
    AgentRequest,
    Disconnect,
    Overlap,
    SessionKey,
    Turn,
    TurnOptions,
)
from greenroom.transports.responses_echo import ResponseEcho, ToolDisplay
from greenroom.transports.responses_items import Context, ReadItems


class Settings(Struct, frozen=True, kw_only=True):
    """What the application says about its responses. `model`: what it is called when a request names none; `label`:
    the `server_label` of its tools; `honours`: the fields of `TurnOptions` that its handler does; `disconnect`: what
    becomes of a turn in the foreground whose client goes away."""

    model: str
    label: str
    honours: Collection[str] = frozenset()
    display: ToolDisplay = "mcp_call"
    disconnect: Disconnect = Disconnect()


class CreateRequest(Struct, frozen=True, kw_only=True):
    """What a request asks for. `key`: its session, a new one unless `addressed`; what `previous_response_id` names
    goes before it. `read`: its input, which `needs_context` to be whole when it refers to what was said before."""

    id: str
    created_at: float
    key: SessionKey
    addressed: bool
    request: AgentRequest
    options: TurnOptions | None
    echo: ResponseEcho
    read: ReadItems
    principal: str | None
    overlap: Overlap | None
    disconnect: Disconnect
    stream: bool
    background: bool
    store: bool
    previous_response_id: str | None
    conversation: str | None
    include: tuple[str, ...]

    @property
    def needs_context(self) -> bool:
        """Whether `turn_of` needs the context: the input names items or calls of earlier responses."""
        return bool(self.read.open)


def decode_create(
    body: bytes, *, sources: Sources, settings: Settings, principal: str | None = None
) -> CreateRequest:
    """The request a body holds. Raises `InvalidRequest`, or `Forbidden` for another principal's `user_id`."""
    raise NotImplementedError


def read_create(
    fields: dict[str, Any], *, sources: Sources, settings: Settings, principal: str | None = None
) -> CreateRequest:
    """The same of a body that is decoded already, as those of WebSocket messages are."""
    raise NotImplementedError


def turn_of(
    create: CreateRequest,
    *,
    key: SessionKey | None = None,
    after: str | None = None,
    context: Context | None = None,
) -> Turn:
    """The turn. `key` and `after`: those of the response it continues. `context`: what can be referred to.

    Raises `InvalidRequest` for an item or a call that is not in the context.
    """
    raise NotImplementedError
