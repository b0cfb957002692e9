"""A memory for AgentScope 1.x agents that lives in a session history service."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from agentscope.memory import MemoryBase
from agentscope.message import Msg

from greenroom.actors.frameworks.agentscope1_history import Entry, to_entries, to_messages
from greenroom.actors.messages import Message
from greenroom.actors.scope import TurnScope, current_turn
from greenroom.services.session_history import Session, SessionHistoryService

TRANSIENT = frozenset({"hint"})
"""Marks of what an agent says to itself for one model call and then deletes: it never reaches the service."""


class AgentScopeSessionHistoryMemory(MemoryBase):  # type: ignore[misc]
    """What `InMemoryMemory` does, with the messages in a session history service.

    Each turn reads the history once, adding to it costs the same however long it is, and a turn that fails leaves
    nothing in it. The agent's own state holds the compressed summary alone. `Msg` objects come back as they were put
    in. Give it to the agent: `ReActAgent(..., memory=AgentScopeSessionHistoryMemory(service=..., ...))`.
    """

    def __init__(self, service: SessionHistoryService, user_id: str, session_id: str) -> None:
        super().__init__()
        self.user_id = user_id
        self.session_id = session_id
        self._service = service
        self._lock = asyncio.Lock()
        self._session: Session | None = None
        self._scope: TurnScope | None = None
        self._entries: list[Entry] = []
        self._ids: set[str] = set()
        self._read = 0
        self._newest: Message | None = None
        self._inherited: list[Entry] = []

    def __repr__(self) -> str:
        return (
            f"<AgentScopeSessionHistoryMemory of session {self.session_id!r}: {len(self._entries)} messages>"
        )

    # -- what MemoryBase asks for ----------------------------------------------------------------------------------

    async def add(
        self,
        memories: Msg | list[Msg] | None,
        marks: str | list[str] | None = None,
        allow_duplicates: bool = False,
        **kwargs: Any,
    ) -> None:
        """Add messages. Those whose id is there already are left out, unless `allow_duplicates`.

        Raises `TypeError` for marks that are no text, and what the service raises.
        """
        named = _texts(marks, "mark")
        msgs: list[Any] = [memories] if isinstance(memories, Msg) else memories or []
        async with self._lock:
            session = await self._use()
            if not allow_duplicates:
                msgs = [msg for msg in msgs if msg.id not in self._ids]
            await self._append(session, [Entry(deepcopy(msg), list(named)) for msg in msgs])

    async def get_memory(
        self,
        mark: str | None = None,
        exclude_mark: str | None = None,
        prepend_summary: bool = True,
        **kwargs: Any,
    ) -> list[Msg]:
        """The messages, those with `mark` and without `exclude_mark`; before them the summary, if there is one.

        Raises `TypeError` for marks that are no text.
        """
        wanted, unwanted = _text(mark, "mark"), _text(exclude_mark, "exclude_mark")
        async with self._lock:
            await self._refresh()
            msgs = [
                entry.msg
                for entry in self._entries
                if (wanted is None or wanted in entry.marks)
                and (unwanted is None or unwanted not in entry.marks)
            ]
        if prepend_summary and self._compressed_summary:
            return [Msg("user", self._compressed_summary, "user"), *msgs]
        return msgs

    async def size(self) -> int:
        """How many messages there are."""
        async with self._lock:
            await self._refresh()
            return len(self._entries)

    async def clear(self) -> None:
        """Delete all messages."""
        async with self._lock:
            await self._keep_only(await self._use(), [])

    async def delete(self, msg_ids: list[str], **kwargs: Any) -> int:
        """Delete messages by id. Returns how many."""
        unwanted = set(msg_ids)
        async with self._lock:
            session = await self._use()
            return await self._keep_only(
                session, [entry for entry in self._entries if entry.msg.id not in unwanted]
            )

    async def delete_by_mark(self, mark: str | list[str], *args: Any, **kwargs: Any) -> int:
        """Delete messages that have one of the marks. Returns how many. Raises `TypeError` for what is no mark."""
        unwanted = set(_texts(mark, "mark"))
        async with self._lock:
            session = await self._use()
            return await self._keep_only(
                session, [entry for entry in self._entries if unwanted.isdisjoint(entry.marks)]
            )

    async def update_messages_mark(
        self, new_mark: str | None, old_mark: str | None = None, msg_ids: list[str] | None = None
    ) -> int:
        """Give a mark to messages, in place of `old_mark` if that is named; `new_mark=None` takes the old one away.

        `msg_ids` and `old_mark` choose the messages; without them it is all. Returns how many were changed.
        """
        new, old = _text(new_mark, "new_mark"), _text(old_mark, "old_mark")
        chosen = None if msg_ids is None else set(msg_ids)
        async with self._lock:
            session = await self._use()
            before = [entry.marks for entry in self._entries]
            changed = sum(
                _remark(entry, new, old)
                for entry in self._entries
                if chosen is None or entry.msg.id in chosen
            )
            if before != [entry.marks for entry in self._entries]:
                await self._rewrite(session, self._entries)
            return changed

    def state_dict(self) -> dict[str, Any]:
        """The summary. The messages are in the service."""
        return {"_compressed_summary": self._compressed_summary}

    def load_state_dict(self, state_dict: dict[str, Any], strict: bool = True) -> None:
        """Load the summary. Messages in the state (`InMemoryMemory` keeps them there) move into an empty history."""
        self._compressed_summary = state_dict.get("_compressed_summary", "")
        self._inherited = [_inherited(item) for item in state_dict.get("content") or []]
        self._scope, self._session = None, None

    # -- the service -----------------------------------------------------------------------------------------------

    async def _use(self) -> Session:
        """The session for adding to it, read at most once a turn: a turn is its only writer."""
        scope = current_turn.get()
        if self._session is None or scope is None or scope is not self._scope:
            return await self._refresh()
        return self._session

    async def _refresh(self) -> Session:
        """Read the history, and of it what is new."""
        session = await self._service.get_session(self.user_id, self.session_id)
        if session is None:
            session = await self._service.create_session(self.user_id, self.session_id)
        messages = session.messages
        if self._read > len(messages) or (self._read and messages[self._read - 1] != self._newest):
            self._forget()  # another turn's changes were undone, or others made some
        if self._read < len(messages):
            self._remember(to_entries(messages[self._read :]))
            self._know(messages)
        self._session, self._scope = session, current_turn.get()
        if self._inherited:
            inherited, self._inherited = self._inherited, []
            if not messages:
                await self._append(session, inherited)
        return session

    async def _append(self, session: Session, entries: list[Entry]) -> None:
        new: list[Message] = []
        for entry in entries:
            if TRANSIENT.isdisjoint(entry.marks):
                new += to_messages(entry.msg, entry.marks)
                entry.stored = True
        if new:
            before = len(session.messages)
            await self._service.append_message(session, new)
            if len(session.messages) == before:  # a service that leaves it to the reader
                session.messages.extend(new)
            self._know(session.messages)
        self._remember(entries)

    async def _keep_only(self, session: Session, kept: list[Entry]) -> int:
        removed = len(self._entries) - len(kept)
        if removed:
            if sum(entry.stored for entry in kept) < sum(entry.stored for entry in self._entries):
                await self._rewrite(session, kept)
            self._entries = kept
            self._ids = {entry.msg.id for entry in kept}
        return removed

    async def _rewrite(self, session: Session, entries: list[Entry]) -> None:
        """Replace what the service has by these."""
        new: list[Message] = []
        for entry in entries:
            entry.stored = TRANSIENT.isdisjoint(entry.marks)
            if entry.stored:
                new += to_messages(entry.msg, entry.marks)
        try:
            await self._service.replace_messages(session, new)
        except BaseException:
            self._session = None  # what is remembered is no longer what the service has: read it again
            self._forget()
            raise
        if len(session.messages) != len(new):  # a service that leaves it to the reader
            session.messages = new
        self._know(session.messages)

    def _know(self, messages: list[Message]) -> None:
        self._read = len(messages)
        self._newest = messages[-1] if messages else None

    def _remember(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._entries.append(entry)
            self._ids.add(entry.msg.id)

    def _forget(self) -> None:
        self._entries = []
        self._ids = set()
        self._know([])


def _remark(entry: Entry, new: str | None, old: str | None) -> bool:
    """Change one entry's marks. Returns whether it has the new one now, or lost the old one for nothing."""
    if old is not None and old not in entry.marks:
        return False
    kept = [mark for mark in entry.marks if mark != old]
    gains = new is not None and new not in kept
    changed = gains or (new is None and len(kept) < len(entry.marks))
    entry.marks = [*kept, str(new)] if gains else kept
    return changed


def _inherited(item: Any) -> Entry:
    """One item of `InMemoryMemory`'s content: a message with its marks, or in old states the message alone."""
    if isinstance(item, dict):
        return Entry(Msg.from_dict(item), [])
    msg, marks = item
    return Entry(Msg.from_dict(msg), _texts(marks, "mark"))


def _texts(marks: object, name: str) -> list[str]:
    if isinstance(marks, str):
        return [str.__str__(marks)]  # of AgentScope's enum of marks, its value
    if marks is None:
        return []
    if isinstance(marks, list) and all(isinstance(mark, str) for mark in marks):
        return [str.__str__(mark) for mark in marks]
    raise TypeError(f"{name} is a string, a list of strings or None, not {marks!r}")


def _text(mark: object, name: str) -> str | None:
    if mark is None:
        return None
    if isinstance(mark, str):
        return str.__str__(mark)
    raise TypeError(f"{name} is a string or None, not {mark!r}")
