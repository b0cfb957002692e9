"""Agent states in storages: the kits, and what several processes do to one session."""

from __future__ import annotations

from typing import Any

from greenroom.actors.messages import SessionKey
from greenroom.services.agent_state import StateService
from greenroom.services.durable_state import DurableStateService
from greenroom.services.memory_storage import MemoryStorage
from kits.fork_kit import ForkKit
from kits.state_kit import StateKit


class TestStatesInMemory(StateKit):
    def service(self, rounds_kept: int) -> StateService:
        return DurableStateService(MemoryStorage(), rounds_kept=rounds_kept)


class TestForksOfStatesInMemory(ForkKit):
    actions = ("save", "overwrite")

    def service(self, turns_kept: int) -> Any:
        return DurableStateService(MemoryStorage(), turns_kept=turns_kept, rounds_kept=3)

    async def write(self, service: Any, key: SessionKey, action: str, text: str) -> None:
        latest = await service.save_state(key.user_id, {"text": text}, key.session_id)
        if action == "overwrite":
            await service.save_state(key.user_id, {"again": text}, key.session_id, round_id=latest)

    async def read(self, service: Any, key: SessionKey) -> object:
        rounds = range(1, 60)
        return [await service.export_state(key.user_id, key.session_id, number) for number in rounds]
