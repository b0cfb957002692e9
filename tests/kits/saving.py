"""A process that saves states and appends messages: to be killed, and to share a storage. Run as a script.

`python -m kits.saving URL NAME COUNT`: COUNT times it saves a state of session `s` and then appends a message to it. It
prints `started`, then `saved ROUND NUMBER` and `said NUMBER` as each call has returned. With a COUNT of 0 it prints
what there is: `round NUMBER NAME NUMBER` and `message NAME NUMBER`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from greenroom.actors.messages import Message, Text
from greenroom.services.durable_history import DurableSessionHistoryService
from greenroom.services.durable_state import DurableStateService
from greenroom.services.session_history import Session
from greenroom.services.store_urls import storage_at

KEPT = 1_000
PADDING = "." * 5_000


async def main(url: str, name: str, count: int) -> None:
    """Save and say, or tell."""
    storage = storage_at(url)
    states = DurableStateService(storage, rounds_kept=KEPT)
    histories = DurableSessionHistoryService(storage)
    async with states, histories:
        print("started", flush=True)  # noqa: T201
        for number in range(count):
            saved = await states.save_state("u", {"by": name, "n": number, "padding": PADDING}, "s")
            print("saved", saved, number, flush=True)  # noqa: T201
            await histories.append_message(Session("s", "u"), Message((Text(f"{name} {number}"),)))
            print("said", number, flush=True)  # noqa: T201
        if not count:
            await tell(states, histories)


async def tell(states: DurableStateService, histories: DurableSessionHistoryService) -> None:
    """Print what there is."""
    number = 0
    while (state := await states.export_state("u", "s", number + 1)) is not None:
        number += 1
        assert state["padding"] == PADDING
        print("round", number, state["by"], state["n"])  # noqa: T201
    latest = await states.export_state("u", "s")
    assert latest == (await states.export_state("u", "s", number) if number else None)
    session = await histories.get_session("u", "s")
    for message in session.messages if session is not None else ():
        (part,) = message.content
        assert isinstance(part, Text)
        print("message", part.text)  # noqa: T201


@asynccontextmanager
async def saving(url: str, name: str, count: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Such a process. It is killed at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kits.saving", url, name, str(count)),
        cwd=Path(__file__).parents[1],
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([".", os.environ.get("PYTHONPATH", "")])},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
