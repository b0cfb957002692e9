"""One engine that speaks Docker's API, Docker or Podman: where it is, what it can do, and what is asked of it.

aiodocker opens the connection and knows the API's version; the requests are made here, because boxes need some that it
does not have (builds with a network, imports), and one way of telling errors apart.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import msgspec
from anyio import to_thread
from msgspec import Struct

from greenroom.actors.errors import SandboxUnavailable

if TYPE_CHECKING:
    from aiodocker import Docker
    from aiohttp import ClientResponse

ANSWER_SECONDS: Final = 60.0
"""How long an engine may take for one request. Under load, starting a container has taken 10 s."""

FRAME_BYTES: Final = 8
PIECE_BYTES: Final = 1024 * 1024

HOW_TO_GET_ONE: Final = (
    "install Docker (on Debian or Ubuntu: apt-get install docker.io) or Podman (apt-get install podman, then "
    "`systemctl --user start podman.socket`), or name the engine's socket in DOCKER_HOST; without an engine the local "
    "backend isolates boxes with bubblewrap"
)


class EngineError(Exception):
    """The engine refused. `status`: HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class EngineFacts(Struct, frozen=True, kw_only=True):
    """What an engine says of itself. `machine`: as wheels call it. `kernel`: of its machine."""

    name: str
    version: str
    machine: str
    podman: bool
    rootless: bool
    kernel: str


class Engine:
    """A connection to one engine. `url`: `unix:///…` or `tcp://…`. Made and used on one event loop."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._docker: Docker | None = None
        self._facts: EngineFacts | None = None

    def __repr__(self) -> str:
        return f"<Engine {self.url}>"

    async def open(self) -> EngineFacts:
        """Connect, and ask what it is. Doing it twice is fine. Raises `SandboxUnavailable` when it does not answer."""
        if self._facts is not None:
            return self._facts
        await to_thread.run_sync(import_module, "aiodocker")  # a first import reads for a while
        from aiodocker import Docker

        docker = Docker(self.url)
        try:
            with anyio.fail_after(ANSWER_SECONDS):
                version = await docker.version()
                self._docker = docker
                info = await self.json("GET", "info")
        except BaseException as error:
            self._docker = None
            with anyio.CancelScope(shield=True):
                await docker.close()
            if isinstance(error, (*_connection_errors(), EngineError)):
                raise SandboxUnavailable(
                    f"the engine at {self.url} does not answer: {error}; is it running, and may this user talk to it? "
                    f"Otherwise {HOW_TO_GET_ONE}"
                ) from error
            raise
        self._facts = _facts(version, info)
        return self._facts

    async def close(self) -> None:
        """Let go of the connection. Doing it twice is fine."""
        docker, self._docker, self._facts = self._docker, None, None
        if docker is not None:
            await docker.close()

    async def json(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
    ) -> Any:
        """One request; the answer, None when there is none to read. Raises `EngineError`, `SandboxUnavailable`."""
        raw = await self._read(method, path, params=params, json=body)
        return msgspec.json.decode(raw) if raw.strip() else None

    async def text(self, path: str, params: Mapping[str, str]) -> str:
        """What a container has written, of `…/logs`. Raises `EngineError`."""
        return _unframed(await self._read("GET", path, params=params))

    async def execute(self, container: str, command: Sequence[str]) -> str:
        """Run a command in a container, and wait for its end; what it wrote. Raises `EngineError`."""
        wanted = {"Cmd": list(command), "AttachStdout": True, "AttachStderr": True}
        made = await self.json("POST", f"containers/{container}/exec", wanted)
        begun = {"Detach": False, "Tty": False}
        return _unframed(await self._read("POST", f"exec/{made['Id']}/start", json=begun))

    async def save(self, path: str, target: Path) -> None:
        """Write what is answered to a file: an image, say. Raises `EngineError`."""
        async with self._request("GET", path) as response, await anyio.open_file(target, "wb") as file:
            async for piece in response.content.iter_chunked(PIECE_BYTES):
                await file.write(piece)

    async def stream(
        self,
        path: str,
        *,
        method: str = "POST",
        params: Mapping[str, str] | None = None,
        body: Path | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """A request whose answer is a line of JSON for each step; `body`: a file that is sent.

        Raises `EngineError`, also for a line that tells of one.
        """
        sent = None if body is None else _pieces(body)
        headers = {"Content-Type": "application/x-tar"}
        async with self._request(method, path, params=params, data=sent, headers=headers) as response:
            async for line in _lines(response):
                yield line

    async def has_image(self, name: str) -> bool:
        """Whether the engine has this image."""
        return await self.image(name) is not None

    async def image(self, name: str) -> dict[str, Any] | None:
        """What the engine says of an image; None when it has none of this name."""
        found = await self.find_image(name)
        return None if found is None else found[1]

    async def find_image(self, name: str) -> tuple[str, dict[str, Any]] | None:
        """The image's name as the engine has it, and what it says of it. Podman puts `localhost/` before its own."""
        podman = (await self.open()).podman
        for kept in (name, f"localhost/{name}") if podman else (name,):
            try:
                return kept, await self.json("GET", f"images/{kept}/json")
            except EngineError as error:
                if error.status != 404:
                    raise
        return None

    async def _read(self, method: str, path: str, **options: Any) -> bytes:
        with anyio.move_on_after(ANSWER_SECONDS):
            async with self._request(method, path, **options) as response:
                return await response.read()
        raise SandboxUnavailable(
            f"the engine at {self.url} did not answer within {ANSWER_SECONDS:g} s; is it stuck, or its host overloaded?"
        )

    @asynccontextmanager
    async def _request(self, method: str, path: str, **options: Any) -> AsyncIterator[ClientResponse]:
        if self._docker is None:
            raise SandboxUnavailable("the backend is not started; call start() first")
        from aiohttp import ClientTimeout

        docker = self._docker
        url = f"{docker.docker_host}/{docker.api_version}/{path}"
        try:
            async with docker.session.request(method, url, timeout=ClientTimeout(), **options) as response:
                if response.status >= 400:
                    raise EngineError(response.status, _message(await response.read()))
                yield response
        except _connection_errors() as error:
            raise SandboxUnavailable(f"the engine at {self.url} is gone: {error}; start it again") from error


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    """The file, read off the loop."""
    async with await anyio.open_file(path, "rb") as file:
        while piece := await file.read(PIECE_BYTES):
            yield piece


