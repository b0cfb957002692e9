"""The keeper with what it has by itself: leases in SQLite, owners' locks, directories, the egress filter, sockets."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from greenroom.actors.errors import ConfigurationError, SandboxLost, SandboxUnavailable
from greenroom.sandbox.backend import EGRESS_SOCKET
from greenroom.sandbox.box_folders import BoxFolders
from greenroom.sandbox.keeper import Keeper
from greenroom.sandbox.owners import Owners
from greenroom.sandbox.settings import EgressRules, SandboxSettings
from greenroom.sandbox.sqlite_leases import SqliteLeases
from kits.fake_backend import FakeBackend, FakeEngine
from kits.keeping import KEY, OTHER, Gate, ask, raised


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """State and runtime folders of the test's own, with short paths."""
    with tempfile.TemporaryDirectory(prefix="gr-") as folder:
        monkeypatch.setenv("GREENROOM_STATE", f"{folder}/s")
        monkeypatch.setenv("GREENROOM_RUN", f"{folder}/r")
        yield Path(folder)


async def nothing_is_left(engine: FakeEngine) -> bool:
    leases = SqliteLeases()
    await leases.start()
    found = await leases.all()
    await leases.stop()
    return not (engine.boxes or found or await BoxFolders().all() or await Owners().standing())


async def test_a_box_s_whole_life(home: Path) -> None:
    engine = FakeEngine()
    gate = engine.tools["gate"] = Gate()
    keeper = Keeper(FakeBackend(engine), SandboxSettings())
    await keeper.start()
    first = await ask(keeper)
    directory = engine.box().spec.directory
    assert directory == home / "r" / "boxes" / first
    assert (directory / EGRESS_SOCKET).is_socket()
    async with keeper.client(KEY) as client:
        await client.write("a.txt", b"kept")
        assert await client.read("a.txt") == b"kept"

    cancelled = asyncio.create_task(ask(keeper, tool="gate"))
    await gate.begun.wait()
    cancelled.cancel()
    await asyncio.wait({cancelled})
    with anyio.fail_after(10):
        while not engine.box().cancelled:  # noqa: ASYNC110 - the server notices when the connection ends
            await anyio.sleep(0.005)
    assert await ask(keeper) == first

    dying = asyncio.create_task(ask(keeper, tool="gate"))
    while not engine.box().under_way:  # noqa: ASYNC110
        await anyio.sleep(0.005)
    await engine.box().die()
    assert "gone" in await raised(dying, SandboxLost)
    assert await ask(keeper) != first
    await asyncio.gather(*(ask(keeper, OTHER) for _ in range(10)))
    assert len(engine.ever) == 3
    await keeper.stop()
    assert await nothing_is_left(engine)
    assert not list((home / "r" / "boxes").iterdir())


async def test_two_keepers_of_one_process_know_each_other_alive() -> None:
    engine = FakeEngine()
    first, second = (Keeper(FakeBackend(engine), SandboxSettings()) for _ in range(2))
    await first.start()
    await ask(first)
    await second.start()
    assert len(engine.boxes) == 1
    await ask(second, OTHER)
    await first.stop()
    assert len(engine.boxes) == 1
    await second.stop()
    assert await nothing_is_left(engine)


async def test_a_record_of_leases_that_cannot_be_used_is_told_of_at_the_start(home: Path) -> None:
    (home / "s").mkdir(mode=0o700)
    (home / "s" / "leases.sqlite").write_bytes(b"no database" * 500)
    engine = FakeEngine()
    backend = FakeBackend(engine)
    await raised(Keeper(backend, SandboxSettings()).start(), SandboxUnavailable)
    assert not backend.started


async def test_rules_that_cannot_be_understood_are_told_of_before_anything_starts() -> None:
    with pytest.raises(ConfigurationError):
        Keeper(FakeBackend(FakeEngine()), SandboxSettings(egress=EgressRules(private=("everything",))))
