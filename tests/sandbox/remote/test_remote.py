"""The remote backend: one box elsewhere, one lease at a time; ours passes the kit of backends."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import pytest
import pytest_asyncio
from aiohttp import web

from greenroom.actors.errors import ConfigurationError, SandboxBusy, SandboxLost, SandboxUnavailable
from greenroom.sandbox.backend import Backend, BoxAddress, BoxSpec, FoundBox, Pausing
from greenroom.sandbox.client import BoxClient
from greenroom.sandbox.remote import backend as remote
from greenroom.sandbox.remote.backend import RemoteBackend, box_url
from greenroom.sandbox.settings import SandboxSettings
from kits.backend_kit import FETCH, BackendKit, found, proxy, ready
from kits.box_process import running_with
from kits.remote_box import TOKEN, RemoteBox, remote_box
from kits.until import until


@pytest.mark.slow
class TestRemoteBackend(BackendKit):
    at_once = 1
    box: RemoteBox
    records: Path

    @pytest_asyncio.fixture(autouse=True)
    async def elsewhere(self, tmp_path: Path) -> AsyncIterator[None]:
        self.records = tmp_path / "records"
        async with remote_box(tmp_path) as self.box:
            yield

    def backend(self) -> Backend:
        return RemoteBackend(self.box.settings, folder=self.records)

    async def kill(self, backend: Backend, lease: str) -> None:
        await self.box.kill()

    async def test_boxes_are_made_and_removed_at_the_same_time(self, folder: Path) -> None:
        """There is one: of several that want it one gets it, and the others are told."""
        async with self.started() as backend:
            specs = [self.spec(folder) for _ in range(3)]
            made = await asyncio.gather(*map(backend.create, specs), return_exceptions=True)
            assert sorted(type(one).__name__ for one in made) == ["BoxAddress", "SandboxBusy", "SandboxBusy"]
            await asyncio.gather(*(backend.remove(spec.lease) for spec in specs))
            assert await backend.boxes() == []

    async def test_two_boxes_share_no_files(self, folder: Path) -> None:
        """The one box is reset between leases."""
        async with self.started() as backend:
            first, second = self.spec(folder), self.spec(folder)
            async with ready(await backend.create(first)) as client:
                await client.write("mine.txt", b"mine")
                await client.call("run_ipython_cell", {"code": "mine = 1"}, 60.0)
                with pytest.raises(SandboxBusy, match="one at a time"):
                    await backend.create(second)
                await backend.remove(first.lease)
                async with ready(await backend.create(second)) as other:
                    assert not await other.exists("mine.txt")
                    said = await other.call("run_ipython_cell", {"code": "'mine' in globals()"}, 60.0)
                    assert "False" in said.text
                    with pytest.raises(SandboxLost):
                        await client.read("mine.txt")

    async def test_the_socket_in_its_directory_is_the_way_out(self, folder: Path) -> None:
        """Not of a remote box: what it reaches is up to where it runs."""
        async with self.started() as backend:
            spec = self.spec(folder)
            async with proxy(spec.directory / "egress.sock") as asked:
                async with ready(await backend.create(spec)) as client:
                    await client.call("run_shell_command", {"command": FETCH}, 30.0)
                assert asked == []

    async def test_a_paused_box_answers_when_it_is_resumed(self, folder: Path) -> None:
        assert not isinstance(self.backend(), Pausing)

    async def test_a_paused_box_can_be_removed(self, folder: Path) -> None:
        """Nothing of a remote box can be paused."""

    async def test_a_box_that_is_gone_can_be_neither_paused_nor_resumed(self, folder: Path) -> None:
        """Nothing of a remote box can be paused."""

    async def test_who_lost_the_box_to_another_process_does_not_reach_it_any_more(self, folder: Path) -> None:
        async with self.started() as first, self.started() as second:
            spec, other = self.spec(folder), self.spec(folder)
            async with ready(await first.create(spec)) as client:
                await second.remove(spec.lease)
                await second.create(other)
                with pytest.raises(SandboxLost, match="another session's"):
                    await client.call("run_shell_command", {"command": "echo"}, 5.0)

    async def test_the_boxs_own_token_is_not_given_to_leases(self, folder: Path) -> None:
        async with self.started() as backend:
            spec = self.spec(folder)
            address = await backend.create(spec)
            assert TOKEN not in f"{address.token}{address.url}{address.socket}{backend!r}"
            client = BoxClient(BoxAddress(token=TOKEN, url=address.url, socket=address.socket))
            try:
                with pytest.raises(SandboxUnavailable):
                    await client.tools()
            finally:
                await client.close()

    async def test_a_call_that_is_cancelled_ends_in_the_box(self, folder: Path) -> None:
        async with self.started() as backend, ready(await backend.create(self.spec(folder))) as client:
            word = secrets.token_hex(8)
            command = f"python3 -c 'import time; time.sleep(1000)' {word}"
            task = asyncio.create_task(client.call("run_shell_command", {"command": command}, 60.0))
            await until(lambda: running_with(word))
            task.cancel()
            await until(lambda: not running_with(word))

    async def test_an_answer_that_breaks_off_is_no_whole_one(self, folder: Path) -> None:
        async with self.started() as backend, ready(await backend.create(self.spec(folder))) as client:
            word = secrets.token_hex(8)
            command = f"python3 -c 'import time; time.sleep(20)' {word}"
            task = asyncio.create_task(client.call("run_shell_command", {"command": command}, 60.0))
            await until(lambda: running_with(word))
            await self.box.kill()
            with pytest.raises(SandboxLost):
                await task


# ------------------------------------------------------------------------------------------------- what is not ours


@asynccontextmanager
async def official() -> AsyncIterator[str]:
    """As much of the official image's application as a lease needs: it cannot be reset. Gives its URL."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"detail": "Invalid secret token"}, status=403)
        if request.path == "/fastapi/healthz":
            return web.Response(text="OK")
        if request.path == "/fastapi/moved":
            raise web.HTTPFound("http://elsewhere.test/")
        if request.path == "/fastapi/live":
            return await echo(request)
        return web.json_response({"detail": "Not Found"}, status=404)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield site.name
    finally:
        await runner.cleanup()


