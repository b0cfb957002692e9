"""The server that is measured: `python -m benchmarks.serve_target [CORE]` says its port and serves until its input ends."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

from benchmarks.own_process import cpu_seconds, input_ended, memory, pin, raise_open_files
from benchmarks.plans import DELTA, plan_of
from greenroom import AgentApp, AgentRequest, AiohttpServer, Text

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


async def main() -> None:
    server = AiohttpServer(port=0)
    await app.start(server)
    print(server.port, flush=True)
    await input_ended()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        pin(int(sys.argv[1]))
    raise_open_files()
    asyncio.run(main())
