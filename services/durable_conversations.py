"""Conversations in a storage, each in a folder's head: they outlive the process, and several processes share them."""

from __future__ import annotations

from msgspec import Struct, msgpack

from greenroom.actors.messages import SessionKey
from greenroom.services.conversation_store import (
    CONVERSATION_BYTES,
    Change,
    Conversation,
    PendingItem,
    check_size,
)
from greenroom.services.keyed_locks import KeyedLocks
from greenroom.services.storage import Change as FolderChange
from greenroom.services.storage import FolderKey, Head, Storage
from greenroom.services.storage_service import StorageService, change_folder, fence

KIND = "conversation"


class _Pending(Struct, array_like=True, frozen=True, gc=False):
    """A pending item, all fields by position."""

    id: str
    body: bytes
    turn: str | None = None


class _Compact(Struct, array_like=True, frozen=True):
    """A conversation, all fields by position: one may be added at the end, with a default, none moved."""

    created_at: float
    metadata: dict[str, str]
    pending: tuple[_Pending, ...]
    hidden: tuple[str, ...]


class DurableConversations(StorageService):
    """A `ConversationStore` in a storage. What nobody changes for the storage's `idle_seconds` is forgotten."""

    def __init__(self, storage: Storage, *, conversation_bytes: int = CONVERSATION_BYTES) -> None:
        super().__init__(storage)
        self._bound = conversation_bytes
        self._changing: KeyedLocks[SessionKey] = KeyedLocks()

    async def get(self, key: SessionKey) -> Conversation | None:
        """The conversation; none when none is kept."""
        folder = await self._use().read(FolderKey(KIND, *key))
        return None if folder is None else _decoded(folder.head.body)

    async def change(self, key: SessionKey, change: Change) -> Conversation | None:
        """Change a conversation; see `ConversationStore.change`. `change` is called again when others were faster."""
        storage, folder = self._use(), FolderKey(KIND, *key)

        def decide(head: Head | None) -> tuple[list[FolderChange], Conversation | None]:
            before = None if head is None else _decoded(head.body)
            after = change(before)
            if after is before:
                return [], after
            if after is None:
                return [FolderChange(key=folder, expected=fence(head), delete=True)], None
            check_size(after, self._bound)
            return [FolderChange(key=folder, expected=fence(head), head=_encoded(after))], after

        async with self._changing.of(key):
            return await change_folder(storage, folder, decide)


_decoder = msgpack.Decoder(_Compact)
_encoder = msgpack.Encoder()


def _encoded(conversation: Conversation) -> bytes:
    pending = tuple(_Pending(item.id, item.body, item.turn) for item in conversation.pending)
    hidden = tuple(sorted(conversation.hidden))
    return _encoder.encode(_Compact(conversation.created_at, conversation.metadata, pending, hidden))


def _decoded(body: bytes) -> Conversation:
    compact = _decoder.decode(body)
    return Conversation(
        created_at=compact.created_at,
        metadata=compact.metadata,
        pending=tuple(PendingItem(item.id, item.body, item.turn) for item in compact.pending),
        hidden=frozenset(compact.hidden),
    )
