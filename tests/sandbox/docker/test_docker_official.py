"""The docker backend with an image like the official one: the kit, but for what that image cannot hold, and a session.

What a box of ours has and this one cannot: a token that lies nowhere (the image wants it in the environment) and a
filter as the only way out (it wants a network). A read-only root, a user of its own and no capabilities are not the
kit's.
"""

from __future__ import annotations

import re
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
import pytest_asyncio

from greenroom.actors.errors import SandboxFileError, SandboxTimeout, SandboxUnavailable
from greenroom.sandbox.backend import EGRESS_SOCKET, MIB, Backend, BoxAddress, BoxLimits, BoxSpec
from greenroom.sandbox.box_folders import BoxFolders
from greenroom.sandbox.browser_sandbox import BrowserSandbox
from greenroom.sandbox.client import BoxClient
from greenroom.sandbox.docker.backend import DockerBackend
from greenroom.sandbox.docker.config import OFFICIAL_TIMEOUT, container_name
from greenroom.sandbox.docker.engine import Engine
from greenroom.sandbox.docker.official import wait_for_application
from greenroom.sandbox.keeper import Keeper
from greenroom.sandbox.leases import Lease, LeaseKey
from greenroom.sandbox.result import ToolResult
from greenroom.sandbox.settings import SandboxSettings
from greenroom.sandbox.sqlite_leases import SqliteLeases
from kits.backend_kit import BackendKit, found, proxy, ready
from kits.engine import OwnEngine
from kits.node_clients import NodeMissing
from kits.official_image import OfficialEngine, official_engine
from kits.site import site

pytestmark = pytest.mark.slow

KEY = LeaseKey("ada", "tuesday", "browser")
SHOP = """
<title>Shop</title><h1>Tea</h1>
<button onclick="document.querySelector('p').textContent = 'one pot, ordered'">Order</button><p>nothing yet</p>
"""


@pytest.fixture(scope="module")
def official(docker_engine: OwnEngine) -> Iterator[OfficialEngine]:
    try:
        with official_engine(docker_engine) as made:
            yield made
    except NodeMissing as missing:
        pytest.skip(f"needs node: {missing}")


def docker_backend(official: OfficialEngine) -> DockerBackend:
    settings = SandboxSettings(docker_host=official.own.url, image=official.own.image)
    return DockerBackend(settings, network=official.network)


@asynccontextmanager
async def opened(official: OfficialEngine) -> AsyncIterator[Engine]:
    engine = Engine(official.own.url)
    await engine.open()
    try:
        yield engine
    finally:
        await engine.close()


class TestOfficial(BackendKit):
    @pytest.fixture(autouse=True)
    def its_engine(self, official: OfficialEngine) -> None:
        self.official = official

    def backend(self) -> Backend:
        return docker_backend(self.official)

    async def kill(self, backend: Backend, lease: str) -> None:
        async with opened(self.official) as engine:
            await engine.json("POST", f"containers/{container_name(lease)}/kill")

    async def test_only_who_shows_the_token_is_served_and_it_lies_nowhere(self, folder: Path) -> None:
        """The first half holds. The token lies in the environment: the image has no other place for it."""
        async with self.started() as backend:
            spec = self.spec(folder)
            address = await backend.create(spec)
            async with ready(address) as client:
                seen = await client.call("run_shell_command", {"command": "env"}, 20.0)
                assert f"SECRET_TOKEN={spec.token}" in seen.text
            await refused(address)

    async def test_the_socket_in_its_directory_is_the_way_out(self, folder: Path) -> None:
        """It is not: the box does not see its directory."""
        async with self.started() as backend:
            spec = self.spec(folder)
            async with proxy(spec.directory / EGRESS_SOCKET) as asked, site(host=self.gateway) as served:
                async with ready(await backend.create(spec)) as client:
                    assert "Welcome" in await fetched(client, served("/"))
                assert asked == []

    async def test_without_one_there_is_no_way_out(self, folder: Path) -> None:
        """There is: the engine's network."""
        async with (
            self.started() as backend,
            site(host=self.gateway) as served,
            ready(await backend.create(self.spec(folder))) as client,
        ):
            assert "Welcome" in await fetched(client, served("/"))

    @pytest.mark.parametrize("seconds", [0.2, 1.5])
    async def test_a_cancelled_create_leaves_nothing_that_cannot_be_removed(
        self, folder: Path, seconds: float
    ) -> None:
        """The last of these while the application is waited for."""
        await super().test_a_cancelled_create_leaves_nothing_that_cannot_be_removed(folder, seconds)

    @property
    def gateway(self) -> str:
        return self.official.gateway

    async def test_a_box_answers_as_soon_as_it_is_made(self, folder: Path) -> None:
        """Its front server, asked too early, would refuse all for ten seconds."""
        async with self.started() as backend:
            client = BoxClient(await backend.create(self.spec(folder)))
            try:
                assert await client.healthy(10.0)
            finally:
                await client.close()

    async def test_a_box_that_does_not_start_says_why_and_is_gone(self, folder: Path) -> None:
        async with self.started() as backend:
            whole = self.spec(folder)
            tiny = BoxSpec(
                lease=whole.lease,
                owner=whole.owner,
                kind=whole.kind,
                token=whole.token,
                directory=whole.directory,
                limits=BoxLimits(pids=1),
            )
            with pytest.raises(SandboxUnavailable, match="ended while it started"):
                await backend.create(tiny)
            assert await found(backend, tiny) is None


