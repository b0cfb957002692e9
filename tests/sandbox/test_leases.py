"""Where leases are kept."""

import asyncio
import sqlite3
import stat
import sys
from pathlib import Path

import pytest

from greenroom.actors.errors import ConfigurationError, LeaseHeld, SandboxUnavailable
from greenroom.sandbox.leases import Leases
from greenroom.sandbox.sqlite_leases import SqliteLeases
from kits.leases_kit import KEY, LeasesKit, lease
from kits.memory_leases import MemoryLeases


class TestMemoryLeases(LeasesKit):
    apart = True

    def leases(self, folder: Path) -> Leases:
        return MemoryLeases()


class TestSqliteLeases(LeasesKit):
    def leases(self, folder: Path) -> Leases:
        return SqliteLeases(folder / "state" / "leases.sqlite")

    async def test_they_outlive_who_wrote_them(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as leases:
            await leases.add(lease())
        async with self.opened(tmp_path) as leases:
            assert await leases.all() == [lease()]


async def test_the_file_is_its_user_s_alone_and_in_the_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREENROOM_STATE", str(tmp_path / "state"))
    leases = SqliteLeases()
    assert leases.path == tmp_path / "state" / "leases.sqlite"
    await leases.start()
    assert stat.S_IMODE(leases.path.stat().st_mode) == 0o600
    await leases.stop()


async def test_it_says_so_when_it_is_not_started(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="start"):
        await SqliteLeases(tmp_path / "leases.sqlite").all()


async def test_no_lease_is_written_twice(tmp_path: Path) -> None:
    leases = SqliteLeases(tmp_path / "leases.sqlite")
    await leases.start()
    await leases.add(lease(1, None))
    with pytest.raises(SandboxUnavailable, match="UNIQUE"):
        await leases.add(lease(1, None))
    await leases.stop()


async def test_a_file_that_is_none_of_ours_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "leases.sqlite").write_bytes(b"no database at all" * 100)
    leases = SqliteLeases(tmp_path / "leases.sqlite")
    with pytest.raises(SandboxUnavailable, match=r"leases\.sqlite.*GREENROOM_STATE"):
        await leases.start()
    await leases.stop()


async def test_another_process_s_long_write_is_waited_for_off_the_loop(tmp_path: Path) -> None:
    leases = SqliteLeases(tmp_path / "leases.sqlite")
    await leases.start()
    other = sqlite3.connect(leases.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    adding = asyncio.create_task(leases.add(lease()))
    for _ in range(20):  # the loop goes on
        await asyncio.sleep(0.005)
    assert not adding.done()
    other.execute("COMMIT")
    other.close()
    await adding
    await leases.stop()


RACER = """
import asyncio, sys
from pathlib import Path
from greenroom.actors.errors import LeaseHeld
from greenroom.sandbox.sqlite_leases import SqliteLeases
sys.path.insert(0, "tests")
from kits.leases_kit import KEY, lease

async def main(me, path):
    leases = SqliteLeases(Path(path))
    await leases.start()
    got = 0
    for number in range(40):
        key = KEY._replace(session_id=str(number))
        try:
            await leases.add(lease(number + 1000 * int(me), key, owner=me))
            got += 1
        except LeaseHeld:
            pass
    await leases.stop()
    print(got)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_of_several_processes_one_gets_each_key(tmp_path: Path) -> None:
    path = tmp_path / "leases.sqlite"
    racers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", RACER, str(me), str(path), stdout=asyncio.subprocess.PIPE
        )
        for me in (1, 2, 3)
    ]
    got = [int((await racer.communicate())[0]) for racer in racers]
    assert sum(got) == 40
    leases = SqliteLeases(path)
    await leases.start()
    assert len({found.key for found in await leases.all()}) == 40
    with pytest.raises(LeaseHeld):
        await leases.add(lease(1, KEY._replace(session_id="7")))
    await leases.stop()
