"""The server that is measured.

`python -m benchmarks.serve_target [CORE]` says its port and serves until its input ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator

from benchmarks.own_process import cpu_seconds, input_ended, memory, pin
from benchmarks.plans import DELTA, plan_of
from greenroom import AgentApp, AgentRequest, Text
from greenroom.open_files import raise_open_files
from greenroom.serve import serve

app = AgentApp("benchmark")


@app.query()
async def answer(request: AgentRequest) -> AsyncIterator[str]:
    part = request.input[0].content[0]
    assert isinstance(part, Text)
    plan = plan_of(part.text)
    if not plan.pause:
        for _ in range(plan.deltas):
            yield DELTA
        return
    yield DELTA
    for _ in range(plan.deltas - 1):
        await asyncio.sleep(plan.pause)
        yield DELTA


@app.endpoint("/cpu", methods=["GET"])
async def cpu() -> float:
    return cpu_seconds()


@app.endpoint("/memory", methods=["GET"])
async def resident() -> int:
    return memory()


def _say_port(url: str) -> None:
    print(url.rpartition(":")[2], flush=True)


async def main() -> None:
    """As `app.run()` does it, which ends on a signal; this ends with its parent."""
    serving = asyncio.ensure_future(serve(app, port=0, owns_process=True, started=_say_port))
    await input_ended()
    os.kill(os.getpid(), signal.SIGTERM)
    await serving


if __name__ == "__main__":
    if len(sys.argv) > 1:
        pin(int(sys.argv[1]))
    raise_open_files()
    logging.disable()  # thousands of streams that begin at once do block the loop, and the watchdog says so
    asyncio.run(main())
