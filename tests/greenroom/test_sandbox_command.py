"""`greenroom sandbox`: what it builds, finds, shows and removes."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from greenroom.cli import main
from greenroom.sandbox.backend import BoxLimits, BoxSpec
from greenroom.sandbox.box_folders import BoxFolders
from greenroom.sandbox.docker.backend import DockerBackend
from greenroom.sandbox.doctor import examine
from greenroom.sandbox.keeper import Keeper
from greenroom.sandbox.leases import Lease, LeaseKey, Leases, SharedLeases
from greenroom.sandbox.owners import Owners, sharing
from greenroom.sandbox.settings import SandboxSettings
from greenroom.sandbox.sqlite_leases import SqliteLeases
from greenroom.services.durable_leases import DurableLeases
from greenroom.services.sqlite.storage import SqliteStorage
from kits.engine import OwnEngine
from kits.until import until_answered


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["sandbox", *arguments])


@pytest.fixture
def own_folders(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """State and boxes of nobody else's, with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="gr-"))
    folder.chmod(0o711)
    monkeypatch.setenv("GREENROOM_STATE", str(folder / "state"))
    monkeypatch.setenv("GREENROOM_RUN", str(folder / "run"))
    for name in ("GREENROOM_SANDBOX", "GREENROOM_SANDBOX_BROWSER", "GREENROOM_SESSIONS"):
        monkeypatch.delenv(name, raising=False)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def nothing_here(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine, no bubblewrap, no browser."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{own_folders}/engine.sock")
    monkeypatch.setenv("PATH", str(own_folders))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(own_folders))


