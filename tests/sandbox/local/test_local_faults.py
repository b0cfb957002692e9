"""Boxes of the local backend end with the process that made them, and not before."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from greenroom.actors.errors import SandboxUnavailable
from greenroom.sandbox.backend import BOX_SECONDS, BoxSpec, FoundBox
from greenroom.sandbox.client import BoxClient
from greenroom.sandbox.local.backend import LocalBackend
from greenroom.sandbox.local.cgroups import find_cgroups
from greenroom.sandbox.local.place import why_no_namespaces
from greenroom.sandbox.local.processes import marked, tree
from greenroom.sandbox.local.records import Records
from greenroom.sandbox.local.spawn import launching
from greenroom.sandbox.settings import SandboxSettings

if shutil.which("bwrap") is None:
    pytest.skip("needs bubblewrap: apt-get install bubblewrap", allow_module_level=True)

OWNER = """
import asyncio, json, sys
from pathlib import Path
from greenroom.sandbox.backend import BoxSpec
from greenroom.sandbox.client import BoxClient
from greenroom.sandbox.local.backend import LocalBackend
from greenroom.sandbox.settings import SandboxSettings

async def main():
    folder, leases, paused = Path(sys.argv[1]), sys.argv[3:], sys.argv[2] == "paused"
    backend = LocalBackend(SandboxSettings())
    await backend.start()
    for lease in leases:
        (folder / lease).mkdir(mode=0o700)
        spec = BoxSpec(lease=lease, owner="killed", kind="base", token="t" * 32, directory=folder / lease)
        client = BoxClient(await backend.create(spec))
        await client.ready(60.0)
        await client.call("run_shell_command", {"command": "setsid nohup sleep 987654 >/dev/null 2>&1 &"}, 20.0)
        await client.close()
        if paused:
            await backend.pause(lease)
    print("made", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def made(folder: Path) -> BoxSpec:
    """A box to make."""
    lease = secrets.token_hex(16)
    (folder / lease).mkdir(mode=0o700)
    return BoxSpec(
        lease=lease, owner="faults", kind="base", token=secrets.token_hex(16), directory=folder / lease
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a short path, which is what a socket's may be."""
    path = Path(tempfile.mkdtemp(prefix="gr-"))
    yield path
    shutil.rmtree(path)


@asynccontextmanager
async def backend_at_work(settings: SandboxSettings | None = None) -> AsyncIterator[LocalBackend]:
    backend = LocalBackend(settings or SandboxSettings())
    await backend.start()
    try:
        yield backend
    finally:
        await backend.stop()


def processes_of(leases: Sequence[str]) -> list[int]:
    """All in these boxes, as the host numbers them."""
    firsts = [record.first for record in map(Records().read, leases) if record is not None]
    return [stat.pid for first in firsts if first is not None for stat in tree(first.pid)]


async def those_of(backend: LocalBackend, leases: Sequence[str]) -> set[FoundBox]:
    """What the backend says of them."""
    return {box for box in await backend.boxes() if box.lease in leases}


def has_groups(leases: Sequence[str]) -> bool:
    """Whether a control group is left of any of them."""
    groups = find_cgroups()
    return groups is not None and any(map(groups.has, leases))


async def until(true: Callable[[], bool], seconds: float) -> None:
    """Wait for other processes, who tell nobody."""
    deadline = time.monotonic() + seconds
    while not await to_thread.run_sync(true):
        assert time.monotonic() < deadline, "it does not become true"
        await anyio.sleep(0.01)


@pytest.mark.parametrize("state", ["running", "paused"])
async def test_boxes_end_with_a_process_that_is_killed(folder: Path, state: str) -> None:
    leases = [secrets.token_hex(16) for _ in range(2)]
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(folder), state, *leases, stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    assert await owner.stdout.readline() == b"made\n"
    inside = await to_thread.run_sync(processes_of, leases)
    assert len(inside) >= 6  # of each: bubblewrap's, the tool server, what it started
    async with backend_at_work() as backend:
        assert await those_of(backend, leases) == {FoundBox(lease, "killed", True) for lease in leases}

        owner.send_signal(signal.SIGKILL)
        await owner.wait()
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in inside), 10.0)

        assert await those_of(backend, leases) == {FoundBox(lease, "killed", False) for lease in leases}
        for lease in leases:
            await backend.remove(lease)
        assert not await those_of(backend, leases)
        assert not await to_thread.run_sync(has_groups, leases)


