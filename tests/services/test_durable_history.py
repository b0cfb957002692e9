"""Session histories in storages: the kits, and what several processes do to one session."""

from __future__ import annotations

from typing import Any

from greenroom.actors.messages import SessionKey
from greenroom.services.durable_history import DurableSessionHistoryService
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.session_history import Session, SessionHistoryService
from kits.fork_kit import ForkKit
from kits.history_kit import HistoryKit, said


class TestHistoriesInMemory(HistoryKit):
    def service(self, messages_kept: int) -> SessionHistoryService:
        return DurableSessionHistoryService(MemoryStorage(), messages_kept=messages_kept)


class TestForksOfHistoriesInMemory(ForkKit):
    actions = ("append", "replace", "create", "delete")
    final = ("delete",)

    def service(self, turns_kept: int) -> Any:
        return DurableSessionHistoryService(MemoryStorage(), turns_kept=turns_kept, messages_kept=3)

    async def write(self, service: Any, key: SessionKey, action: str, text: str) -> None:
        session = Session(key.session_id, key.user_id)
        if action == "append":
            await service.append_message(session, [said(text), said(text * 2)])
        elif action == "replace":
            await service.replace_messages(session, [said(text)])
        elif action == "create":
            await service.create_session(key.user_id, key.session_id)
        else:
            await service.delete_session(key.user_id, key.session_id)

    async def read(self, service: Any, key: SessionKey) -> object:
        listed = {session.id for session in await service.list_sessions(key.user_id)}
        if key.session_id not in listed:
            return None
        session = await service.get_session(key.user_id, key.session_id)
        return session.messages
