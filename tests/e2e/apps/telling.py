"""An agent that tells all it has heard. After "hold" it says the half of it, and no more."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from greenroom import AgentApp, Limits, Message, Text

app = AgentApp("Telling", "Tells all it has heard", limits=Limits(recovery_seconds=0.3, journal_seconds=0.05))


class Telling:
    def __init__(self) -> None:
        self.heard: list[str] = []

    async def reply(self, messages: Sequence[Message]) -> AsyncIterator[str]:
        for message in messages:
            self.heard += [part.text for part in message.content if isinstance(part, Text)]
        if self.heard[-1] == "hold":
            yield "half"
            await asyncio.Event().wait()
        for word in self.heard:
            yield f"{word} "

    def state_dict(self) -> list[str]:
        return self.heard

    def load_state_dict(self, state: list[str]) -> None:
        self.heard = list(state)


@app.agent("text")
def make_agent() -> Telling:
    return Telling()
