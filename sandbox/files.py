"""The files of a sandbox's workspace, as its object's `fs`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias, cast

from anyio import to_thread
from msgspec import structs

from greenroom.sandbox.calling import CallQueue

if TYPE_CHECKING:
    from greenroom.sandbox.client import BoxClient

Data: TypeAlias = str | bytes | bytearray | IO[bytes]
"""What a file is written from: text (as UTF-8), bytes, or a binary file that is open."""


class Files:
    """Files of the workspace: the folder that the tools of a sandbox run in, see and leave files in.

    Paths are relative to it, or absolute (`/workspace/…`); they cannot lead out of it. Its methods are called as the
    tools are: in asyncio each is awaited. All raise `SandboxFileError`, and `SandboxFileNotFound` where something must
    be there. Entries are dicts: `path`, `name`, `type` (`file`, `dir`, `symlink`, `other`), `size` (bytes), `mtime_ms`.
    """

    def __init__(
        self, calls: CallQueue, client: Callable[[], AbstractAsyncContextManager[BoxClient]]
    ) -> None:
        self._calls = calls
        self._client = client

    def __repr__(self) -> str:
        return "<Files of a sandbox's workspace>"

    def read(self, path: str, fmt: Literal["text", "bytes"] = "text") -> Any:
        """What is in a file: `str`, of UTF-8 text; with `fmt="bytes"` its `bytes`."""
        if fmt not in {"text", "bytes"}:
            raise ValueError(f'fmt={fmt!r} is neither "text" nor "bytes"')

        async def read(client: BoxClient) -> str | bytes:
            data = await client.read(path)
            return data.decode() if fmt == "text" else data

        return self._done("read", read)

    def write(self, path: str, data: Data, *, content_type: str = "application/octet-stream") -> Any:
        """Make a file, or replace what is in it; folders above it are made. Gives its entry."""
        del content_type  # as AgentScope Runtime has it; it changes nothing there either

        async def write(client: BoxClient) -> dict[str, Any]:
            return structs.asdict(await client.write(path, await _bytes_of(data)))

        return self._done("write", write)

    def write_many(self, files: Mapping[str, Data] | Iterable[Mapping[str, Any]]) -> Any:
        """Write several files: data by path, or `{"path": …, "data": …}` each. Gives their entries."""
        given: Mapping[str, Any] = (
            cast("Mapping[str, Any]", files)
            if isinstance(files, Mapping)
            else {file["path"]: file["data"] for file in files}
        )

        async def write_many(client: BoxClient) -> list[dict[str, Any]]:
            written = await client.write_many({path: await _bytes_of(data) for path, data in given.items()})
            return [structs.asdict(entry) for entry in written]

        return self._done("write_many", write_many)

    def write_from_path(
        self, workspace_path: str, local_path: str | Path, *, content_type: str = "application/octet-stream"
    ) -> Any:
        """Copy a file of this machine into the workspace. Gives its entry."""
        del content_type

        async def write_from_path(client: BoxClient) -> dict[str, Any]:
            data = await to_thread.run_sync(Path(local_path).read_bytes)
            return structs.asdict(await client.write(workspace_path, data))

        return self._done("write_from_path", write_from_path)

    def list(self, path: str = ".", depth: int | None = 1) -> Any:
        """The entries of a folder, and of its folders down to `depth` (1: its own)."""

        async def entries(client: BoxClient) -> list[dict[str, Any]]:
            return [structs.asdict(entry) for entry in await client.list(path, depth or 1)]

        return self._done("list", entries)

    def exists(self, path: str) -> Any:
        """Whether there is something at the path."""
        return self._done("exists", lambda client: client.exists(path))

    def remove(self, path: str) -> Any:
        """Remove a file, or a folder with all that is in it. One that is not there is fine."""
        return self._done("remove", lambda client: client.remove(path))

    def move(self, source: str, destination: str) -> Any:
        """Give a file or folder another path; a file that is there is replaced. Gives its entry."""

        async def move(client: BoxClient) -> dict[str, Any]:
            return structs.asdict(await client.move(source, destination))

        return self._done("move", move)

    def mkdir(self, path: str) -> Any:
        """Make a folder and those above it. False: it was there."""
        return self._done("mkdir", lambda client: client.mkdir(path))

    # Names of AgentScope Runtime's asynchronous twin.
    read_async, write_async, write_from_path_async, write_many_async = (
        read,
        write,
        write_from_path,
        write_many,
    )
    exists_async, remove_async, move_async, mkdir_async = exists, remove, move, mkdir

    def list_async(self, path: str = ".", depth: int | None = 1) -> Any:
        """`list`, by another name."""
        return self.list(path, depth)

    def _done(self, name: str, work: Callable[[BoxClient], Awaitable[Any]]) -> Any:
        async def with_client() -> Any:
            async with self._client() as client:
                return await work(client)

        return self._calls.call(f"fs.{name}", with_client)


async def _bytes_of(data: Data) -> bytes:
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, bytes | bytearray):
        return bytes(data)
    return await to_thread.run_sync(data.read)
