"""What it is compared with: a bare aiohttp handler that writes the same bytes, one `write` an event.

`python -m benchmarks.bare RECORDINGS [CORE]` says its port and serves until its input ends. It answers a request with
the recording for that very body: it parses nothing, makes no ids and keeps nothing.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from aiohttp import web

from benchmarks.own_process import cpu_seconds, input_ended, memory, pin
from benchmarks.plans import PROTOCOLS, Recording
from greenroom.open_files import raise_open_files

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Script:
    """A recording made ready: the frames that leave together, with a pause before each later lot."""

    def __init__(self, recording: Recording) -> None:
        self.headers = recording.headers
        self.pause = recording.plan.pause
        self.lots: list[list[bytes]] = [[]]
        mark, deltas = recording.plan.protocol.delta, 0
        for frame in recording.frames:
            deltas += mark in frame
            if self.pause and deltas > 1 and mark in frame:
                self.lots.append([])
            self.lots[-1].append(frame.encode())


def handler(scripts: dict[bytes, Script]) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        script = scripts[await request.read()]
        response = web.StreamResponse(headers=script.headers)
        response.enable_chunked_encoding()
        await response.prepare(request)
        for number, lot in enumerate(script.lots):
            if number:
                await asyncio.sleep(script.pause)
            for frame in lot:
                await response.write(frame)
        return response

    return answer


async def cpu(_: web.Request) -> web.StreamResponse:
    return web.json_response(cpu_seconds())


async def resident(_: web.Request) -> web.StreamResponse:
    return web.json_response(memory())


async def main(recordings: list[Recording]) -> None:
    scripts = {recording.plan.body: Script(recording) for recording in recordings}
    app = web.Application()
    answer = handler(scripts)
    app.add_routes([web.post(protocol.path, answer) for protocol in PROTOCOLS.values()])
    app.add_routes([web.get("/cpu", cpu), web.get("/memory", resident)])
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(runner.addresses[0][1], flush=True)
    await input_ended()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        pin(int(sys.argv[2]))
    raise_open_files()
    raw = Path(sys.argv[1]).read_bytes()
    asyncio.run(main(msgspec.json.decode(raw, type=list[Recording])))