async def test_a_box_outlives_the_thread_and_the_loop_it_was_made_in(folder: Path) -> None:
    spec = made(folder)

    async def make() -> None:
        async with backend_at_work() as backend:
            await backend.create(spec)

    thread = threading.Thread(target=asyncio.run, args=(make(),))
    thread.start()
    await to_thread.run_sync(thread.join)
    await to_thread.run_sync(thread.join)
    async with backend_at_work() as later:
        box = FoundBox(spec.lease, spec.owner, True)
        assert box in await later.boxes()
        await anyio.sleep(0.1)  # the kernel would have sent its signal when the thread ended
        assert box in await later.boxes()
        await later.remove(spec.lease)
        assert box.lease not in {left.lease for left in await later.boxes()}


async def test_what_starts_too_late_to_be_taken_along_does_not_start() -> None:
    orphan = launching(["echo", "started"], [])
    own = str(os.getpid())
    assert own in orphan
    for who, said in ((own, b"started\n"), ("1", b"")):
        command = [who if word == own else word for word in orphan]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert (await process.communicate())[0] == said


async def test_a_box_that_cannot_be_made_says_why_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with backend_at_work() as backend:
        spec = made(folder)
        assert backend._boxes is not None
        monkeypatch.setattr(
            backend._boxes, "_place", backend._boxes._place.__replace__(image=Path("/missing"))
        )
        with pytest.raises(SandboxUnavailable, match="/missing"):
            await backend.create(spec)
        await backend.remove(spec.lease)
        assert spec.lease not in {box.lease for box in await backend.boxes()}


@pytest.mark.usefixtures("no_bubblewrap")
async def test_a_tool_server_that_does_not_start_says_why_at_once(tmp_path: Path) -> None:
    async with backend_at_work(SandboxSettings(unsafe_local_browser=True)) as backend:
        far = tmp_path / ("too-long-for-a-socket" * 5)
        far.mkdir()
        spec = made(far)
        with pytest.raises(SandboxUnavailable, match=r"tool server ended at its start: .*path too long"):
            await backend.create(spec)
        await backend.remove(spec.lease)


# --------------------------------------------------------------------------------------------------- without bubblewrap


@pytest.fixture
def no_bubblewrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path with everything but that."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for place in ("/usr/bin", "/bin"):
        for program in Path(place).iterdir():
            link = folder / program.name
            if program.name != "bwrap" and not link.is_symlink():
                link.symlink_to(program)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.usefixtures("no_bubblewrap")
async def test_without_bubblewrap_there_is_no_box_unless_asked_for() -> None:
    with pytest.raises(SandboxUnavailable, match=r"apt-get install bubblewrap.*unsafe_local_browser=True"):
        await LocalBackend(SandboxSettings()).start()


@pytest.mark.usefixtures("no_bubblewrap")
async def test_the_unsafe_opt_in_is_loud_and_ends_all_it_started(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with backend_at_work(SandboxSettings(unsafe_local_browser=True)) as backend:
            spec = made(folder)
            client = BoxClient(await backend.create(spec))
            await client.ready(BOX_SECONDS)
            await client.call("run_shell_command", {"command": "setsid sleep 987653 & echo $!"}, 20.0)
            await client.close()
            assert FoundBox(spec.lease, spec.owner, True) in await backend.boxes()
            await backend.remove(spec.lease)
            assert not await to_thread.run_sync(marked, f"GREENROOM_LEASE={spec.lease}")
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert sum("WITHOUT ISOLATION" in warning for warning in warnings) == 2
    assert "bubblewrap is missing" in warnings[0]


@pytest.mark.parametrize(
    ("setting", "value", "cure"),
    [
        ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces="),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor profile"),
    ],
)
def test_where_user_namespaces_are_off_the_setting_is_named(
    tmp_path: Path, setting: str, value: str, cure: str
) -> None:
    file = tmp_path / setting
    file.parent.mkdir()
    file.write_text(f"{value}\n")
    said = why_no_namespaces("bwrap: setting up uid map: Permission denied", tmp_path)
    assert setting.replace("/", ".") in said
    assert cure in said
    assert "unsafe_local_browser=True" in said


def test_in_a_container_its_profile_is_named(tmp_path: Path) -> None:
    said = why_no_namespaces("bwrap: Creating new namespace failed: Operation not permitted", tmp_path)
    assert "seccomp=unconfined" in said
    assert "Creating new namespace failed" in said
