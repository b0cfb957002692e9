"""Law 8 when the process that has sandboxes in use is killed, again and again: nothing outlives it for long, and no
session ever has two."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import anyio
import msgspec
import pytest

from greenroom.sandbox.backend import Backend, FoundBox
from greenroom.sandbox.box_folders import BoxFolders
from greenroom.sandbox.choose import named_backend
from greenroom.sandbox.keeper import Keeper
from greenroom.sandbox.leases import LeaseKey
from greenroom.sandbox.owners import Owners
from greenroom.sandbox.settings import SandboxSettings
from greenroom.sandbox.sqlite_leases import SqliteLeases
from kits.engine import OwnEngine
from kits.http_client import body
from kits.server_process import server
from kits.site import Site, site

pytestmark = pytest.mark.slow

KILLS = 20
SESSIONS = 3
LEFT_SECONDS = 30.0
"""How long after a restart something of the killed process may still be there."""


@pytest.fixture(params=["local", "docker"])
def settings(request: pytest.FixtureRequest) -> SandboxSettings:
    if request.param == "docker":
        engine: OwnEngine = request.getfixturevalue("docker_engine")
        return SandboxSettings(backend="docker", docker_host=engine.url, image=engine.image)
    if shutil.which("bwrap") is None:
        pytest.skip("needs bubblewrap: apt-get install bubblewrap")
    return SandboxSettings(backend="local")


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """State and runtime folders of the test's own, with short paths."""
    with tempfile.TemporaryDirectory(prefix="gr-") as folder:
        Path(folder).chmod(0o711)
        monkeypatch.setenv("GREENROOM_STATE", f"{folder}/s")
        monkeypatch.setenv("GREENROOM_RUN", f"{folder}/r")
        yield Path(folder)


class Watcher:
    """Looks at everything from outside, as `greenroom sandbox ps` does."""

    def __init__(self, backend: Backend, leases: SqliteLeases) -> None:
        self.backend = backend
        self.leases = leases
        self.looks = 0
        self.most = 0
        self.owners: set[str] = set()

    async def watch(self) -> None:
        """Fails when a box has no lease, or a key two boxes."""
        suspects: set[str] = set()
        while True:
            found = await self.suspicious()
            assert not found & suspects, f"boxes without a lease, or two for one key: {found & suspects}"
            suspects = found
            self.looks += 1
            await anyio.sleep(0.05)

    async def suspicious(self) -> set[str]:
        """Boxes that look wrong. Leases are read before and after the boxes, which takes a moment: what looks wrong
        twice is."""
        before = {lease.id: lease.key for lease in await self.leases.all()}
        running = [box.lease for box in await self.ours() if box.running]
        after = {lease.id: lease.key for lease in await self.leases.all()}
        self.most = max(self.most, len(running))
        keys: dict[LeaseKey, list[str]] = {}
        wrong = {lease for lease in running if lease not in before and lease not in after}
        for lease in running:
            key = after.get(lease) or before.get(lease)
            if key is not None:
                keys.setdefault(key, []).append(lease)
        return wrong.union(*(boxes for boxes in keys.values() if len(boxes) > 1))

    async def ours(self) -> Sequence[FoundBox]:
        """Other tests may have boxes in the same engine."""
        self.owners.update(await Owners().standing())
        return [box for box in await self.backend.boxes() if box.owner in self.owners]


@asynccontextmanager
async def watching(settings: SandboxSettings) -> AsyncIterator[Watcher]:
    backend, leases = named_backend(settings.backend, settings), SqliteLeases()
    await backend.start()
    await leases.start()
    watcher = Watcher(backend, leases)
    watching = asyncio.create_task(watcher.watch())
    try:
        yield watcher
        if watching.done():
            watching.result()  # it failed
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await leases.stop()
        await backend.stop()


async def serve_until_killed(settings: SandboxSettings, answers: int, seconds: float) -> list[str]:
    """Start a server, let its sessions get so many answers, and a moment more, and kill it; what it said."""
    said: list[str] = []
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "kits.killed_server", msgspec.json.encode(settings).decode()),
        cwd=Path(__file__).parents[1],
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert server.stdout is not None
    try:
        with anyio.fail_after(90):
            while sum(line.startswith("answered") for line in said) < answers or "started" not in said:
                line = (await server.stdout.readline()).decode().strip()
                assert line, f"the server ended by itself: {said}"
                said.append(line)
        await anyio.sleep(seconds)
    finally:
        server.send_signal(signal.SIGKILL)
        await server.stdout.read()
        await server.wait()
    return said


