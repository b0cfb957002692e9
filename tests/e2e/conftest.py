"""The workshop: one server process for each level of use, and one script a test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from greenroom.actors.messages import SessionKey
from greenroom.services.sessions.head import folder_of
from greenroom.services.store_urls import storage_at
from greenroom.transports.json_checks import owner
from kits.durable_servers import Site
from kits.failing_stores import Store, full, store
from kits.http_client import body
from kits.needs import needs_bubblewrap
from kits.node_clients import NodeMissing, Scripts
from kits.postgres_server import PostgresServer
from kits.preloaded import Preloaded, preloading
from kits.redis_server import RedisServer
from kits.sdk_answers import check_wire
from kits.sdk_clients import Wire, sdk
from kits.stage import Stage, for_installed_line, stage_of

__all__ = ["full", "store"]

SLOW_TO_IMPORT = ("test_chat_clients.py", "test_responses_agents.py", "test_responses_langchain.py")
"""Tests with libraries that take seconds to import. All of them are slow, so `make quick` need not even look."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Whether to pass a file over; none: as usual."""
    return (config.getoption("markexpr") == "not slow" and collection_path.name in SLOW_TO_IMPORT) or None


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["tutorial", "actor"])
async def workshop(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    """The workshop application, at each of the two levels of use."""
    async with stage_of(for_installed_line("workshop_for_{}.py") + f":{request.param}") as stage:
        yield stage


@pytest_asyncio.fixture(loop_scope="session")
async def stage(workshop: Stage) -> AsyncIterator[Stage]:
    """The workshop, for one test. At its end nothing may be left over."""
    workshop.begin()
    yield workshop
    await workshop.end()


@pytest.fixture
def wire() -> Iterator[Wire]:
    """What the SDKs of one test are answered. In the end all of it must have the form the API has."""
    wire = Wire()
    yield wire
    check_wire(wire)


@pytest_asyncio.fixture(loop_scope="session")
async def client(stage: Stage, wire: Wire) -> AsyncIterator[Any]:
    """An asynchronous client of openai-python for the workshop."""
    async with sdk(stage.process.url, wire) as client:
        yield client


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def counting_server() -> AsyncIterator[Stage]:
    """The handler that counts its runs."""
    async with stage_of("responses_plain.py:counting") as stage:
        yield stage


@pytest.fixture(scope="session")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Scripts:
    """What runs the JavaScript clients."""
    try:
        return Scripts(tmp_path_factory.mktemp("node"))
    except NodeMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def preloaded() -> Iterator[Preloaded]:
    """What starts servers without their imports."""
    with preloading() as preloaded:
        yield preloaded


@pytest_asyncio.fixture
async def site(request: pytest.FixtureRequest, preloaded: Preloaded, tmp_path: Path) -> AsyncIterator[Site]:
    """Servers on one store: a SQLite file, or what the test's parameter names."""
    site = Site(tmp_path, _store_of(request, getattr(request, "param", "sqlite")), preloaded)
    yield site
    await site.end()


@pytest.fixture(scope="module", params=["memory", "sqlite", "redis", "postgres"])
def kept_in(request: pytest.FixtureRequest) -> str:
    """What kind of place the sessions of the fuzzed application are in."""
    place: str = request.param
    return place


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fuzzed(
    kept_in: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """The application with every kind of route. At the end its sessions must be where they belong."""
    needs_bubblewrap()
    file = tmp_path_factory.mktemp("fuzzed") / "sessions.db"
    url = "memory" if kept_in == "memory" else _store_of(request, kept_in) or f"sqlite:///{file}"
    async with stage_of("fuzzed.py", GREENROOM_SESSIONS=url) as stage:
        yield stage
        status, answer = await stage.client.json("POST", "/process", json=body("hi", "last", stream=False))
        assert status == 200, answer
    if url != "memory":
        storage = storage_at(url)
        await storage.start()
        assert await storage.read(folder_of(SessionKey(owner(None, None, "last"), "last")))
        await storage.stop()


@pytest_asyncio.fixture
async def on_server(store: Store, preloaded: Preloaded, tmp_path: Path) -> AsyncIterator[Site]:
    """Servers on a store that is to fail."""
    site = Site(tmp_path, store.url, preloaded)
    yield site
    await site.end()


def _store_of(request: pytest.FixtureRequest, engine: str) -> str | None:
    mine = f"site_{uuid.uuid4().hex}"
    if engine == "redis":
        redis: RedisServer = request.getfixturevalue("redis_server")
        return redis.url(f"?prefix={mine}")
    if engine == "postgres":
        postgres: PostgresServer = request.getfixturevalue("postgres_server")
        return postgres.url(query=f"&schema={mine}")
    return None
