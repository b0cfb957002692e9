"""The client of a box, against our tool server, and against boxes that mean harm."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import WSMsgType, web

from greenroom.actors.errors import (
    SandboxError,
    SandboxFileError,
    SandboxFileNotFound,
    SandboxLost,
    SandboxTimeout,
    SandboxUnavailable,
)
from greenroom.sandbox import client as client_module
from greenroom.sandbox.backend import BoxAddress
from greenroom.sandbox.client import BoxClient
from kits.box_process import BoxProcess, box_process

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# ------------------------------------------------------------------------------------------------------ our server


@pytest.fixture(scope="module")
def server() -> Iterator[BoxProcess]:
    with box_process() as server:
        yield server


@pytest.fixture
async def box(server: BoxProcess) -> AsyncIterator[BoxProcess]:
    async with server.connected():
        await server.client.reset()
        yield server


async def test_files_go_in_and_out(box: BoxProcess) -> None:
    client = box.client
    data = os.urandom(3_000_000)
    entry = await client.write("deep/er/file", data)

    assert (entry.name, entry.type, entry.size) == ("file", "file", len(data))
    assert await client.read("deep/er/file") == data
    assert await client.read(entry.path) == data
    assert [(found.name, found.type) for found in await client.list("deep", depth=2)] == [
        ("er", "dir"),
        ("file", "file"),
    ]
    assert (await client.move("deep/er/file", "moved")).name == "moved"
    assert await client.exists("moved")
    assert not await client.exists("deep/er/file")
    await client.remove("deep")
    await client.remove("deep")
    assert [found.name for found in await client.list()] == ["moved"]
    assert [await client.mkdir("a/b"), await client.mkdir("a/b")] == [True, False]


async def test_many_files_go_in_at_once(box: BoxProcess) -> None:
    files = {"plain": b"1", 'deep/umläut " name': b"\r\n--greenroom-\r\n", "empty": b""}
    entries = await box.client.write_many(files)

    assert [entry.size for entry in entries] == [1, 16, 0]
    assert {path: await box.client.read(path) for path in files} == files
    assert await box.client.write_many({}) == []


@pytest.mark.parametrize("path", ["../x", "OUTSIDE/secret", "/workspace-evil", "link/secret", "link"])
async def test_paths_out_are_refused(box: BoxProcess, path: str, tmp_path: Path) -> None:
    """All of them lead to folders of the test's own: a server that is broken must not hurt the machine."""
    (tmp_path / "secret").write_text("secret")
    (box.workspace / "link").symlink_to(tmp_path)
    path = path.replace("OUTSIDE", str(tmp_path))
    client = box.client
    for operation in (
        client.read(path),
        client.write(path + "/x", b""),
        client.list(path),
        client.mkdir(path + "/x"),
    ):
        with pytest.raises(SandboxFileError):
            await operation
    with contextlib.suppress(SandboxFileError):  # there is nothing of that name in the workspace, or a link
        await client.remove(path)
    assert [found.name for found in tmp_path.iterdir()] == ["secret"]


async def test_what_is_not_there_has_an_error_of_its_own(box: BoxProcess) -> None:
    for operation in (box.client.read("none"), box.client.list("none"), box.client.move("none", "x")):
        with pytest.raises(SandboxFileNotFound):
            await operation


async def test_a_listing_needs_a_folder_and_a_file_none(box: BoxProcess) -> None:
    await box.client.write("file", b"")
    await box.client.mkdir("folder")
    for operation in (
        box.client.list("file"),
        box.client.read("folder"),
        box.client.write("folder", b""),
        box.client.mkdir("file"),
    ):
        with pytest.raises(SandboxFileError):
            await operation


async def test_tools_are_listed_with_their_schemas(box: BoxProcess) -> None:
    tools = await box.client.tools()

    function = tools["generic"]["run_shell_command"]["json_schema"]["function"]
    assert function["parameters"]["required"] == ["command"]
    assert "playwright" not in tools


async def test_a_tool_that_there_is_not_is_told_as_a_result(box: BoxProcess) -> None:
    for tool in ("browser_snapshot", "nothing"):
        result = await box.client.call(tool, {}, 5)
        assert result.is_error
        assert tool in result.text
    empty = await box.client.call("run_shell_command", {}, 5)
    assert empty.is_error
    assert "command" in empty.text


async def test_a_wrong_token_is_told(box: BoxProcess) -> None:
    stranger = BoxClient(BoxAddress(token="another", socket=box.address.socket))
    try:
        for operation in (stranger.ready(5), stranger.tools(), stranger.read("x"), stranger.call("x", {}, 5)):
            with pytest.raises(SandboxUnavailable):
                await operation
        assert not await stranger.healthy(5)
    finally:
        await stranger.close()


async def test_a_base_box_has_nothing_to_look_at(box: BoxProcess) -> None:
    with pytest.raises(SandboxUnavailable):
        await box.client.live().__aenter__()


async def test_a_box_that_is_killed_is_lost() -> None:
    with box_process(exit_code=-9) as server:
        async with server.connected() as box:
            call = asyncio.create_task(
                box.client.call("run_ipython_cell", {"code": "import time; time.sleep(60)"}, 90)
            )
            await box.shell("true")
            server.process.kill()
            with pytest.raises(SandboxLost):
                await call
            with pytest.raises(SandboxLost):
                await box.client.call("run_shell_command", {"command": "true"}, 5)
            assert not await box.client.healthy(5)


async def test_no_token_is_in_texts_of_the_client(box: BoxProcess) -> None:
    assert box.token not in repr(box.client) + repr(box.address) + str(vars(box.client).keys())