class Browsing:
    """Sessions of a server that open a page in turn after turn."""

    def __init__(self, client: aiohttp.ClientSession) -> None:
        self.client = client
        self.answers = 0
        self.more = asyncio.Event()
        self.sessions = [asyncio.create_task(self.browse(str(number))) for number in range(SESSIONS)]

    async def browse(self, session: str) -> None:
        """Until the server is gone."""
        while True:
            request = body("http://page.test/rows", session, stream=False)
            async with self.client.post("/process", json=request) as response:
                answer = await response.json()
            assert answer["status"] == "completed", answer
            self.answers += 1
            self.more.set()

    async def answered(self, answers: int) -> None:
        """Wait for so many. Raises what ended a session before."""
        while self.answers < answers:
            self.more.clear()
            more = asyncio.create_task(self.more.wait())
            done, _ = await asyncio.wait([more, *self.sessions], return_when=asyncio.FIRST_COMPLETED)
            more.cancel()
            for ended in done - {more}:
                await ended

    async def end(self) -> None:
        """What they were waiting for does not come any more."""
        for session in self.sessions:
            session.cancel()
        await asyncio.gather(*self.sessions, return_exceptions=True)


async def browse_until_killed(
    settings: SandboxSettings, page: Site, answers: int, seconds: float
) -> list[str]:
    """The same with `greenroom serve`, whose sessions browse in turns, and a warm pool."""
    env = {
        "GREENROOM_SANDBOX": settings.backend,
        "GREENROOM_SANDBOX_WARM": "1",
        "GREENROOM_SANDBOX_HOSTS": f"page.test={page.url.removeprefix('http://')}",
    }
    if settings.docker_host is not None:
        env |= {"DOCKER_HOST": settings.docker_host, "GREENROOM_SANDBOX_IMAGE": settings.image}
    async with server("opening.py", env=env) as serving, aiohttp.ClientSession(serving.url) as client:
        browsing = Browsing(client)
        try:
            with anyio.fail_after(90):
                await browsing.answered(answers)
            await anyio.sleep(seconds)
        finally:
            serving.process.kill()
            await serving.ended()
            await browsing.end()
    return [f"{browsing.answers} answers"]


@pytest.mark.parametrize("program", ["keeper", "server"])
async def test_after_twenty_kills_nothing_is_left_and_no_session_ever_had_two(
    program: str, settings: SandboxSettings, home: Path
) -> None:
    dice = random.Random(8)
    async with watching(settings) as watcher, site() as page:
        serve = partial(browse_until_killed, settings, page)
        if program == "keeper":
            serve = partial(serve_until_killed, settings)
        killed: set[str] = set()
        for _ in range(KILLS):
            answers = dice.choice([0, 1, 3, 12])
            serving = asyncio.create_task(serve(answers, dice.uniform(0.0, 0.5)))
            while not serving.done():
                await asyncio.wait({serving}, timeout=LEFT_SECONDS if killed else None)
                left = killed & {lease.id for lease in await watcher.leases.all()}
                assert not left, "leases outlive their process"
            await serving
            killed = {lease.id for lease in await watcher.leases.all()}
        assert watcher.looks > KILLS
        assert watcher.most > 1
        await last_restart(settings, watcher, home)


async def last_restart(settings: SandboxSettings, watcher: Watcher, home: Path) -> None:
    """A process that has no boxes of its own tidies up after the last killed one."""
    backend = named_backend(settings.backend, settings)
    keeper = Keeper(backend, settings)
    with anyio.fail_after(LEFT_SECONDS):
        await keeper.start()
        while await watcher.ours() or await watcher.leases.all():  # noqa: ASYNC110
            await anyio.sleep(0.05)
        while len(await keeper_owners()) > 1:  # noqa: ASYNC110
            await anyio.sleep(0.05)
    assert await BoxFolders().all() == {}
    assert not list((home / "r" / "boxes").iterdir())
    await keeper.stop()
    assert await keeper_owners() == []


async def keeper_owners() -> list[str]:
    return list(await Owners().standing())
