"""The client of one box: calls its tools, reads and writes its files, looks into it.

A box is not trusted. Its answers are bounded, it is not followed anywhere (redirects, compression, cookies), and its
socket is connected to by the very file that was looked at: who lives in the box could put a link to a socket of the
host's in its place.
"""

from __future__ import annotations

import io
import os
import secrets
import stat
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import anyio
from anyio import to_thread

from greenroom.actors.errors import SandboxError, SandboxLost, SandboxTimeout, SandboxUnavailable
from greenroom.sandbox import wire
from greenroom.sandbox.backend import BoxAddress
from greenroom.sandbox.result import ToolResult
from greenroom.sandbox.wire import Entry

MIB: Final = 1024 * 1024

ANSWER_BYTES: Final = 64 * MIB
"""The longest answer that is read: a full-page screenshot may have 10 MiB."""

GRACE_SECONDS: Final = 5.0
"""A tool that takes too long is stopped in the box, which then says what there was; only a box that does not even do
that is given up, so much later."""

FILE_SECONDS: Final = 60.0
"""How long an operation on files may take."""

WAIT_SECONDS: Final = 0.02
"""Between two attempts to reach a box that is starting."""

MESSAGE_BYTES: Final = 16 * MIB
"""The longest message of a live view: one picture."""


class BoxClient:
    """Speaks to the tool server at an address. Its methods may be called concurrently, on one event loop.

    All raise `SandboxLost` when the box cannot be reached or ends under way, and `SandboxError` when it answers what is
    not its protocol. A request that was sent is never sent again.
    """

    def __init__(self, address: BoxAddress) -> None:
        self.address = address
        self._session: aiohttp.ClientSession | None = None
        self._held: int | None = None  # the socket's file; connections go by it and not by its name

    def __repr__(self) -> str:
        return f"<BoxClient of {self.address!r}>"

    async def ready(self, seconds: float, *, warm: bool = False) -> None:
        """Wait until the box answers; `warm`: until its browser is up too (calls wait for it by themselves).

        Raises `SandboxTimeout` when it does not in time, `SandboxUnavailable` when it says that it cannot work.
        """
        with anyio.move_on_after(seconds):
            while True:
                try:
                    wire.healthy(*await self._exchange(wire.health(warm=warm)))
                    return
                except SandboxLost:
                    await self.close()  # what it made is not yet there, or not yet listened to
                await anyio.sleep(WAIT_SECONDS)
        raise SandboxTimeout(f"the sandbox did not answer within {seconds:g} s of its start")

    async def healthy(self, seconds: float) -> bool:
        """Whether the box answers within that time that it can work."""
        with anyio.move_on_after(seconds):
            try:
                wire.healthy(*await self._exchange(wire.health()))
                return True
            except SandboxError:
                return False
        return False

    async def call(self, tool: str, arguments: Mapping[str, Any], seconds: float) -> ToolResult:
        """Run a tool for so long at most. Cancelling the call ends what it runs in the box.

        Raises `SandboxTimeout` when the box itself did not say in time how it went.
        """
        return wire.tool_result(*await self._answer(wire.call(tool, arguments, seconds), seconds, tool))

    async def tools(self) -> dict[str, dict[str, Any]]:
        """The box's own list of tools: `{server: {tool: {"name", "json_schema"}}}`."""
        return wire.tool_list(*await self._answer(wire.tools(), FILE_SECONDS))

    async def reset(self) -> None:
        """Make the box as it was at its start: pages, files, variables and processes are gone. Ours only."""
        wire.done(*await self._answer(wire.reset(), FILE_SECONDS))

    # ------------------------------------------------------------------------------------------------- workspace
    # Paths are relative to /workspace, or absolute and inside. All raise `SandboxFileError`, and
    # `SandboxFileNotFound` where something must be there.

    async def read(self, path: str) -> bytes:
        """A file's bytes."""
        return wire.file_bytes(*await self._answer(wire.read(path), FILE_SECONDS))

    async def write(self, path: str, data: bytes) -> Entry:
        """Make a file, or replace what is in it; folders above it are made."""
        return wire.entry(*await self._answer(wire.write(path, data), FILE_SECONDS))

    async def write_many(self, files: Mapping[str, bytes]) -> Sequence[Entry]:
        """Write files by path."""
        if not files:
            return []
        return wire.entries(*await self._answer(wire.write_many(files, secrets.token_hex(16)), FILE_SECONDS))

    async def list(self, path: str = ".", depth: int = 1) -> Sequence[Entry]:
        """What is in a folder, and in its folders down to `depth` (1: its own entries)."""
        return wire.entries(*await self._answer(wire.list_folder(path, depth), FILE_SECONDS))

    async def exists(self, path: str) -> bool:
        """Whether there is something at the path."""
        return wire.flag(*await self._answer(wire.exists(path), FILE_SECONDS), "exists")

    async def remove(self, path: str) -> None:
        """Remove a file, or a folder with all that is in it. One that is not there is fine."""
        wire.done(*await self._answer(wire.remove(path), FILE_SECONDS))

    async def move(self, source: str, destination: str) -> Entry:
        """Give a file or folder another path; a file that is there is replaced."""
        return wire.entry(*await self._answer(wire.move(source, destination), FILE_SECONDS))

    async def mkdir(self, path: str) -> bool:
        """Make a folder and those above it. False: it was there."""
        return wire.flag(*await self._answer(wire.make_folder(path), FILE_SECONDS), "created")

    # ----------------------------------------------------------------------------------------------- looking in

    @asynccontextmanager
    async def live(self, *, input: bool = False) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """The browser's live view: binary messages are JPEG frames, texts are JSON. `input`: what is sent is done.

        Raises `SandboxUnavailable` when there is none: a box without a browser, or the official image.
        """
        session = await self._connected()
        try:
            with _as_lost():
                websocket = await session.ws_connect(
                    self.address.url + "/live",
                    params={"input": "1"} if input else None,
                    max_msg_size=MESSAGE_BYTES,
                )
        except SandboxLost as lost:
            if isinstance(lost.__cause__, aiohttp.WSServerHandshakeError):
                status = lost.__cause__.status
                raise SandboxUnavailable(f"the sandbox has no live view (it answered {status})") from None
            raise
        try:
            yield websocket
        finally:
            await websocket.close()

    async def close(self) -> None:
        """Let go of all connections; calls under way end with `SandboxLost`. A later call connects anew."""
        session, self._session = self._session, None
        held, self._held = self._held, None
        if session is not None:
            await session.close()
        if held is not None:
            os.close(held)

    # -------------------------------------------------------------------------------------------------- carrying

    async def _answer(
        self, request: wire.Request, seconds: float, what: str | None = None
    ) -> tuple[int, bytes]:
        with anyio.move_on_after(seconds + GRACE_SECONDS):
            return await self._exchange(request)
        raise SandboxTimeout(
            f"the sandbox did not answer {what or request.path} within {seconds:g} s and {GRACE_SECONDS:g} s more to "
            "stop it; whether it was carried out is unknown"
        )

    async def _exchange(self, request: wire.Request) -> tuple[int, bytes]:
        session = await self._connected()
        with _as_lost():
            async with session.request(
                request.method,
                self.address.url + request.path,
                params=request.query,
                headers=request.headers,
                # As a stream: a long text at once would hold up the loop.
                data=None if request.body is None else io.BytesIO(request.body),
                allow_redirects=False,
            ) as response:
                return response.status, await _bounded(response)

    async def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            held = None if self.address.socket is None else await _socket_file(self.address.socket)
            if self._session is not None:  # another call was faster
                if held is not None:
                    os.close(held)
                return self._session
            self._held = held
            self._session = _new_session(self.address.token, held)
        return self._session