async def echo(request: web.Request) -> web.StreamResponse:
    """A live view that shows what it is told, and goes when it hears so."""
    websocket = web.WebSocketResponse()
    await websocket.prepare(request)
    await websocket.send_str(request.query_string)
    async for message in websocket:
        if message.data == "go":
            break
        await websocket.send_bytes(message.data.encode())
    await websocket.close()
    return websocket


def new_spec(folder: Path) -> BoxSpec:
    lease = secrets.token_hex(8)
    directory = folder / lease
    directory.mkdir()
    return BoxSpec(lease=lease, owner="o", kind="browser", token=secrets.token_hex(8), directory=directory)


async def test_a_box_that_cannot_be_reset_is_given_to_one_session_only(tmp_path: Path) -> None:
    async with official() as url:
        settings = SandboxSettings(backend=url, token=TOKEN)
        first, second = new_spec(tmp_path), new_spec(tmp_path)
        backend = RemoteBackend(settings, folder=tmp_path / "records")
        await backend.start()
        await backend.create(first)
        assert await found(backend, first) == FoundBox(first.lease, "o", True)
        await backend.remove(first.lease)
        with pytest.raises(SandboxUnavailable, match="new container with a new SECRET_TOKEN"):
            await backend.create(second)
        with pytest.raises(SandboxUnavailable):
            await backend.create(first)
        assert await backend.boxes() == []
        another_process = RemoteBackend(settings, folder=tmp_path / "records")
        with pytest.raises(SandboxUnavailable):
            await another_process.create(second)
        await backend.stop()


async def test_a_box_is_followed_nowhere(tmp_path: Path) -> None:
    async with official() as url:
        backend = RemoteBackend(SandboxSettings(backend=url, token=TOKEN), folder=tmp_path / "records")
        spec = new_spec(tmp_path)
        address = await backend.create(spec)
        try:
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(address.socket))) as session:
                headers = {"Authorization": f"Bearer {spec.token}"}
                answer = await session.get("http://box/fastapi/moved", headers=headers, allow_redirects=False)
                assert (answer.status, answer.headers.get("Location")) == (302, None)
        finally:
            await backend.stop()


async def test_a_live_view_is_passed_on_both_ways_until_either_goes(tmp_path: Path) -> None:
    async with official() as url:
        backend = RemoteBackend(SandboxSettings(backend=url, token=TOKEN), folder=tmp_path / "records")
        spec = new_spec(tmp_path)
        client = BoxClient(await backend.create(spec))
        try:
            async with client.live(input=True) as view:
                assert (await view.receive()).data == "input=1"
                await view.send_str("a key")
                assert (await view.receive()).data == b"a key"
                await view.send_str("go")
                assert (await view.receive()).type is aiohttp.WSMsgType.CLOSE
            async with client.live() as view:
                assert (await view.receive()).data == ""
                await backend.remove(spec.lease)
                assert (await view.receive()).type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}
        finally:
            await client.close()
            await backend.stop()


async def test_a_box_that_is_not_there_or_wants_another_token_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "REACH_SECONDS", 0.3)
    async with official() as url:
        with pytest.raises(SandboxUnavailable, match="refused our token"):
            await RemoteBackend(SandboxSettings(backend=url, token="wrong"), folder=tmp_path).start()
    backend = RemoteBackend(SandboxSettings(backend=url, token=TOKEN), folder=tmp_path / "records")
    with pytest.raises(SandboxUnavailable, match="is it running"):
        await asyncio.wait_for(backend.start(), 30)
    with pytest.raises(SandboxUnavailable, match="could not be made ready"):
        await backend.create(new_spec(tmp_path))
    assert await backend.boxes() == []


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://box.test", "http://box.test/fastapi"),
        ("http://box.test/", "http://box.test/fastapi"),
        ("https://box.test:8443/fastapi/", "https://box.test:8443/fastapi"),
        ("https://box.test/one", "https://box.test/one/fastapi"),
        ("http://[::1]:80", "http://[::1]:80/fastapi"),
    ],
)
def test_the_url_may_leave_out_what_all_have(text: str, url: str) -> None:
    assert box_url(text) == url


@pytest.mark.parametrize(
    "text",
    ["box.test", "ftp://box.test", "http://", "http://a:b@box.test", "http://box.test?x=1", "http://[::1"],
)
def test_a_url_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="URL"):
        box_url(text)


def test_a_token_is_needed() -> None:
    with pytest.raises(ConfigurationError, match="GREENROOM_SANDBOX_TOKEN"):
        RemoteBackend(SandboxSettings(backend="http://box.test"))


async def test_a_token_that_is_sent_in_the_clear_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    backend = RemoteBackend(SandboxSettings(backend="http://box.invalid", token=TOKEN))
    with caplog.at_level(logging.WARNING), anyio.move_on_after(0.2):
        await backend.start()
    assert "without encryption" in caplog.text
    assert TOKEN not in caplog.text
