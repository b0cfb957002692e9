"""What a running box looks like from the host: every rule of its isolation is on, not only asked for."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from greenroom.sandbox.backend import BOX_SECONDS, MIB, BoxKind, BoxLimits, BoxSpec
from greenroom.sandbox.client import BoxClient
from greenroom.sandbox.docker.backend import DockerBackend
from greenroom.sandbox.docker.config import BOX_USER, container_name
from greenroom.sandbox.docker.engine import Engine
from greenroom.sandbox.settings import SandboxSettings
from kits.engine import OwnEngine

pytestmark = pytest.mark.slow

LIMITS = BoxLimits(memory=700 * MIB, pids=300, cpus=1.5, temporary=64 * MIB, workspace=48 * MIB)


class Seen:
    """A running box, its container as the engine shows it, and its processes as the host does."""

    def __init__(self, spec: BoxSpec, client: BoxClient, shown: dict[str, Any], folder: Path) -> None:
        self.spec = spec
        self.client = client
        self.shown = shown
        self.folder = folder

    @property
    def first(self) -> int:
        """The host's pid of the box's first process."""
        return int(self.shown["State"]["Pid"])

    def processes(self) -> list[Path]:
        """Where the host shows the box's processes: all that have its pid namespace or one below it."""
        first = Path(f"/proc/{self.first}")
        found = [first]
        for parent in found:
            children = (parent / "task").glob("*/children")
            found += [Path(f"/proc/{pid}") for file in children for pid in file.read_text().split()]
        return found


@asynccontextmanager
async def running(engine: OwnEngine, folder: Path, kind: BoxKind = "base") -> AsyncIterator[Seen]:
    """A box that answers."""
    backend = DockerBackend(SandboxSettings(docker_host=engine.url, image=engine.image))
    lease = secrets.token_hex(16)
    directory = folder / lease
    await anyio.Path(directory).mkdir(mode=0o700)
    spec = BoxSpec(
        lease=lease,
        owner="isolation",
        kind=kind,
        token=secrets.token_hex(16),
        directory=directory,
        limits=LIMITS,
    )
    looker = Engine(engine.url)
    await looker.open()
    await backend.start()
    try:
        client = BoxClient(await backend.create(spec))
        try:
            await client.ready(BOX_SECONDS, warm=True)
            shown = await looker.json("GET", f"containers/{container_name(lease)}/json")
            yield Seen(spec, client, shown, folder)
        finally:
            await client.close()
    finally:
        with anyio.CancelScope(shield=True):
            await backend.remove(lease)
            await backend.stop()
            await looker.close()


