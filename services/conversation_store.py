"""The plug for conversations: what a client has said of a session, besides its turns.

A conversation is a session; its turns are the `SessionStore`'s business. Here is what no turn holds: the client's
metadata, items put into the conversation that no turn has taken up yet, and which items were deleted. The conformance
kit is `tests/kits/conversation_store_kit.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeAlias

from msgspec import Struct, field

from greenroom.actors.errors import InvalidRequest
from greenroom.actors.messages import SessionKey
from greenroom.actors.setting_checks import Seconds, Share, check_settings
from greenroom.services.service import not_started
from greenroom.services.session_map import Bounds, Resident, SessionMap

ITEM_BYTES = 128
"""What an id or a pair of metadata is reckoned with, besides its text."""
CONVERSATION_BYTES = 16 * 1024 * 1024
"""What one conversation may hold besides its turns."""


class PendingItem(Struct, frozen=True, gc=False):
    """An item the agent has not seen. `body`: its JSON. `turn`: the turn that takes it to the agent, once one does."""

    id: str
    body: bytes
    turn: str | None = None


class Conversation(Struct, frozen=True, kw_only=True):
    """What is kept of one. `created_at`: seconds since the epoch. `hidden`: the ids of deleted items."""

    created_at: float
    metadata: dict[str, str] = field(default_factory=dict)
    pending: tuple[PendingItem, ...] = ()
    hidden: frozenset[str] = frozenset()


Change: TypeAlias = Callable[[Conversation | None], Conversation | None]
"""What becomes of a conversation (none: there is none). It neither waits nor looks at the store, and may be
called again, when another process was faster."""


class ConversationStore(Protocol):
    """Conversations by session key. Keys that differ are different conversations, whatever the ids contain."""

    async def start(self) -> None:
        """Be ready for use."""
        ...

    async def stop(self) -> None:
        """Let go of connections and files. A store may be started again."""
        ...

    async def get(self, key: SessionKey) -> Conversation | None:
        """The conversation; none when none is kept."""
        ...

    async def change(self, key: SessionKey, change: Change) -> Conversation | None:
        """Put what `change` makes of the conversation in its place, with nothing in between; gives what it made.

        What `change` raises comes out, and changes nothing. Raises `InvalidRequest` for a conversation over the
        store's bound.
        """
        ...


class _Held(Resident, gc=False):
    conversation: Conversation = Conversation(created_at=0.0)


class InMemoryConversations:
    """A `ConversationStore` in this process's memory. Over a bound the conversation used longest ago is forgotten."""

    def __init__(
        self,
        *,
        max_conversations: int = 100_000,
        max_bytes: int = 256 * 1024 * 1024,
        conversation_bytes: int = CONVERSATION_BYTES,
        idle_seconds: float = 6 * 3600.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        kinds = {
            "max_conversations": Share,
            "max_bytes": Share,
            "conversation_bytes": Share,
            "idle_seconds": Seconds,
        }
        check_settings("InMemoryConversations", locals(), kinds)
        bounds = Bounds(
            max_sessions=max_conversations,
            max_bytes=max_bytes,
            session_bytes=conversation_bytes,
            idle_seconds=idle_seconds,
        )
        self._bound = conversation_bytes
        self._held: SessionMap[_Held] = SessionMap(bounds, monotonic)
        self._started = False

    def __repr__(self) -> str:
        return f"<InMemoryConversations: {len(self._held)}, {self._held.size} bytes>"

    async def start(self) -> None:
        """Be ready for use."""
        self._started = True

    async def stop(self) -> None:
        """Refuse further use, until started again."""
        self._started = False

    async def get(self, key: SessionKey) -> Conversation | None:
        """The conversation; none when there is none, or it was idle for too long."""
        held = self._use().find(key)
        return held.conversation if held is not None else None

    async def change(self, key: SessionKey, change: Change) -> Conversation | None:
        """Change a conversation; see `ConversationStore.change`."""
        held = self._use().find(key)
        before = held.conversation if held is not None else None
        after = change(before)
        if after is None:
            self._held.drop(key)
        elif after is not before:
            size = check_size(after, self._bound)
            self._held.keep(key, _Held(conversation=after), size)
        return after

    def _use(self) -> SessionMap[_Held]:
        if not self._started:
            raise not_started(self)
        return self._held


def check_size(conversation: Conversation, most: int) -> int:
    """What it is reckoned with. Raises `InvalidRequest` for one of more than `most` bytes."""
    size = _size(conversation)
    if size > most:
        raise InvalidRequest(
            f"the conversation would hold {size} bytes besides its turns, and may hold {most}; "
            "let a response take up what is waiting before you add more",
            field="items",
        )
    return size


def _size(conversation: Conversation) -> int:
    size = ITEM_BYTES * (
        1 + len(conversation.metadata) + len(conversation.pending) + len(conversation.hidden)
    )
    size += sum(len(name) + len(value) for name, value in conversation.metadata.items())
    size += sum(len(item.id) + len(item.body) for item in conversation.pending)
    return size + sum(map(len, conversation.hidden))
