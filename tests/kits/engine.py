"""Container engines of the tests' own: Docker's and Podman's, on sockets that nobody else uses.

What they keep (images, the layers of the build) lies in the user's cache, so that only the first run builds. Runs at
the same time share one engine; the last one to leave stops it. `GREENROOM_TEST_DOCKER` names another engine to use,
`GREENROOM_TEST_IMAGE` an image that it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import pytest

from greenroom.sandbox.building.build import build_image
from greenroom.sandbox.building.context import inputs_digest
from greenroom.sandbox.docker.engine import Engine, EngineError
from greenroom.sandbox.settings import OUR_IMAGE

START_SECONDS = 60.0
OLD_SECONDS = 86_400.0
T = TypeVar("T")

DOCKER = "needs dockerd: apt-get install docker.io iptables, and root to run one of its own"
PODMAN = "needs podman: apt-get install podman, and root to run one of its own"

PODMAN_SETTINGS = """\
[containers]
default_ulimits = ["nofile=16384:16384", "nproc=31000:31000"]
netns = "none"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
"""Podman's own values want systemd, and more open files than some machines give."""


@dataclass(frozen=True)
class OwnEngine:
    """An engine that runs, and has our image. `url`: its socket; `image`: the image's name, which tells its content."""

    url: str
    image: str
    podman: bool


@dataclass(frozen=True)
class Places:
    """Where an engine's things are: `kept` between runs, `run` while it runs (its path is short: it holds sockets)."""

    name: str
    kept: Path
    run: Path

    @property
    def socket(self) -> Path:
        return self.run / "engine.sock"

    @property
    def pid(self) -> Path:
        return self.run / "engine.pid"

    @property
    def log(self) -> Path:
        return self.run / "engine.log"


def places(name: str) -> Places:
    """Of the engine with this name."""
    own, shared = os.environ.get("GREENROOM_CACHE"), os.environ.get("XDG_CACHE_HOME")
    cache = Path(own).expanduser() if own else Path(shared or Path("~/.cache").expanduser()) / "greenroom"
    found = Places(name, cache / "tests" / name, Path(tempfile.gettempdir()) / f"gr-{name}-{os.getuid()}")
    for folder in (found.kept, found.run):
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    return found


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[OwnEngine]:
    """Docker with our image."""
    named = os.environ.get("GREENROOM_TEST_DOCKER")
    if named:
        image = os.environ.get("GREENROOM_TEST_IMAGE")
        yield OwnEngine(named, image, podman=False) if image else with_image(named)
        return
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip(DOCKER)
    own = places("docker")
    with running(own, docker_command(own)):
        with alone(own.run / "build.lock"):
            found = with_image(f"unix://{own.socket}")
        yield found


@pytest.fixture(scope="session")
def podman_engine(docker_engine: OwnEngine) -> Iterator[OwnEngine]:
    """Podman with our image, which Docker built."""
    if os.geteuid() != 0 or shutil.which("podman") is None:
        pytest.skip(PODMAN)
    own = places("podman")
    (own.run / "containers.conf").write_text(PODMAN_SETTINGS)
    with running(own, podman_command(own)):
        with alone(own.run / "build.lock"):
            in_a_loop(lambda: _with_copy(docker_engine, f"unix://{own.socket}"))
        yield OwnEngine(f"unix://{own.socket}", docker_engine.image, podman=True)


def docker_command(own: Places) -> list[str]:
    """The daemon, leaving the host's network alone."""
    network = ("--bridge=none", "--iptables=false", "--ip-forward=false")
    data = ("--data-root", str(own.kept), "--exec-root", str(own.run / "exec"))
    sockets = ("--pidfile", str(own.run / "dockerd.pid"), "-H", f"unix://{own.socket}")
    return ["dockerd", *data, *sockets, *network]


def podman_command(own: Places) -> list[str]:
    """Podman's service, which ends only when it is told to."""
    data = ("--root", str(own.kept), "--runroot", str(own.run / "run"))
    return ["podman", *data, "system", "service", "--time=0", f"unix://{own.socket}"]


# ------------------------------------------------------------------------------------------------------- one for all