@pytest.fixture
def settings(docker_engine: OwnEngine, own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> SandboxSettings:
    """Those of an environment that names the tests' own engine."""
    monkeypatch.setenv("DOCKER_HOST", docker_engine.url)
    monkeypatch.setenv("GREENROOM_SANDBOX_IMAGE", docker_engine.image)
    return SandboxSettings.from_environ()


class Leftover:
    """A box with its lease and directory, whose owner is what `enter` makes it."""

    def __init__(self, settings: SandboxSettings, leases: Leases | None = None) -> None:
        self.backend = DockerBackend(settings)
        self.leases = leases or SqliteLeases()
        self.owners = Owners()
        self.folders = BoxFolders()
        self.lease = secrets.token_hex(16)

    async def make(self) -> None:
        await self.leases.start()
        place = self.leases.place if isinstance(self.leases, SharedLeases) else ""
        await self.owners.enter(sharing("docker", place) if place else "docker")
        key = LeaseKey("ada", "tuesday", "base")
        await self.leases.add(
            Lease(id=self.lease, key=key, owner=self.owners.id, backend="docker", state="ready", created=0.0)
        )
        await self.backend.start()
        directory = await self.folders.make(self.lease, self.owners.id)
        await self.backend.create(
            BoxSpec(lease=self.lease, owner=self.owners.id, kind="base", token="x" * 32, directory=directory)
        )
        await self.leases.stop()
        await self.backend.stop()

    async def left(self) -> tuple[bool, bool, bool]:
        """Whether there is still the box, the lease, the directory."""
        await self.backend.start()
        await self.leases.start()
        try:
            boxes = {box.lease for box in await self.backend.boxes()}
            leases = {lease.id for lease in await self.leases.all()}
            return self.lease in boxes, self.lease in leases, self.lease in await self.folders.all()
        finally:
            await self.leases.stop()
            await self.backend.stop()

    async def clear(self) -> None:
        await self.backend.start()
        await self.backend.remove(self.lease)
        await self.backend.stop()
        await self.owners.leave(all_gone=True)


@pytest.fixture
def leftover(settings: SandboxSettings) -> Iterator[Leftover]:
    """A box in use by this process."""
    found = Leftover(settings)
    asyncio.run(found.make())
    yield found
    asyncio.run(found.clear())


@pytest.fixture
def shared_leftover(settings: SandboxSettings, own_folders: Path) -> Iterator[Leftover]:
    """One whose lease is beside the sessions of its application, in `sessions.db`."""
    found = Leftover(settings, DurableLeases(SqliteStorage(own_folders / "sessions.db")))
    asyncio.run(found.make())
    yield found
    asyncio.run(found.clear())


async def remote_lease(where: str, created: float = 0.0) -> str:
    """A dead process had the box at a URL; its lease."""
    owners, leases, lease = Owners(), SqliteLeases(), secrets.token_hex(16)
    await owners.enter(where)
    await leases.start()
    key = LeaseKey("ada", "monday", "browser")
    await leases.add(
        Lease(id=lease, key=key, owner=owners.id, backend="remote", state="ready", created=created)
    )
    await leases.stop()
    await owners.leave(all_gone=False)
    return lease


@pytest.mark.usefixtures("nothing_here")
def test_the_doctor_says_what_to_do_where_nothing_works() -> None:
    result = run("doctor")
    assert result.exit_code == 1
    for said in (
        "no  engine: ",
        "no  docker: ",
        "no  bubblewrap: ",
        "no  browser: ",
        "no  local: ",
        "no  auto: ",
    ):
        assert said in result.stdout
    for todo in ("DOCKER_HOST", "apt-get install docker.io", "apt-get install bubblewrap", "mmdebstrap"):
        assert todo in result.stdout


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("http://127.0.0.1:9", "no  remote: the sandbox at http://127.0.0.1:9/fastapi cannot be used"),
        ("dokcer", "no  remote: there is no sandbox backend 'dokcer'"),
        ("local", "no  local: "),
    ],
)
@pytest.mark.usefixtures("nothing_here")
def test_the_doctor_judges_the_backend_that_is_named(
    backend: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREENROOM_SANDBOX", backend)
    monkeypatch.setenv("GREENROOM_SANDBOX_TOKEN", "secret")
    result = run("doctor")
    assert result.exit_code == 1
    assert said in result.stdout
    assert "docker:" not in result.stdout  # it is not asked for
    assert result.stdout.splitlines()[-1].startswith(f"no  chosen: sandboxes are to come from '{backend}'")


@pytest.mark.usefixtures("nothing_here")
def test_building_without_an_engine_says_why() -> None:
    result = run("build")
    assert result.exit_code == 1
    assert "does not answer" in result.stderr
    assert not result.stdout


@pytest.mark.usefixtures("nothing_here")
def test_where_there_are_no_sandboxes_ps_says_so() -> None:
    result = run("ps")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no sandboxes" in result.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("settings")
def test_the_doctor_makes_a_box_and_its_browser_shows_a_page() -> None:
    result = run("doctor")
    assert result.exit_code == 0, result.output
    for said in (
        "ok  engine: Docker",
        "ok  image: ",
        "ok  docker: a box was made",
        "ok  auto: sandboxes come from docker",
    ):
        assert said in result.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("own_folders")
async def test_an_engine_that_is_taken_and_whose_boxes_do_not_work_is_a_failure(
    settings: SandboxSettings,
) -> None:
    tiny = msgspec.structs.replace(settings, limits=BoxLimits(pids=1))  # too few for a box to start
    findings = [finding async for finding in examine(tiny)]
    assert not findings[-1].ok
    assert findings[-1].text.startswith("sandboxes come from docker, as it starts, and its boxes do not work")


@pytest.mark.slow
async def test_what_a_killed_doctor_left_the_next_keeper_removes(settings: SandboxSettings) -> None:
    before = set(Path(tempfile.gettempdir()).glob("greenroom-doctor-*"))
    environ = {**os.environ, "GREENROOM_SANDBOX": "docker"}
    leases, backend = SqliteLeases(), DockerBackend(settings)
    await backend.start()
    doctor = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "greenroom.cli", "sandbox", "doctor"), env=environ, stdout=subprocess.DEVNULL
    )
    await leases.start()
    running = set[str]()

    async def has_a_box() -> bool:
        assert doctor.returncode is None
        mine = {lease.id for lease in await leases.all()}
        running.update(box.lease for box in await backend.boxes() if box.running and box.lease in mine)
        return bool(running)

    try:
        await until_answered(has_a_box, 60.0)
    finally:
        doctor.kill()
        await doctor.wait()
    await leases.stop()
    assert running & {box.lease for box in await backend.boxes()}  # it is there still
    keeper = Keeper(backend, settings)
    await keeper.start()
    assert not running & {box.lease for box in await backend.boxes()}
    assert await BoxFolders().all() == {}
    await keeper.stop()
    await leases.start()
    assert await leases.all() == []
    await leases.stop()
    assert set(Path(tempfile.gettempdir()).glob("greenroom-doctor-*")) <= before


@pytest.mark.slow
def test_an_image_that_is_there_is_not_built_again(
    docker_engine: OwnEngine, settings: SandboxSettings
) -> None:
    result = run("build")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(docker_engine.image)