def status(process: Path) -> Mapping[str, str]:
    """The host's description of a process."""
    lines = (process / "status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.fixture(params=["docker", "podman"])
def engine(request: pytest.FixtureRequest) -> OwnEngine:
    """Each of the engines."""
    found: OwnEngine = request.getfixturevalue(f"{request.param}_engine")
    return found


async def test_its_processes_are_nobody_and_may_do_nothing(engine: OwnEngine, tmp_path: Path) -> None:
    async with running(engine, tmp_path) as box:
        processes = box.processes()
        assert len(processes) >= 2
        for process in processes:
            said = status(process)
            assert said["Uid"].split() == said["Gid"].split() == [str(BOX_USER)] * 4
            assert said["Groups"].split() in ([], [str(BOX_USER)])
            assert {int(said[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
            assert (said["NoNewPrivs"], said["Seccomp"]) == ("1", "2")


async def test_its_namespaces_are_its_own(engine: OwnEngine, tmp_path: Path) -> None:
    async with running(engine, tmp_path) as box:
        for name in ("mnt", "pid", "net", "ipc", "uts"):
            inside = (Path(f"/proc/{box.first}/ns") / name).readlink()
            assert inside != (Path("/proc/self/ns") / name).readlink(), name


async def test_it_has_no_network_device_but_the_loopback(engine: OwnEngine, tmp_path: Path) -> None:
    async with running(engine, tmp_path) as box:
        devices = Path(f"/proc/{box.first}/net/dev").read_text().splitlines()[2:]
        assert [line.partition(":")[0].strip() for line in devices] == ["lo"]
        routes = Path(f"/proc/{box.first}/net/route").read_text().splitlines()[1:]
        assert routes == []


async def test_all_it_may_write_to_is_in_its_memory(engine: OwnEngine, tmp_path: Path) -> None:
    async with running(engine, tmp_path) as box:
        mounts = [line.split() for line in Path(f"/proc/{box.first}/mounts").read_text().splitlines()]
        options = {words[1]: (words[2], words[3].split(",")) for words in mounts}
        assert "ro" in options["/"][1]
        on_disk = {
            path
            for path, (kind, set_to) in options.items()
            if "rw" in set_to
            and kind not in {"tmpfs", "proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2"}
        }
        assert on_disk <= {"/box"}
        places = " ".join(path for path, (kind, _) in options.items() if kind in {"tmpfs", "mqueue"})
        tried = await box.client.call(
            "run_shell_command",
            {"command": f"for f in {places}; do test -d $f -a -w $f && echo $f; done"},
            20,
        )
        assert set(tried.part("stdout").split()) <= {"/tmp", "/workspace", "/dev/shm", "/dev/mqueue"}
        for path, size in (("/tmp", LIMITS.temporary), ("/workspace", LIMITS.workspace)):
            assert options[path][0] == "tmpfs"
            assert {"nosuid", "nodev", f"size={size // 1024}k"} <= set(options[path][1])
        said = await box.client.call(
            "run_shell_command", {"command": "touch /box/x /box/api.sock.x; rm /box/api.sock"}, 20
        )
        assert said.is_error
        assert {file.name for file in box.spec.directory.iterdir()} == {"api.sock"}
        assert box.spec.directory.stat().st_mode & 0o777 == 0o710


async def test_what_it_uses_is_bounded_by_the_kernel(engine: OwnEngine, tmp_path: Path) -> None:
    async with running(engine, tmp_path) as box:
        bounds = await asyncio.to_thread(cgroup_bounds, box.first)
        assert bounds["memory"] == LIMITS.memory
        assert bounds["memory and swap"] in {LIMITS.memory, None}  # None: this kernel does not count swap
        assert bounds["pids"] == LIMITS.pids
        assert bounds["cpus"] == LIMITS.cpus
        files = next(
            line.split()[3:5]
            for line in Path(f"/proc/{box.first}/limits").read_text().splitlines()
            if line.startswith("Max open files")
        )
        assert files == ["16384", "16384"]


async def test_what_it_writes_to_its_log_is_bounded(engine: OwnEngine, tmp_path: Path) -> None:
    async with running(engine, tmp_path) as box:
        command = "head -c 8000000 /dev/zero | tr '\\0' x | fold > /proc/1/fd/1 && echo written"
        said = await box.client.call("run_shell_command", {"command": command}, 60.0)
        assert said.part("stdout").strip() == "written"
        log = Path(box.shown["LogPath"])
        assert sum(file.stat().st_size for file in log.parent.glob(f"{log.name}*")) < 2 * MIB


async def test_nothing_says_its_token(engine: OwnEngine, tmp_path: Path) -> None:
    async with running(engine, tmp_path) as box:
        assert box.spec.token not in str(box.shown)
        for process in box.processes():
            for file in ("cmdline", "environ"):
                assert box.spec.token.encode() not in (process / file).read_bytes()


async def test_the_browser_s_own_sandbox_is_on(engine: OwnEngine, tmp_path: Path) -> None:
    async with running(engine, tmp_path, "browser") as box:
        await box.client.call("browser_navigate", {"url": "data:text/html,<h1>here</h1>"}, 60.0)
        lines = {process: (process / "cmdline").read_bytes() for process in box.processes()}
        browsers = {process: line for process, line in lines.items() if b"chromium/" in line}
        assert browsers
        assert not any(b"--no-sandbox" in line for line in browsers.values())
        renderers = [process for process, line in browsers.items() if b"--type=renderer" in line]
        assert renderers
        main = (Path(f"/proc/{box.first}") / "ns/user").readlink()
        for renderer in renderers:
            said = status(renderer)
            assert (renderer / "ns/user").readlink() != main  # a user namespace of its own,
            assert (renderer / "ns/net").readlink() != (Path(f"/proc/{box.first}") / "ns/net").readlink()
            assert int(said["Seccomp_filters"]) > 1  # and a filter of system calls besides the box's
            assert len(said["NSpid"].split()) > 2  # and of processes


def cgroup_bounds(pid: int) -> Mapping[str, float | None]:
    """What the kernel lets the process's group have, by version 1 or 2 of control groups."""
    paths = dict[str, str]()
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        paths.update(dict.fromkeys(names.split(","), path))
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        group = Path(f"{root}{paths['']}")
        quota, period = (group / "cpu.max").read_text().split()
        return {
            "memory": _number(group / "memory.max"),
            "memory and swap": None,
            "pids": _number(group / "pids.max"),
            "cpus": int(quota) / int(period),
        }
    memory, cpu = Path(f"{root}/memory{paths['memory']}"), Path(f"{root}/cpu{paths['cpu']}")
    return {
        "memory": _number(memory / "memory.limit_in_bytes"),
        "memory and swap": _number(memory / "memory.memsw.limit_in_bytes"),
        "pids": _number(Path(f"{root}/pids{paths['pids']}/pids.max")),
        "cpus": int((cpu / "cpu.cfs_quota_us").read_text()) / int((cpu / "cpu.cfs_period_us").read_text()),
    }


def _number(path: Path) -> float | None:
    return float(path.read_text()) if path.exists() else None
