"""The scripted model in a process of its own, where it does not share a loop with what is measured."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

PROGRAM = Path(__file__).with_name("scripted_model.py")


class ChildModel(msgspec.Struct, frozen=True):
    """Where the child listens: `url` (`/stats` there tells the counts) and `base_url`, for OpenAI clients."""

    url: str
    base_url: str
    pid: int


@asynccontextmanager
async def child_model(*options: str) -> AsyncIterator[ChildModel]:
    """Run `scripted_model.py` with these options until the block ends; it also ends when this process dies.

    Raises RuntimeError when it does not start; why is on standard error.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(PROGRAM),
        "--with-parent",
        *options,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = await process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"The scripted model did not start with {options}: see its message on standard error."
            )
        yield msgspec.json.decode(line, type=ChildModel)
    finally:
        process.stdin.close()
        await process.wait()