@pytest.mark.slow
def test_what_a_dead_process_left_is_shown_and_removed(leftover: Leftover) -> None:
    asyncio.run(leftover.owners.leave(all_gone=False))
    shown = run("ps")
    assert shown.exit_code == 0, shown.output
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith(leftover.lease[:8])]
    assert line.split()[1:7] == ["tuesday", "ada", "base", "docker", "running", "dead"]

    result = run("stop")
    assert result.exit_code == 0, result.output
    assert f"removed {leftover.lease[:8]} (docker)" in result.stdout
    assert asyncio.run(leftover.left()) == (False, False, False)


@pytest.mark.slow
def test_a_living_process_s_box_is_removed_only_by_name_and_its_lease_stays(leftover: Leftover) -> None:
    assert run("stop").exit_code == 0
    assert asyncio.run(leftover.left()) == (True, True, True)
    result = run("stop", leftover.lease[:10])
    assert result.exit_code == 0, result.output
    assert asyncio.run(leftover.left()) == (False, True, True)  # its owner sees to the rest


@pytest.mark.slow
@pytest.mark.usefixtures("settings")
def test_a_lease_that_is_not_there_cannot_be_stopped() -> None:
    result = run("stop", "feedbeef")
    assert result.exit_code == 1
    assert "greenroom sandbox ps" in result.stderr


@pytest.mark.slow
def test_what_cannot_be_removed_does_not_keep_the_others(leftover: Leftover) -> None:
    remote = asyncio.run(remote_lease("remote http://127.0.0.1:9/fastapi", created=-1.0))
    asyncio.run(leftover.owners.leave(all_gone=False))
    result = run("stop")
    assert result.exit_code == 1
    assert f"removed {leftover.lease[:8]} (docker)" in result.stdout
    assert f"not removed: {remote[:8]} (remote): " in result.stderr
    assert "set GREENROOM_SANDBOX to its URL" in result.stderr
    assert asyncio.run(leftover.left()) == (False, False, False)
    assert remote[:8] in run("ps").stdout


@pytest.mark.usefixtures("nothing_here")
def test_what_a_dead_process_had_at_a_url_is_removed_where_the_settings_name_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remote = asyncio.run(remote_lease("remote http://127.0.0.1:9/fastapi"))
    monkeypatch.setenv("GREENROOM_SANDBOX_TOKEN", "secret")
    monkeypatch.setenv("GREENROOM_SANDBOX", "http://127.0.0.1:8")  # another one
    result = run("stop")
    assert result.exit_code == 1
    assert "'remote' (remote http://127.0.0.1:9/fastapi)" in result.stderr
    monkeypatch.setenv("GREENROOM_SANDBOX", "http://127.0.0.1:9")
    result = run("stop")
    assert (result.exit_code, result.stdout) == (0, f"removed {remote[:8]} (remote)\n")
    assert "no sandboxes" in run("ps").stderr


@pytest.mark.slow
def test_shared_leases_are_read_where_the_sessions_are(
    shared_leftover: Leftover, own_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{own_folders}/sessions.db"
    lease = shared_leftover.lease

    def row(*arguments: str) -> list[str]:
        lines = run("ps", *arguments).stdout.splitlines()
        return next(line.split() for line in lines if line.startswith(lease[:8]))

    assert row()[1:9] == ["-", "-", "-", "docker", "running,", "without", "a", "lease"]
    assert row("--state", url)[1:7] == ["tuesday", "ada", "base", "docker", "running", "alive"]
    monkeypatch.setenv("GREENROOM_SESSIONS", url)
    assert row()[1:7] == ["tuesday", "ada", "base", "docker", "running", "alive"]
    assert "there is no file" in run("ps", "--state", f"{url}.not").stderr


@pytest.mark.slow
def test_a_box_that_may_go_to_another_process_is_not_stopped_unasked(
    shared_leftover: Leftover, own_folders: Path
) -> None:
    url = f"sqlite:///{own_folders}/sessions.db"
    assert isinstance(shared_leftover.leases, DurableLeases)
    another = Owners()  # it lives, and shares the leases
    asyncio.run(another.enter(sharing("docker", shared_leftover.leases.place)))
    asyncio.run(shared_leftover.owners.leave(all_gone=False))

    for arguments, why in [((), "name that with --state"), (("--state", url), "a living process")]:
        result = run("stop", *arguments)
        assert (result.exit_code, result.stdout) == (0, "")
        assert f"left alone: {shared_leftover.lease[:8]} (docker): " in result.stderr
        assert why in result.stderr
    assert asyncio.run(shared_leftover.left()) == (True, True, True)

    asyncio.run(another.leave(all_gone=True))
    result = run("stop", "--state", url)
    assert (result.exit_code, result.stdout) == (0, f"removed {shared_leftover.lease[:8]} (docker)\n")
    assert asyncio.run(shared_leftover.left()) == (False, False, False)
