"""What must not get out of a box, tried from inside: the attempts are written once and made with every backend that
isolates.

Subclass the kit and give it the backend, not yet started, and where its boxes' kernel bounds what they use::

    class TestLocalEscapes(EscapeKit):
        def backend(self) -> Backend:
            return LocalBackend(SandboxSettings())

The attempts are Python, shell commands and pages, as a model or a page it reads would have them run.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import socket
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

from greenroom.actors.errors import SandboxError
from greenroom.sandbox.backend import (
    BOX_SECONDS,
    EGRESS_SOCKET,
    MIB,
    Backend,
    BoxKind,
    BoxLimits,
    BoxSpec,
)
from greenroom.sandbox.client import BoxClient
from greenroom.sandbox.egress.filter import EgressFilter
from greenroom.sandbox.result import ToolResult
from greenroom.sandbox.settings import EgressRules
from kits.escape_attempts import (
    BECOME_ROOT,
    BROWSER_PROCESSES,
    FILL,
    FORKS,
    MANY_EATERS,
    OTHER_SPELLINGS,
    REACH,
    SYSTEM_CALLS,
    THROUGH,
    abstract_socket,
)

SECRET = "the-host-keeps-this-for-itself"

LIMITS = BoxLimits(memory=512 * MIB, pids=192, cpus=1.0, temporary=32 * MIB, workspace=32 * MIB)
"""Small ones, so that using more takes a moment only."""

REFUSED_CALLS = {
    # What gets out of containers with it, and the numbers on x86_64 and elsewhere.
    "mount": (165, 40),
    "setns": (308, 268),
    "ptrace": (101, 117),
    "bpf": (321, 280),
    "keyctl": (250, 219),
    "open_by_handle_at": (304, 265),
    "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425),
    "userfaultfd": (323, 282),
    "process_vm_readv": (310, 270),
}


class Box:
    """A box to get out of."""

    def __init__(self, spec: BoxSpec, client: BoxClient) -> None:
        self.spec = spec
        self.client = client

    async def shell(self, command: str, seconds: float = 60.0) -> ToolResult:
        """Run it; the result, also when it failed."""
        return await self.client.call("run_shell_command", {"command": command}, seconds)

    async def python(self, code: str, seconds: float = 60.0) -> Any:
        """What the program prints last, as JSON."""
        await self.client.write("attempt.py", code.encode())
        said = await self.shell("python3 attempt.py", seconds)
        lines = said.part("stdout").strip().splitlines()
        assert lines, said
        return json.loads(lines[-1])

    async def browse(self, url: str) -> str:
        """What the browser says of going there."""
        return (await self.client.call("browser_navigate", {"url": url}, 30.0)).text

    async def works(self) -> None:
        """The box is there, and does what it did before."""
        said = await self.shell("echo fine")
        assert said.part("stdout").strip() == "fine", said


class EscapeKit(ABC):
    """The attempts. `bounded`: what the backend bounds for whole boxes here."""

    bounded: ClassVar[Sequence[str]] = ("memory", "pids", "cpu")

    @abstractmethod
    def backend(self) -> Backend:
        """One that isolates, not yet started."""

    def needs(self, what: str) -> None:
        """Skip the test where the backend cannot bound that for a box as a whole."""
        if what not in self.bounded:
            pytest.skip(f"needs control groups that bound {what}")

    @pytest.fixture
    def folder(self) -> Iterator[Path]:
        """A folder of the host's, with a secret in it."""
        path = Path(tempfile.mkdtemp(prefix="gr-"))
        path.chmod(0o711)
        (path / "secret").write_text(SECRET)
        yield path
        shutil.rmtree(path)

    @asynccontextmanager
    async def box(self, folder: Path, kind: BoxKind = "base") -> AsyncIterator[Box]:
        """A box that answers, with the filter at its way out."""
        backend = self.backend()
        await backend.start()
        lease = secrets.token_hex(16)
        directory = folder / lease
        directory.mkdir(mode=0o700)
        spec = BoxSpec(
            lease=lease,
            owner="owner-of-the-kit",
            kind=kind,
            token=secrets.token_hex(16),
            directory=directory,
            limits=LIMITS,
        )
        async with EgressFilter(EgressRules()).listen(directory / EGRESS_SOCKET, lease):
            try:
                client = BoxClient(await backend.create(spec))
                try:
                    await client.ready(BOX_SECONDS)
                    yield Box(spec, client)
                finally:
                    await client.close()
            finally:
                with anyio.CancelScope(shield=True):
                    await backend.remove(lease)
                    await backend.stop()

    # --------------------------------------------------------------------------------------------- who one is there

    async def test_nobody_is_root_or_can_become_it(self, folder: Path) -> None:
        async with self.box(folder) as box:
            status = (await box.shell("cat /proc/self/status")).part("stdout")
            fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            assert "0" not in fields["Uid"].split()
            assert {int(fields[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
            assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
            assert await box.python(BECOME_ROOT) == []

    async def test_programs_with_the_setuid_bit_give_no_rights(self, folder: Path) -> None:
        async with self.box(folder) as box:
            for attempt in ("su -c id", "mount -t tmpfs none /mnt", "newgrp root -c id", "passwd -d root"):
                said = await box.shell(f"echo | timeout 10 {attempt}")
                assert "uid=0" not in said.text
                assert said.part("returncode").strip() != "0", said

    async def test_root_of_a_namespace_of_its_own_is_nobody_outside(self, folder: Path) -> None:
        async with self.box(folder) as box:
            said = await box.shell(
                "unshare --user --map-root-user --mount sh -c 'mount -t tmpfs none /mnt && echo mounted; "
                f"cat /proc/1/root/etc/shadow {folder}/secret; echo > /proc/sys/kernel/core_pattern && echo written'"
            )
            for word in ("mounted", "written", "root:", SECRET):
                assert word not in said.part("stdout")

    async def test_system_calls_that_get_out_of_containers_are_refused(self, folder: Path) -> None:
        async with self.box(folder) as box:
            code = SYSTEM_CALLS.replace("CALLS", json.dumps(REFUSED_CALLS))
            assert await box.python(code) == dict.fromkeys(REFUSED_CALLS, "EPERM")
            assert await box.python(OTHER_SPELLINGS) == {"packet": "EAFNOSUPPORT", "vsock": "EAFNOSUPPORT"}

    # --------------------------------------------------------------------------------------------- the host's files

    async def test_files_of_the_host_are_not_there(self, folder: Path) -> None:
        async with self.box(folder) as box:
            secret = folder / "secret"
            await box.shell(f"mkdir -p up; ln -s {secret} link; ln -s / root; ln -s /proc/1/root first")
            for path in (
                str(secret),
                f"/proc/1/root{secret}",
                f"/proc/self/root/../..{secret}",
                f"/proc/*/cwd{secret}",
                f"first{secret}",
                f"root{secret}",
                "link",
                f"../../../../../..{secret}",
            ):
                assert SECRET not in (await box.shell(f"cat {path}")).text
            assert (await box.shell("cat /etc/shadow")).part("returncode").strip() != "0"
            homes = [str(Path.home() / name) for name in (".ssh", ".bashrc", ".profile", ".netrc", ".config")]
            assert (await box.shell(f"ls -d {' '.join(homes)} 2>/dev/null")).part("stdout").strip() == ""

    async def test_what_it_runs_on_cannot_be_written_to(self, folder: Path) -> None:
        async with self.box(folder) as box:
            for path in (
                "/x",
                "/usr/x",
                "/usr/bin/env",
                "/etc/passwd",
                "/etc/ld.so.preload",
                "/opt/x",
                "/dev/x",
                "/box/x",
                "/proc/sys/kernel/core_pattern",
                "/proc/sysrq-trigger",
                "/sys/fs/cgroup/x",
                "/sys/kernel/x",
            ):
                said = await box.shell(f"echo x >> {path}")
                if path == "/box/x" and said.part("returncode").strip() == "0":
                    # A place in the box's own memory is fine; the host's folder is not.
                    assert not (box.spec.directory / "x").exists()
                    continue
                assert said.part("returncode").strip() != "0", path
            code = "import greenroom.sandbox.image as i; print(i.__file__)"
            said = await box.shell(f"f=$(python3 -c '{code}'); echo '#' >> $f || echo refused")
            assert said.part("stdout").strip() == "refused"

    async def test_processes_of_the_host_can_be_neither_seen_nor_ended(self, folder: Path) -> None:
        async with self.box(folder) as box:
            process = await asyncio.create_subprocess_exec("sleep", "600", env={"MARK": SECRET})
            try:
                said = await box.shell("cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'")
                assert SECRET not in said.text
                assert "sleep\n600" not in said.text
                await box.shell(f"kill -9 {process.pid} {os.getpid()} -- -{process.pid}")
                assert process.returncode is None
            finally:
                process.kill()
                await process.wait()

    async def test_a_link_in_the_place_of_its_socket_leads_nowhere(self, folder: Path) -> None:
        asked = asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.set()
            writer.close()

        path = folder / "host.sock"
        server = await asyncio.start_unix_server(answer, path)
        path.chmod(0o666)
        async with server, self.box(folder) as box:
            await box.shell(f"cd /box; mv api.sock old; ln -sf {path} api.sock; ln -sf {path} egress.sock")
            await box.client.close()  # so that it connects again
            with suppress(SandboxError):  # it has cut itself off
                await box.works()
            assert not asked.is_set()

    # ------------------------------------------------------------------------------------------------------ the network

    async def test_there_is_no_network_but_the_filter(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server, abstract_socket() as name:
            port = server.getsockname()[1]
            async with self.box(folder) as box:
                assert (await box.shell("cat /proc/net/dev | tail -n +3 | cut -d: -f1")).text.split()[
                    0
                ] == "lo"
                code = REACH.replace("PORT", str(port)).replace("NAME", name)
                assert await box.python(code, 60.0) == []

    async def test_the_filter_leads_to_no_address_of_the_hosts(self, folder: Path) -> None:
        asked = asyncio.Event()
        server = await asyncio.start_server(lambda *_: asked.set(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, self.box(folder) as box:
            targets = [
                f"http://127.0.0.1:{port}/",
                f"http://localhost:{port}/",
                f"http://[::1]:{port}/",
                f"http://[::ffff:127.0.0.1]:{port}/",
                f"http://0x7f000001:{port}/",
                f"http://2130706433:{port}/",
                f"http://127.1:{port}/",
                f"http://0.0.0.0:{port}/",
                "http://169.254.169.254/latest/meta-data/",
                "http://[fd00:ec2::254]/",
                "http://metadata.google.internal/",
                "http://10.0.0.1/",
                "http://192.168.0.1/",
            ]
            answers = await box.python(THROUGH.replace("TARGETS", json.dumps(targets)), 120.0)
            assert [target for target, status in answers.items() if status < 400] == []
            assert not asked.is_set()

    # ----------------------------------------------------------------------------------------------------------- bounds

    async def test_a_full_disk_is_only_its_own(self, folder: Path) -> None:
        async with self.box(folder) as box:
            before = shutil.disk_usage(folder).free
            said = await box.python(FILL, 120.0)
            assert {"/workspace", "/tmp"} <= set(said["filled"])
            bound = LIMITS.workspace + LIMITS.temporary + 80 * MIB  # and shared memory
            assert sum(said["filled"].values()) <= bound, said
            assert before - shutil.disk_usage(folder).free < bound
            assert sum(file.lstat().st_size for file in box.spec.directory.iterdir()) < MIB
            await box.shell("rm -f /workspace/fill* /tmp/fill* /dev/shm/fill* /box/fill*")
            await box.works()
            await box.client.write("again.txt", b"there is room again")

    async def test_a_memory_bomb_ends_itself_only(self, folder: Path) -> None:
        async with self.box(folder) as box:
            said = await box.shell("python3 -c 'x = bytearray(4 << 30); print(len(x))'", 120.0)
            assert str(4 << 30) not in said.part("stdout")
            await box.works()

    async def test_many_processes_have_no_more_memory_than_one(self, folder: Path) -> None:
        self.needs("memory")
        async with self.box(folder) as box:
            await box.client.write("eaters.py", MANY_EATERS.encode())
            said = await box.shell("python3 eaters.py", 120.0)
            assert "8 had 128 MiB" not in said.part("stdout")
            await box.works()

    async def test_a_fork_bomb_stops_at_the_bound(self, folder: Path) -> None:
        async with self.box(folder) as box:
            said = await box.python(FORKS, 120.0)
            assert said["error"] == "EAGAIN"
            assert 10 < said["forked"] < LIMITS.pids
            await box.works()
            assert int((await box.shell("ls -d /proc/[0-9]* | wc -l")).part("stdout")) < 40

    async def test_what_was_started_ends_with_the_box(self, folder: Path) -> None:
        mark = str(secrets.randbelow(10**9) + 10**9)
        async with self.box(folder) as box:
            await box.shell(f"for i in 1 2 3; do setsid nohup sleep {mark} >/dev/null 2>&1 & done; sleep 0.1")
        assert await anyio.to_thread.run_sync(running_with, mark) == []

    # ------------------------------------------------------------------------------------------------------ the browser

    @pytest.mark.slow
    async def test_the_browser_has_its_own_sandbox_and_goes_nowhere_it_should_not(self, folder: Path) -> None:
        asked = asyncio.Event()
        server = await asyncio.start_server(lambda *_: asked.set(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, self.box(folder, "browser") as box:
            await box.client.write("page.html", b"<h1>from a file</h1>")
            for url in (
                f"file://{folder}/secret",
                "file:///etc/passwd",
                "file:///workspace/page.html",
                "view-source:file:///etc/passwd",
                "chrome://version",
                "filesystem:file:///etc/passwd",
                f"http://127.0.0.1:{port}/",
                f"http://localhost:{port}/",
                f"http://[::1]:{port}/",
                "http://169.254.169.254/",
            ):
                said = await box.browse(url)
                assert not any(word in said for word in (SECRET, "root:", "from a file", "Google Chrome")), (
                    url
                )
            for page in (
                "<script>location = 'file:///etc/passwd'</script>",
                "<script>fetch('file:///etc/passwd').then(a => a.text()).then(t => document.title = t)</script>",
                "<a href=file:///etc/passwd>x</a><script>document.querySelector('a').click()</script>",
            ):
                assert "root:" not in await box.browse(f"data:text/html,{page}")
            assert not asked.is_set()
            assert await box.python(BROWSER_PROCESSES) == {"unsandboxed": False, "renderers_filtered": True}


def running_with(mark: str) -> list[str]:
    """The processes of the host that have this in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and mark.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(entry.name)
        except OSError:
            continue  # it has just ended
    return found
