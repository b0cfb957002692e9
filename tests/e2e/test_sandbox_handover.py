"""Two server processes on one store, with real browsers: a session goes on with the same page, whatever became of the
process that opened it, and nothing of it is left at the end."""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import aiohttp
import pytest

from greenroom.sandbox.docker.config import LEASE_LABEL
from greenroom.sandbox.docker.engine import Engine
from kits.engine import OwnEngine
from kits.server_process import ServerProcess, start
from kits.site import Site, site

pytestmark = pytest.mark.slow

FORM = "<title>Form</title><label>Your name <input id=name></label><p>Nothing was sent.</p>"
GONE_SECONDS = 30.0
"""How long a box may outlive its process when nobody comes back for it."""


class Place:
    """A folder with a store, an engine, a page, and servers that use them."""

    def __init__(self, folder: Path, engine: OwnEngine, page: Site) -> None:
        self.folder = folder
        self.engine = Engine(engine.url)
        self.page = "http://form.test/form"
        self.servers: list[ServerProcess] = []
        self._env = {
            "BROWSING_STATE": f"sqlite:///{folder}/sessions.db",
            "XDG_STATE_HOME": str(folder / "s"),
            "GREENROOM_RUN": str(folder / "r"),
            "GREENROOM_SANDBOX": "docker",
            "DOCKER_HOST": engine.url,
            "GREENROOM_SANDBOX_IMAGE": engine.image,
            "GREENROOM_SANDBOX_HOSTS": f"form.test={page.url.removeprefix('http://')}",
        }

    async def server(self, env: Mapping[str, str] | None = None) -> ServerProcess:
        """One more."""
        server = await start("browsing.py", env={**self._env, **(env or {})})
        self.servers.append(server)
        await server.ready()
        return server

    async def boxes(self) -> Sequence[str]:
        """The containers whose directories are in this place's folder: other tests may have some in the same engine."""
        filters = json.dumps({"label": [LEASE_LABEL]})
        found = await self.engine.json("GET", "containers/json", params={"all": "true", "filters": filters})
        ours = str(self.folder / "r")
        return [
            one["Id"] for one in found if any(mount["Source"].startswith(ours) for mount in one["Mounts"])
        ]

    async def no_boxes(self, seconds: float) -> None:
        """Wait until there are none."""
        async with asyncio.timeout(seconds):
            while await self.boxes():  # noqa: ASYNC110 - what the engine has is only known by asking
                await asyncio.sleep(0.1)

    def left(self) -> list[Path]:
        """What is left of boxes' directories and keys."""
        return [path for name in ("boxes", "keys", "owners") for path in (self.folder / "r" / name).glob("*")]

    async def end(self) -> None:
        """Kill what still runs, and remove what it leaves."""
        for server in self.servers:
            if server.process.returncode is None:
                server.process.kill()
            await server.ended()
        for box in await self.boxes():
            await self.engine.json("DELETE", f"containers/{box}", params={"force": "true"})
        await self.engine.close()


@pytest.fixture
async def place(docker_engine: OwnEngine) -> AsyncIterator[Place]:
    with tempfile.TemporaryDirectory(prefix="gr-") as folder:
        Path(folder).chmod(0o711)
        async with site({"/form": FORM}) as page:
            found = Place(Path(folder), docker_engine, page)
            await found.engine.open()
            try:
                yield found
            finally:
                await found.end()


async def turn(server: ServerProcess, text: str, session: str = "s") -> str:
    """A turn's answer, when it went well."""
    status, said = await tried(server, text, session)
    assert status == "completed", said
    return said


async def tried(server: ServerProcess, text: str, session: str = "s") -> tuple[str, str]:
    """How a turn ended, and what it said."""
    request = {
        "input": [{"content": [{"type": "text", "text": text}]}],
        "session_id": session,
        "stream": False,
    }
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{server.url}/process", json=request) as answer,
    ):
        body = await answer.json()
    said = [part.get("text", "") for message in body.get("output") or () for part in message["content"]]
    return body["status"], " ".join([*said, json.dumps(body.get("error"))])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_session_goes_on_with_the_same_page_in_another_process(
    place: Place, number: signal.Signals
) -> None:
    first, second = await place.server(), await place.server()
    await turn(first, f"open:{place.page} write:Friday")
    [box] = await place.boxes()
    code = await first.stop(number)
    assert code == (0 if number is signal.SIGTERM else -signal.SIGKILL), first.log
    page = await turn(second, "look")
    assert "/form" in page
    assert "Friday" in page
    assert await place.boxes() == [box]
    assert "Nothing was sent" in await turn(second, f"open:{place.page}")  # the way out is open again
    assert await place.boxes() == [box]
    assert await second.stop() == 0, second.log
    await place.no_boxes(1)
    assert not place.left()


async def test_a_session_takes_its_browser_along_from_one_living_process_to_another_and_is_deleted_there(
    place: Place,
) -> None:
    first, second = await place.server(), await place.server()
    await turn(first, f"open:{place.page} write:Friday")
    [box] = await place.boxes()
    assert "Friday" in await turn(second, "look write:Saturday")
    assert "Saturday" in await turn(first, "look")
    assert await place.boxes() == [box]
    assert "Saturday" in await turn(second, "look")
    async with (
        aiohttp.ClientSession() as client,
        client.delete(f"{second.url}/compatible-mode/v1/conversations/s") as answer,
    ):
        assert answer.status == 200, await answer.text()
    await place.no_boxes(5)
    for server in (first, second):
        assert await server.stop() == 0, server.log
    assert not place.left()


async def test_boxes_of_a_killed_process_whose_sessions_do_not_come_back_are_removed_in_time(
    place: Place,
) -> None:
    first, second = await place.server(), await place.server()
    await turn(first, f"open:{place.page}")
    assert len(await place.boxes()) == 1
    await first.stop(signal.SIGKILL)
    await place.no_boxes(GONE_SECONDS)
    status, said = await tried(second, f"open:{place.page}")
    assert status == "failed"
    assert "sandbox" in said
    await turn(second, f"open:{place.page}")
    assert await second.stop() == 0, second.log
    assert not await place.boxes()
    assert not place.left()


async def test_a_turn_under_way_when_its_process_is_killed_leaves_its_page_to_the_next(place: Place) -> None:
    first, second = await place.server(), await place.server()
    gate = place.folder / "gate"
    turning = asyncio.create_task(tried(first, f"open:{place.page} write:Friday hold:{gate}"))
    async with asyncio.timeout(60):
        while not gate.with_suffix(".reached").exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.05)
    [box] = await place.boxes()
    await first.stop(signal.SIGKILL)
    await asyncio.gather(turning, return_exceptions=True)
    assert "Friday" in await turn(second, "look")
    assert await place.boxes() == [box]
    assert await second.stop() == 0, second.log
    assert not await place.boxes()
