"""The routes below `/fastapi/workspace`: files in and out."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Final

from aiohttp import BodyPartReader, web

from greenroom.sandbox.image.refusals import Refused, json_of
from greenroom.sandbox.image.workspace import Names, OutsideWorkspace, TooMany, Workspace

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PIECE: Final = 256 * 1024
FILE_BYTES: Final = 256 * 1024 * 1024
"""The longest file that goes in or out at once."""
FILES: Final = 1000
"""How many go in at once."""
PATH_BYTES: Final = 4096


class TooLarge(Exception):
    """A file, or all of a form, is over its bound."""


class WorkspaceRoutes:
    """Handlers of one workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        handlers: list[tuple[str, str, Handler]] = [
            ("GET", "/file", self.read),
            ("PUT", "/file", self.write),
            ("GET", "/list", self.list),
            ("GET", "/exists", self.exists),
            ("DELETE", "/entry", self.remove),
            ("POST", "/move", self.move),
            ("POST", "/mkdir", self.make_folder),
            ("POST", "/files:batch", self.write_many),
        ]
        return [
            web.route(method, "/fastapi/workspace" + path, _answering(handler))
            for method, path, handler in handlers
        ]

    async def read(self, request: web.Request) -> web.StreamResponse:
        """A file's bytes; `format=text` says only what they are called."""
        names = self._names(request.query.get("path"))
        file, size = await asyncio.to_thread(self._workspace.open_file, names)
        try:
            if size > FILE_BYTES:
                raise TooLarge(f"the file has {size} bytes, more than the {FILE_BYTES} that go out at once")
            as_text = request.query.get("format", "text") == "text"
            response = web.StreamResponse()
            response.content_type = "text/plain" if as_text else "application/octet-stream"
            if as_text:
                response.charset = "utf-8"
            await response.prepare(request)
            sent = 0
            while sent < FILE_BYTES and (piece := await asyncio.to_thread(file.read, PIECE)):
                await response.write(piece)
                sent += len(piece)
            await response.write_eof()
            return response
        finally:
            file.close()

    async def write(self, request: web.Request) -> web.StreamResponse:
        """The body becomes the file."""
        names = self._names(request.query.get("path"))
        await self._received(names, request.content.iter_chunked(PIECE), FILE_BYTES)
        return await self._entry(names)

    async def write_many(self, request: web.Request) -> web.StreamResponse:
        """A form: `paths` and `files`, as many of the one as of the other, each path before its file or all before all
        files; a file without a path is named by its part's file name."""
        paths: list[str] = []
        written: list[Names] = []
        room = FILE_BYTES
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                raise Refused(400, "a form within the form")
            if part.name == "paths":
                paths.append((await part.read_chunk(PATH_BYTES)).decode())
            elif part.name == "files":
                given = paths[len(written)] if len(written) < len(paths) else part.filename
                names = self._names(given)
                room -= await self._received(names, _pieces(part), room)
                written.append(names)
            if max(len(paths), len(written)) > FILES:
                raise TooLarge(f"more than {FILES} files at once")
        if paths and len(paths) != len(written):
            raise ValueError(f"{len(paths)} paths for {len(written)} files")
        entries = [await asyncio.to_thread(self._workspace.entry, names) for names in written]
        return web.json_response(entries)

    async def _received(self, names: Names, pieces: Any, most: int) -> int:
        """Write what comes; how much it was. What breaks off under way leaves the old file."""
        size = 0
        replacing = self._workspace.replacing(names)
        file: BinaryIO = await asyncio.to_thread(replacing.__enter__)
        try:
            async for piece in pieces:
                size += len(piece)
                if size > most:
                    raise TooLarge(f"more than the {most} bytes that go in at once")
                await asyncio.to_thread(file.write, piece)
        except BaseException as error:
            # To its end, also when cancelled: the part that was written is removed.
            await asyncio.shield(
                asyncio.to_thread(replacing.__exit__, type(error), error, error.__traceback__)
            )
            raise
        await asyncio.to_thread(replacing.__exit__, None, None, None)
        return size

    async def list(self, request: web.Request) -> web.StreamResponse:
        """What is in a folder."""
        depth = request.query.get("depth", "1")
        if not depth.isdecimal() or int(depth) < 1:
            raise ValueError("depth is a number from 1 on")
        names = self._names(request.query.get("path"))
        return web.json_response(await asyncio.to_thread(self._workspace.entries, names, int(depth)))

    async def exists(self, request: web.Request) -> web.StreamResponse:
        """Whether there is something."""
        names = self._names(request.query.get("path"))
        return web.json_response({"exists": await asyncio.to_thread(self._workspace.exists, names)})

    async def remove(self, request: web.Request) -> web.StreamResponse:
        """It is gone."""
        await asyncio.to_thread(self._workspace.remove, self._names(request.query.get("path")))
        return web.Response(status=204)

    async def move(self, request: web.Request) -> web.StreamResponse:
        """It has another path."""
        body = await json_of(request)
        source, destination = self._names(body.get("source")), self._names(body.get("destination"))
        await asyncio.to_thread(self._workspace.move, source, destination)
        return await self._entry(destination)

    async def make_folder(self, request: web.Request) -> web.StreamResponse:
        """It is there."""
        names = self._names((await json_of(request)).get("path"))
        return web.json_response({"created": await asyncio.to_thread(self._workspace.make_folder, names)})

    async def _entry(self, names: Names) -> web.StreamResponse:
        return web.json_response(await asyncio.to_thread(self._workspace.entry, names))

    def _names(self, path: object) -> Names:
        if not isinstance(path, str):
            raise ValueError("path is missing")  # noqa: TRY004 (what the caller sent, not what a function was given)
        return self._workspace.names(path)


async def _pieces(part: BodyPartReader) -> Any:
    while piece := await part.read_chunk(PIECE):
        yield piece


def _answering(handler: Handler) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        with _refused():
            return await handler(request)

    return answer


@contextmanager
def _refused() -> Iterator[None]:
    """What went wrong, as the statuses of the protocol."""
    try:
        yield
    except OutsideWorkspace as error:
        raise Refused(403, str(error)) from None
    except (TooLarge, TooMany) as error:
        raise Refused(413, str(error)) from None
    except ValueError as error:
        raise Refused(400, str(error)) from None
    except ConnectionError:
        raise  # the client's going, no file's fault
    except OSError as error:
        status, meaning = _MEANINGS.get(error.errno or 0, (409, error.strerror))
        raise Refused(status, f"workspace: {meaning or error.strerror}") from None


_LINK: Final = "a part of the path is no folder, or a link, and links are not followed"
_FULL: Final = "it is full: remove what is not needed"
_MEANINGS: Final[dict[int, tuple[int, str | None]]] = {
    errno.ENOENT: (404, "not found"),
    errno.ENOTDIR: (409, _LINK),
    errno.ELOOP: (403, "it is a link, and links are not followed"),
    errno.EACCES: (403, None),
    errno.EPERM: (403, None),
    errno.EROFS: (403, None),
    errno.ENXIO: (403, "it is no ordinary file"),
    errno.ENAMETOOLONG: (400, "a name in the path is too long"),
    errno.ENOSPC: (507, _FULL),
    errno.EDQUOT: (507, _FULL),
    errno.EINVAL: (409, "a folder cannot be moved into itself"),
    errno.ENOTEMPTY: (409, "the destination is a folder that is not empty"),
}
