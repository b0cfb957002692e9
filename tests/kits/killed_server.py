"""A process with sandboxes in use, to be killed: sessions that browse all the time, come and go. Run as a script.

`python -m kits.killed_server SETTINGS`, SETTINGS as JSON. It prints `started`, then a line for each answer of a box.
"""

from __future__ import annotations

import asyncio
import sys

import anyio
import msgspec

from greenroom.actors.errors import SandboxError
from greenroom.sandbox.backend import BoxKind
from greenroom.sandbox.choose import choose_backend
from greenroom.sandbox.keeper import Keeper
from greenroom.sandbox.leases import LeaseKey
from greenroom.sandbox.settings import SandboxSettings

KINDS: tuple[BoxKind, ...] = ("base", "base", "browser")
COMMAND = "setsid nohup sleep 600 >/dev/null 2>&1 & echo here"
"""What it leaves running does its best to stay."""


async def main(settings: SandboxSettings) -> None:
    """Serve until killed."""
    keeper = Keeper(await choose_backend(settings), settings)
    await keeper.start()
    print("started", flush=True)  # noqa: T201
    async with anyio.create_task_group() as group:
        for number, kind in enumerate(KINDS):
            group.start_soon(session, keeper, LeaseKey("u", str(number), kind))


async def session(keeper: Keeper, key: LeaseKey) -> None:
    """Use a box; every now and then release it, so that a kill may meet any moment of its life."""
    while True:
        for _ in range(5):
            try:
                answer = await keeper.call(key, "run_shell_command", {"command": COMMAND})
            except SandboxError as error:
                print("refused", key.session_id, error, flush=True)  # noqa: T201
                await anyio.sleep(0.1)
            else:
                print("answered", key.session_id, answer.part("stdout").strip(), flush=True)  # noqa: T201
        if key.kind == "base":
            await keeper.release(key)


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=SandboxSettings)))