def _new_session(token: str, held: int | None) -> aiohttp.ClientSession:
    connector: aiohttp.BaseConnector
    if held is None:
        connector = aiohttp.TCPConnector(limit=0)
    else:
        connector = aiohttp.UnixConnector(f"/proc/self/fd/{held}", limit=0)
    return aiohttp.ClientSession(
        connector=connector,
        headers={"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
    )


async def _socket_file(path: Path) -> int:
    """A handle on the socket itself, whatever its name leads to later.

    Raises `SandboxLost` when it is not there, `SandboxUnavailable` when something else is.
    """
    try:
        return await to_thread.run_sync(_open_socket, path)
    except FileNotFoundError as error:
        raise SandboxLost(f"the sandbox's socket is not there ({error.filename}): it has ended") from None


def _open_socket(path: Path) -> int:
    # O_PATH opens nothing: it only holds on to what is there, be it a link, a pipe or a device.
    held = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    if not stat.S_ISSOCK(os.fstat(held).st_mode):
        os.close(held)
        raise SandboxUnavailable(
            f"{path} is no socket: somebody in the sandbox put something else there; the sandbox is not used any more"
        )
    return held


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    received = bytearray()
    async for piece in response.content.iter_any():
        received += piece
        if len(received) > ANSWER_BYTES:
            raise SandboxError(
                f"the sandbox's answer is longer than {ANSWER_BYTES // MIB} MiB and was not read to its end; ask for "
                "less at once"
            )
    return bytes(received)


@contextmanager
def _as_lost() -> Iterator[None]:
    """Errors of the carrier become ours."""
    try:
        yield
    except (aiohttp.ClientError, OSError) as error:
        raise SandboxLost(
            f"the sandbox ended or cannot be reached ({type(error).__name__}: {error}); what it held (pages, logins, "
            "files) is gone"
        ) from error
