"""A process that commits to a SQLite file: to be killed, to share the file, to fill the disk. Run as a script.

`python -m kits.committing PATH SESSIONS TURNS NAME`: each of SESSIONS sessions commits TURNS turns, all at once. It
prints `started`, `kept SESSION TURN` after each commit that returned, and `refused CODE MESSAGE` when one was refused;
then `whole SESSION TURN` for each session that is found to be whole, with its newest turn.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from greenroom.actors.errors import StoreUnavailable
from greenroom.actors.messages import SessionKey
from greenroom.services.sqlite.store import SqliteStore
from greenroom.services.store import SessionRecord, SessionStore, TurnCommit
from kits.store_kit import record

PADDING = b"." * 20_000
"""States are of several pages, so that one which is there in part would show."""


async def main(path: str, sessions: int, turns: int, name: str) -> None:
    """Commit, and say what was kept."""
    store = SqliteStore(path)
    try:
        await store.start()
    except StoreUnavailable as error:
        print("refused", error.code, error)  # noqa: T201
        return
    print("started", flush=True)  # noqa: T201
    keys = [SessionKey("u", f"{name}{number}") for number in range(sessions)]
    try:
        async with anyio.create_task_group() as group:
            for key in keys:
                group.start_soon(session, store, key, turns)
    except* StoreUnavailable as errors:
        print("refused", StoreUnavailable.code, errors.exceptions[0])  # noqa: T201
        for kept in [await store.load(key) for key in keys]:
            if kept is not None and is_whole(kept):
                print("whole", kept.key.session_id, kept.revision)  # noqa: T201
    finally:
        await store.stop()


async def session(store: SessionStore, key: SessionKey, turns: int) -> None:
    """Go on from where the session is."""
    there = await store.load(key)
    first = there.revision + 1 if there else 1
    for turn in range(first, first + turns):
        await store.commit(key, turn_of(turn))
        print("kept", key.session_id, turn, flush=True)  # noqa: T201


def turn_of(number: int) -> TurnCommit:
    """A turn whose number can be read from its record and from its state."""
    return TurnCommit(record(number), b"%d" % number + PADDING)


def is_whole(kept: SessionRecord) -> bool:
    """Whether it has its turns without gaps up to the newest, and the state of that."""
    newest = kept.revision
    numbers = [turn.turn_id for turn in kept.turns]
    wanted = [f"turn-{number}" for number in range(newest - len(numbers) + 1, newest + 1)]
    return numbers == wanted and kept.state == turn_of(newest).state


@asynccontextmanager
async def committing(
    path: Path, sessions: int, turns: int, name: str = "", prefix: Sequence[str] = ()
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Such a process. It is killed at the end of the block. `prefix`: a command that runs it."""
    async with running(
        "kits.committing", str(path), str(sessions), str(turns), name, prefix=prefix
    ) as process:
        yield process


@asynccontextmanager
async def running(
    module: str, *arguments: str, prefix: Sequence[str] = ()
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that runs a module of the kits, whose output can be read. It is killed at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *prefix,
        *(sys.executable, "-m", module, *arguments),
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


async def said(process: asyncio.subprocess.Process, lines: int | None = None) -> list[str]:
    """What it says: so many lines, or all there are until its end."""
    assert process.stdout is not None
    heard: list[str] = []
    with anyio.fail_after(60):
        while lines is None or len(heard) < lines:
            line = (await process.stdout.readline()).decode()
            if not line.endswith("\n"):
                break  # the end, or the beginning of a line that a killed process did not finish
            heard.append(line.strip())
    return heard


def newest_kept(lines: Sequence[str]) -> dict[str, int]:
    """By session, the newest turn whose commit returned."""
    newest: dict[str, int] = defaultdict(int)
    for line in lines:
        if line.startswith("kept "):
            _, name, turn = line.split()
            newest[name] = max(newest[name], int(turn))
    return newest


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
