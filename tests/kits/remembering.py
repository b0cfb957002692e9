"""Agents and handlers that tell what they remember, and a way to talk to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from greenroom.actors.log import TurnLog
from greenroom.actors.messages import Message, SessionKey
from greenroom.actors.system import ActorSystem
from greenroom.services.agent_state import InMemoryStateService
from greenroom.services.session_history import InMemorySessionHistoryService
from greenroom.services.sessions.memory_store import InMemoryStore
from greenroom.services.store import SessionRecord
from kits.system import asked, said, turn


class Memory:
    """An agent that answers with all it was told: "fail" and "wait" do so."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def reply(self, messages: Sequence[Message]) -> AsyncIterator[str]:
        text = asked(messages[-1])
        self.heard.append(text)
        if "wait" in text:
            await asyncio.sleep(10)
        if "fail" in text:
            raise RuntimeError(text)
        yield " ".join(self.heard)

    def state_dict(self) -> list[str]:
        return self.heard

    def load_state_dict(self, state: list[str]) -> None:
        self.heard = list(state)


async def new_memory() -> Memory:
    return Memory()


async def tell(system: ActorSystem, text: str, **options: Any) -> TurnLog:
    """Send a turn and see its end."""
    log = await system.submit(turn(text, id=options.pop("id", text), **options))
    await log.ended()
    return log


def heard(log: TurnLog) -> str:
    assert log.terminal is not None
    return said(log.terminal)


class Tutorial:
    """A handler as the tutorial has it: the state from one service, the history from another."""

    def __init__(self) -> None:
        self.states = InMemoryStateService()
        self.histories = InMemorySessionHistoryService()

    async def start(self) -> None:
        await self.states.start()
        await self.histories.start()

    async def answer(self, msgs: Sequence[Message], request: Any) -> AsyncIterator[str]:
        text = asked(msgs[-1])
        state = await self.states.export_state(request.user_id, request.session_id) or {"heard": []}
        session = await self.histories.get_session(request.user_id, request.session_id)
        assert session is not None
        await self.histories.append_message(session, list(msgs))
        if text != "forgetful":
            state["heard"].append(text)
            await self.states.save_state(request.user_id, state, request.session_id)
        if text.startswith("fail"):
            raise RuntimeError(text)
        yield f"{' '.join(state['heard'])} | {' '.join(map(asked, session.messages))}"


class SlowStore(InMemoryStore):
    """Takes its time, as one on a disk does."""

    async def load(self, key: SessionKey) -> SessionRecord | None:
        await asyncio.sleep(0.1)
        return await super().load(key)

    async def fork(self, source: SessionKey, turn_id: str, target: SessionKey) -> bool:
        await asyncio.sleep(0.1)
        return await super().fork(source, turn_id, target)