async def _lines(response: ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async for raw in response.content:
        if not raw.strip():
            continue
        line: dict[str, Any] = msgspec.json.decode(raw)
        if "error" in line:
            raise EngineError(0, str(line["error"]))
        yield line


def _unframed(raw: bytes) -> str:
    """A log's text: engines put eight bytes before each piece, the last four of which are its length."""
    pieces = []
    while len(raw) >= FRAME_BYTES and raw[0] in {0, 1, 2}:
        end = FRAME_BYTES + int.from_bytes(raw[4:FRAME_BYTES], "big")
        pieces.append(raw[FRAME_BYTES:end])
        raw = raw[end:]
    return b"".join([*pieces, raw]).decode(errors="replace")


def _message(raw: bytes) -> str:
    try:
        answer = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return raw.decode(errors="replace").strip()
    said = answer.get("message") or answer.get("cause") if isinstance(answer, dict) else answer
    return str(said)


def _connection_errors() -> tuple[type[Exception], ...]:
    from aiodocker import DockerError
    from aiohttp import ClientConnectionError, ClientPayloadError

    return (DockerError, ClientConnectionError, ClientPayloadError, TimeoutError, OSError)


def _facts(version: Mapping[str, Any], info: Mapping[str, Any]) -> EngineFacts:
    components = [str(part.get("Name", "")) for part in version.get("Components") or ()]
    podman = any("podman" in name.lower() for name in components)
    arch = str(version.get("Arch", ""))
    machines = {"amd64": "x86_64", "arm64": "aarch64"}
    return EngineFacts(
        name="Podman" if podman else "Docker",
        version=str(version.get("Version", "")),
        machine=machines.get(arch, arch),
        podman=podman,
        rootless=any("rootless" in str(option) for option in info.get("SecurityOptions") or ()),
        kernel=str(info.get("KernelVersion") or ""),
    )


def usual_sockets(environ: Mapping[str, str] = os.environ) -> Sequence[Path]:
    """Where Docker and Podman listen when nothing else is said, in the order they are tried."""
    runtime = Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    return (
        Path("/run/docker.sock"),
        Path("/var/run/docker.sock"),
        Path("~/.docker/run/docker.sock").expanduser(),
        runtime / "docker.sock",
        runtime / "podman/podman.sock",
        Path("/run/podman/podman.sock"),
    )


async def engine_url(chosen: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """The engine to use: the chosen one, `DOCKER_HOST`, or the first usual place that has a socket for this user.

    Raises `SandboxUnavailable` when there is none.
    """
    named = chosen or environ.get("DOCKER_HOST")
    if named:
        return named
    places = usual_sockets(environ)
    usable = await anyio.to_thread.run_sync(lambda: [path for path in places if _is_usable(path)])
    if usable:
        return f"unix://{usable[0]}"
    raise SandboxUnavailable(
        f"no container engine is found (looked at {', '.join(map(str, places))}): {HOW_TO_GET_ONE}"
    )


def _is_usable(path: Path) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return stat.S_ISSOCK(found.st_mode) and os.access(path, os.R_OK | os.W_OK)