async def refused(address: BoxAddress) -> None:
    """Fails unless somebody with another token is."""
    stranger = BoxClient(BoxAddress(token="guessed", url=address.url))
    try:
        assert not await stranger.healthy(10.0)
        with pytest.raises(SandboxUnavailable, match="refused our token"):
            await stranger.call("run_shell_command", {"command": "id"}, 10.0)
    finally:
        await stranger.close()


async def fetched(client: BoxClient, url: str) -> str:
    code = f"import urllib.request as u\nprint(u.urlopen({url!r}, timeout=10).read().decode())"
    return (await client.call("run_ipython_cell", {"code": code}, 20.0)).text


async def test_what_cannot_be_looked_at_is_waited_for_by_asking(
    official: OfficialEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(official) as engine:
        with caplog.at_level("INFO"):
            await wait_for_application(engine, container_name(secrets.token_hex(16)))
    assert "cannot be looked at" in caplog.text


# ----------------------------------------------------------------------------------------------------------- a session


@pytest_asyncio.fixture
async def keeper(official: OfficialEngine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Keeper]:
    """A process's, whose leases and directories are nobody else's."""
    with tempfile.TemporaryDirectory(prefix="gr-") as folder:
        monkeypatch.setenv("GREENROOM_STATE", f"{folder}/state")
        monkeypatch.setenv("GREENROOM_RUN", f"{folder}/run")
        keeper = Keeper(docker_backend(official), SandboxSettings(call_seconds=30.0))
        await keeper.start()
        try:
            yield keeper
        finally:
            with anyio.CancelScope(shield=True):
                await keeper.stop()


async def container(official: OfficialEngine, lease: str) -> list[str]:
    """The states of the lease's containers: one, or none."""
    async with opened(official) as engine:
        listed = await engine.json("GET", "containers/json", params={"all": "true"})
    return [one["State"] for one in listed if one["Names"] == [f"/{container_name(lease)}"]]


async def test_a_session_uses_one_and_its_keeper_removes_it_with_its_lease(
    official: OfficialEngine, keeper: Keeper, caplog: pytest.LogCaptureFixture
) -> None:
    (warned,) = [record.getMessage() for record in caplog.get_records("setup")]
    assert "the egress rules do not hold for them, and they run as root" in warned
    browser = BrowserSandbox.leased(keeper, KEY)
    async with site({"/shop": SHOP}, host=official.gateway) as served:
        opened_page = await browser.browser_navigate(served("/shop"))
        assert "- Page Title: Shop" in opened_page.text
        seen = await browser.browser_snapshot()
        ordered = await browser.browser_click("Order", ref_of(seen, 'button "Order"'))
        assert "one pot, ordered" in ordered.text
    assert (await browser.browser_take_screenshot()).images
    await browser.run_ipython_cell("pots = 6 * 7")
    assert (await browser.run_ipython_cell("print(pots)")).part("stdout") == "42\n"
    assert (await browser.run_shell_command("id -u; pwd")).part("stdout") == "0\n/workspace\n"
    async with keeper.client(KEY) as client:
        await refused(client.address)

    lease = keeper.lease_of(KEY)
    assert lease is not None
    assert await container(official, lease.id) == ["running"]
    assert lease.id in {one.id for one in await written_leases()}
    assert lease.id in await BoxFolders().all()
    await browser.close()
    assert await container(official, lease.id) == []
    assert await written_leases() == []
    assert await BoxFolders().all() == {}


async def test_files_and_long_calls_pass_its_front_server_or_say_why_not(keeper: Keeper) -> None:
    browser = BrowserSandbox.leased(keeper, KEY)
    data = bytes(range(256)) * 2000
    await browser.fs.write("folder/tea ä.bin", data)
    assert await browser.fs.read("folder/tea ä.bin", fmt="bytes") == data
    with pytest.raises(SandboxFileError, match=r"1 MiB.*in parts"):
        await browser.fs.write("large.bin", bytes(2 * MIB))

    settled = await browser.run_shell_command("grep timeout /etc/nginx/nginx.conf")
    assert set(re.findall(r"timeout (\w+);", settled.text)) == {f"{OFFICIAL_TIMEOUT}s"}
    with pytest.raises(SandboxTimeout):
        await keeper.call(KEY, "run_shell_command", {"command": "sleep 600"}, 0.5)
    lease = keeper.lease_of(KEY)
    assert (await browser.run_shell_command("ls folder")).part("stdout") == "tea ä.bin\n"
    assert keeper.lease_of(KEY) == lease


async def written_leases() -> list[Lease]:
    leases = SqliteLeases()
    await leases.start()
    try:
        return list(await leases.all())
    finally:
        await leases.stop()


def ref_of(snapshot: ToolResult, what: str) -> str:
    """The reference of the element whose line in the snapshot begins so."""
    named = re.search(re.escape(what) + r".*?\[ref=(\w+)\]", snapshot.text)
    assert named, snapshot.text
    return named[1]