# ------------------------------------------------------------------------------------------------------ boxes that harm


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="box-"))
    yield path
    shutil.rmtree(path)


@asynccontextmanager
async def evil(folder: Path, handler: Handler) -> AsyncIterator[BoxClient]:
    """A server of somebody else's at a box's address."""
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{any:.*}", handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(folder / "api.sock")).start()
    client = BoxClient(BoxAddress(token="t", socket=folder / "api.sock"))
    try:
        yield client
    finally:
        await client.close()
        await runner.cleanup()


async def test_redirects_are_not_followed(folder: Path) -> None:
    seen = []

    async def redirect(request: web.Request) -> web.StreamResponse:
        seen.append(request.path)
        raise web.HTTPTemporaryRedirect("http://127.0.0.1:1/elsewhere")

    async with evil(folder, redirect) as client:
        with pytest.raises(SandboxError):
            await client.call("browser_snapshot", {}, 5)

    assert seen == ["/fastapi/mcp/call_tool"]


async def test_an_endless_answer_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "ANSWER_BYTES", 1_000_000)

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    async with evil(folder, endless) as client:
        with pytest.raises(SandboxError, match="longer than"):
            await client.read("x")


async def test_compression_is_not_taken(folder: Path) -> None:
    async def compressed(request: web.Request) -> web.StreamResponse:
        assert request.headers["Accept-Encoding"] == "identity"
        response = web.Response(body=json.dumps({"content": [], "isError": False}).encode() * 1000)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    async with evil(folder, compressed) as client:
        with pytest.raises(SandboxError, match="not its protocol"):
            await client.call("browser_snapshot", {}, 5)


async def test_a_box_that_does_not_answer_is_timed_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "GRACE_SECONDS", 0.1)
    cancelled = asyncio.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()
        raise AssertionError

    async with evil(folder, silent) as client:
        with pytest.raises(SandboxTimeout):
            await client.call("browser_snapshot", {}, 0.1)
        await asyncio.wait_for(cancelled.wait(), 5)
        with pytest.raises(SandboxTimeout):
            await client.ready(0.1)
        assert not await client.healthy(0.1)


async def test_a_call_that_was_sent_is_not_sent_again(folder: Path) -> None:
    calls = 0

    async def broken(request: web.Request) -> web.StreamResponse:
        nonlocal calls
        await request.read()
        if request.path.endswith("/healthz"):
            return web.Response(text="OK")
        calls += 1
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async with evil(folder, broken) as client:
        await client.ready(5)  # leaves a connection that is used again
        with pytest.raises(SandboxLost):
            await client.call("browser_click", {"ref": "e1"}, 5)

    assert calls == 1


@pytest.mark.parametrize("kind", ["link to a socket", "link to a file", "file", "folder", "pipe"])
async def test_what_took_the_sockets_place_is_not_connected_to(folder: Path, kind: str) -> None:
    """A link would lead to the socket of another program of the host's: its engine, say."""
    path = folder / "api.sock"
    theirs = folder / "hosts.sock"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(theirs))
    listening.listen()
    listening.setblocking(False)
    match kind:
        case "link to a socket":
            path.symlink_to(theirs)
        case "link to a file":
            (folder / "hosts.txt").write_text("x")
            path.symlink_to(folder / "hosts.txt")
        case "file":
            path.write_text("x")
        case "folder":
            path.mkdir()
        case _:
            os.mkfifo(path)
    client = BoxClient(BoxAddress(token="t", socket=path))

    with pytest.raises(SandboxUnavailable, match="no socket"):
        await client.call("browser_snapshot", {}, 5)
    with pytest.raises(BlockingIOError):
        listening.accept()
    listening.close()


async def test_connections_go_by_the_socket_that_was_looked_at(folder: Path) -> None:
    async def ours(request: web.Request) -> web.StreamResponse:
        response = web.json_response({"content": [{"type": "text", "text": "ours"}], "isError": False})
        response.force_close()  # so that the next call needs a new connection
        return response

    async with evil(folder, ours) as client:
        await client.call("browser_snapshot", {}, 5)
        (folder / "api.sock").rename(folder / "moved.sock")
        (folder / "api.sock").symlink_to(folder / "hosts.sock")

        assert (await client.call("browser_snapshot", {}, 5)).text == "ours"


async def test_handles_are_given_back(folder: Path) -> None:
    async def health(request: web.Request) -> web.StreamResponse:
        return web.Response(text="OK")

    def handles() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = handles()
    async with evil(folder, health) as client:
        await asyncio.gather(*(client.ready(5) for _ in range(5)))
    for _ in range(3):
        with pytest.raises(SandboxTimeout):
            await BoxClient(BoxAddress(token="t", socket=folder / "none.sock")).ready(0.1)
    await asyncio.sleep(0)

    assert handles() <= before


async def test_a_live_view_is_carried(folder: Path) -> None:
    async def view(request: web.Request) -> web.StreamResponse:
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        await websocket.send_bytes(b"picture")
        await websocket.send_str(json.dumps(dict(request.query)))
        message = await websocket.receive()
        await websocket.send_str(str(message.data))
        await websocket.close()
        return websocket

    async with evil(folder, view) as client, client.live(input=True) as websocket:
        assert (await websocket.receive()).data == b"picture"
        assert json.loads((await websocket.receive()).data) == {"input": "1"}
        await websocket.send_str("hello")
        assert (await websocket.receive()).data == "hello"
        assert (await websocket.receive()).type is WSMsgType.CLOSE
