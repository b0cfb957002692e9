"""An application without a framework that remembers: its answer is all it was told in the session, and waits when told
to."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

from greenroom import AgentApp
from greenroom.actors.messages import Message, Text
from greenroom.actors.session import Session


class Memory:
    """`app`: the application; `runs`: how often it was told what; `gate`: what a turn waits for that says `wait`."""

    def __init__(self, **options: Any) -> None:
        self.gate = asyncio.Event()
        self.began = asyncio.Event()
        self.runs: Counter[str] = Counter()
        options.setdefault("drain_seconds", 0)
        self.app = AgentApp("Memory", **options)
        self.app.query()(self.answer)

    async def answer(self, request: Any, session: Session) -> AsyncIterator[str]:
        """Says what it was told, oldest first, with a slash between."""
        told = [words(turn.input) for turn in await session.history() if turn.status == "completed"]
        now = words(request.input)
        self.runs[now] += 1
        self.began.set()
        yield "/".join(told)
        if now.endswith("wait"):
            yield "…"
            await self.gate.wait()
        if now.endswith("fail"):
            raise ValueError("internal matter")
        yield f"/{now}" if told else now


def words(messages: Sequence[Message]) -> str:
    """The text of messages, with a plus between."""
    return "+".join(part.text for message in messages for part in message.content if isinstance(part, Text))
