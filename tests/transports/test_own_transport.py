"""The transport that docs/embedding.md shows, as it stands there."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from greenroom import AgentApp, AgentRequest, Disconnect, Message, SessionKey, Text, TextDelta
from greenroom.actors.messages import Turn

DOCS = Path(__file__).parents[2] / "docs" / "embedding.md"


def documented() -> Any:
    found = re.search(r"```python\n(class Lines.*?)```", DOCS.read_text(), re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {"asyncio": asyncio, "TextDelta": TextDelta}
    exec(found[1], names)
    return names["Lines"]


async def test_a_stranger_writes_one_in_an_afternoon() -> None:
    class Lines(documented()):  # type: ignore[misc]
        def turn(self, text: str) -> Turn:
            uuid = self.host.sources.uuid
            request = AgentRequest(input=(Message((Text(text),)),))
            return Turn(
                id=uuid(),
                key=SessionKey("u", "s"),
                request=request,
                disconnect=Disconnect(),
                created_at=self.host.sources.now(),
            )

    lines = Lines(0)
    app = AgentApp(transports=[lines])

    @app.query()
    async def shout(msgs: Any) -> str:
        text: str = msgs[-1].content[0].text
        return text.upper() + "!"

    async with app:
        port = lines.server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello\nthere\n")
        writer.write_eof()
        assert await reader.read() == b"HELLO!THERE!"
        writer.close()
