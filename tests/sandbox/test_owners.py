"""Who owns boxes, and who of them is dead."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from greenroom.actors.errors import SandboxUnavailable
from greenroom.sandbox.box_folders import BoxFolders
from greenroom.sandbox.owners import Owners

LIVING = """
import asyncio, os, sys
from pathlib import Path
from greenroom.sandbox.owners import Owners

async def main(folder, forks):
    owners = Owners(Path(folder))
    await owners.enter("fake")
    if int(forks) and os.fork() == 0:
        sys.stdin.read()  # a child that outlives us
        os._exit(0)
    print(owners.id, flush=True)
    await asyncio.sleep(600)

asyncio.run(main(*sys.argv[1:]))
"""


async def living(folder: Path, forks: int = 0) -> tuple[asyncio.subprocess.Process, str]:
    """Another process that owns boxes."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", LIVING, str(folder), str(forks)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    return process, (await process.stdout.readline()).decode().strip()


async def gone(process: asyncio.subprocess.Process) -> None:
    """Wait until it has ended, and its child if it has one: that reads until its input ends."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    await process.stdout.read()
    await process.wait()


async def test_one_that_is_killed_is_dead_and_one_that_lives_is_alive(tmp_path: Path) -> None:
    folder = tmp_path / "owners"
    owners = Owners(folder)
    await owners.enter("fake")
    process, other = await living(folder)
    assert await owners.standing() == {owners.id: "ours", other: "alive"}
    process.send_signal(signal.SIGKILL)
    await gone(process)
    assert await owners.standing() == {owners.id: "ours", other: "dead"}
    await owners.forget(other)
    assert await owners.standing() == {owners.id: "ours"}
    await owners.leave(all_gone=True)
    assert list(folder.iterdir()) == []


async def test_a_forked_child_does_not_keep_it_alive(tmp_path: Path) -> None:
    owners = Owners(tmp_path / "owners")
    process, other = await living(owners.folder, forks=1)
    assert (await owners.standing())[other] == "alive"
    os.kill(process.pid, signal.SIGKILL)
    with anyio.fail_after(20):  # `wait` would wait for the child, which has the same output
        while (await owners.standing())[other] == "alive":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await gone(process)


async def test_two_in_one_process_are_two(tmp_path: Path) -> None:
    first, second = Owners(tmp_path / "owners"), Owners(tmp_path / "owners")
    await first.enter("fake")
    await second.enter("fake")
    await second.enter("fake")
    assert await first.standing() == {first.id: "ours", second.id: "alive"}
    await second.leave(all_gone=False)
    assert (await first.standing())[second.id] == "dead"
    await first.leave(all_gone=True)
    await first.leave(all_gone=True)


async def test_what_a_dead_one_left_in_another_engine_is_not_ours_to_judge(tmp_path: Path) -> None:
    first, second, third = (Owners(tmp_path / "owners") for _ in range(3))
    await first.enter("docker unix:///a.sock")
    await first.leave(all_gone=False)
    assert await second.standing() == {first.id: "dead"}  # to one that only looks
    await second.enter("docker unix:///b.sock")
    await third.enter("docker unix:///a.sock")
    assert (await second.standing())[first.id] == "elsewhere"
    assert (await third.standing())[first.id] == "dead"
    await third.forget(first.id)
    await third.forget(first.id)
    assert first.id not in await second.standing()
    (tmp_path / "owners" / "cut-off").write_bytes(b"{")
    assert (await second.standing())["cut-off"] == "dead"


async def test_a_folder_that_is_of_no_use_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "owners").write_text("a file")
    with pytest.raises(SandboxUnavailable, match="GREENROOM_STATE"):
        await Owners(tmp_path / "owners").enter("fake")


# ------------------------------------------------------------------------------------------------------- directories


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A socket's path may not be long."""
    with tempfile.TemporaryDirectory(prefix="gr-") as folder:
        yield Path(folder)


async def test_a_box_has_a_private_directory_whose_owner_is_known(tmp_path: Path, short_folder: Path) -> None:
    folders = BoxFolders(short_folder)
    assert await folders.all() == {}
    directory = await folders.make("a" * 32, "me")
    assert directory.stat().st_mode & 0o777 == 0o700
    (directory / "profile").mkdir()
    (directory / "profile" / "link").symlink_to(tmp_path)
    assert await folders.all() == {"a" * 32: "me"}
    await folders.remove("a" * 32)
    await folders.remove("a" * 32)
    assert await folders.all() == {}
    assert not directory.exists()
    assert tmp_path.is_dir()


async def test_a_path_too_long_for_a_socket_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(SandboxUnavailable, match=r"107.*GREENROOM_RUN"):
        await BoxFolders(tmp_path / ("x" * 60)).make("a" * 32, "me")
    with pytest.raises(SandboxUnavailable, match="GREENROOM_RUN"):
        await BoxFolders(Path("/proc/nowhere")).make("a" * 32, "me")
