"""A process that writes to a SQLite file's folders: to be killed, to share the file, to fill the disk. Run as a script.

`python -m kits.writing PATH PAIRS WRITES OWNER`: each of PAIRS pairs of folders is written WRITES times, all at once,
one write changing both and naming itself. Who finds that another wrote meanwhile writes again. It prints `started`,
`wrote PAIR NUMBER` after each write that returned, and `refused CODE MESSAGE` when one was.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from greenroom.actors.errors import StoreUnavailable
from greenroom.services.sqlite.storage import SqliteStorage
from greenroom.services.storage import NOT_THERE, Cell, Change, Conflict, FolderKey, Named, Span
from kits.committing import running

PADDING = b"." * 20_000
"""Values are of several pages, so that one which is there in part would show."""
LEASE = 0.5
"""How long an owner lives, seconds."""


async def main(path: str, pairs: int, writes: int, owner: str) -> None:
    """Write, and say what was written."""
    storage = SqliteStorage(path)
    try:
        await storage.start()
        await storage.renew(owner, LEASE)
    except StoreUnavailable as error:
        print("refused", error.code, error)  # noqa: T201
        return
    print("started", flush=True)  # noqa: T201
    try:
        async with anyio.create_task_group() as group:
            for pair in range(pairs):
                group.start_soon(write_pair, storage, pair, writes, owner)
    except* StoreUnavailable as errors:
        print("refused", StoreUnavailable.code, errors.exceptions[0])  # noqa: T201
    finally:
        await storage.stop()


async def write_pair(storage: SqliteStorage, pair: int, writes: int, owner: str) -> None:
    """Write the pair so many times, each time going on from how it stands."""
    for _ in range(writes):
        while True:
            before = await storage.read(keys_of(pair)[0])
            number = 1 if before is None else int(before.head.body) + 1
            fence = NOT_THERE if before is None else before.head.fence
            one, other = (
                Change(
                    key=key,
                    expected=fence if key == keys_of(pair)[0] else None,
                    take=True,
                    owner=owner,
                    open=True,
                    head=b"%d" % number,
                    put=[(Cell("value", number % 5), b"%d" % number + PADDING)],
                    drop=[Cell("value", (number + 1) % 5)],
                    names=[(b"%d:%d:%d" % (pair, number, which), b"%d" % number)],
                )
                for which, key in enumerate(keys_of(pair))
            )
            try:
                await storage.write([one, other])
                break
            except Conflict:
                continue
        print("wrote", pair, number, flush=True)  # noqa: T201


def keys_of(pair: int) -> tuple[FolderKey, FolderKey]:
    """The two folders of a pair."""
    return FolderKey("one", "u", str(pair)), FolderKey("other", "u", str(pair))


async def number_of(storage: SqliteStorage, pair: int) -> int:
    """The number of writes that the pair has, once it was found to be whole: all of them, of both folders."""
    found = [await storage.read(key, [Span("value")]) for key in keys_of(pair)]
    assert (found[0] is None) == (found[1] is None)
    if found[0] is None:
        return 0
    number = int(found[0].head.body)
    newest = range(max(1, number - 3), number + 1)
    values = sorted((one % 5, b"%d" % one + PADDING) for one in newest)
    for which, (folder, key) in enumerate(zip(found, keys_of(pair), strict=True)):
        assert folder is not None
        assert folder.head.body == b"%d" % number
        assert folder.head.open
        assert folder.spans[0] == tuple(values)
        for one in (1, number):
            assert await storage.lookup(b"%d:%d:%d" % (pair, one, which)) == Named(key, b"%d" % one)
        assert await storage.lookup(b"%d:%d:%d" % (pair, number + 1, which)) is None
    return number


@asynccontextmanager
async def writing(
    path: Path, pairs: int, writes: int, owner: str, prefix: Sequence[str] = ()
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Such a process. It is killed at the end of the block. `prefix`: a command that runs it."""
    async with running("kits.writing", str(path), str(pairs), str(writes), owner, prefix=prefix) as process:
        yield process


def newest_wrote(lines: Sequence[str]) -> dict[int, int]:
    """By pair, the newest write that returned."""
    newest: dict[int, int] = {}
    for line in lines:
        if line.startswith("wrote "):
            _, pair, number = line.split()
            newest[int(pair)] = max(newest.get(int(pair), 0), int(number))
    return newest


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