@contextmanager
def running(own: Places, command: list[str]) -> Iterator[None]:
    """The engine runs meanwhile; it is started unless another run of the tests has, and the last one out stops it."""
    import fcntl

    with (own.run / "users.lock").open("a") as users:
        with alone(own.run / "start.lock"):
            fcntl.flock(users, fcntl.LOCK_SH)
            if not _answers(own.socket):
                _start(own, command)
        try:
            yield
        finally:
            with alone(own.run / "start.lock"):
                fcntl.flock(users, fcntl.LOCK_UN)
                if _takes(users):
                    _stop(int(own.pid.read_text()))


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other process is here."""
    import fcntl

    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _takes(lock: IO[str]) -> bool:
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _start(own: Places, command: list[str]) -> None:
    own.socket.unlink(missing_ok=True)
    environ = {**os.environ, "CONTAINERS_CONF": str(own.run / "containers.conf")}
    log = (os.POSIX_SPAWN_OPEN, 1, str(own.log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    files = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), log, (os.POSIX_SPAWN_DUP2, 1, 2)]
    # A session of its own, and no Popen, which complains when its child outlives it: another run may use the engine.
    command = [
        "env",
        f"--chdir={own.run}",
        *command,
    ]  # Podman leaves a file where it runs when a box is out of memory
    pid = os.posix_spawnp(command[0], command, environ, file_actions=files, setsid=True)
    own.pid.write_text(str(pid))
    deadline = time.monotonic() + START_SECONDS
    while not _answers(own.socket):
        ended = _is_over(pid)
        if ended or time.monotonic() > deadline:
            _stop(pid)
            raise AssertionError(
                f"{own.name} {'ended' if ended else 'does not answer'}:\n{own.log.read_text()[-3000:]}"
            )
        time.sleep(0.05)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(5.0)
        try:
            caller.connect(str(path))
            caller.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in caller.recv(64)
        except OSError:
            return False


def _stop(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and not _is_over(pid):
        time.sleep(0.05)


def _is_over(pid: int) -> bool:
    """Whether the process has ended, be it this one's child or another's, which need not have noticed yet."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        pass
    try:
        found = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return found.rpartition(")")[2].split()[0] == "Z"  # the parent lives, and has not asked for its end


# ---------------------------------------------------------------------------------------------------------- the image


def in_a_loop(make: Callable[[], Awaitable[T]]) -> T:
    """Run it on a loop in a thread, so that the tests' own loop has no trace of it."""
    found: list[T | BaseException] = []

    async def run() -> T:
        return await make()

    def in_thread() -> None:
        try:
            found.append(asyncio.run(run()))
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            found.append(error)

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    (result,) = found
    if isinstance(result, BaseException):
        raise result
    return result


def with_image(url: str) -> OwnEngine:
    """Build the image unless it is there. Its name is its content's: another checkout, or a file that is changed
    meanwhile, takes nobody's image away."""
    name = f"{OUR_IMAGE.partition(':')[0]}:{inputs_digest()}"

    async def build() -> None:
        engine = Engine(url)
        try:
            await build_image(engine, name=name)
            await forget_old(engine, name)
        finally:
            await engine.close()

    in_a_loop(build)
    return OwnEngine(url, name, podman=False)


async def _with_copy(source: OwnEngine, target: str) -> None:
    """Give one engine the image of the other, unless it has it."""
    giver, taker = Engine(source.url), Engine(target)
    try:
        await giver.open()
        await taker.open()
        if not await taker.has_image(f"localhost/{source.image}"):
            with tempfile.TemporaryDirectory() as folder:
                archive = Path(folder) / "image.tar"
                await giver.save(f"images/{source.image}/get", archive)
                async for _ in taker.stream("images/load", body=archive):
                    pass
            await _rename(taker, source.image)
            await forget_old(taker, source.image)
    finally:
        await giver.close()
        await taker.close()


async def _rename(engine: Engine, name: str) -> None:
    """Podman takes what it loaded for a registry's."""
    loaded = f"docker.io/{name}"
    if await engine.has_image(loaded):
        repository, _, tag = f"localhost/{name}".rpartition(":")
        await engine.json("POST", f"images/{loaded}/tag", params={"repo": repository, "tag": tag})


async def forget_old(engine: Engine, name: str) -> None:
    """Remove the images of earlier contents that no run of today can want; what they share with this one stays."""
    filters = json.dumps({"reference": [f"*{name.partition(':')[0]}*"]})
    for image in await engine.json("GET", "images/json", params={"filters": filters}):
        if time.time() - image["Created"] < OLD_SECONDS:
            continue
        for tag in image["RepoTags"] or ():
            if not tag.endswith(name):
                with contextlib.suppress(EngineError):  # a box of another run has it
                    await engine.json("DELETE", f"images/{tag}")
