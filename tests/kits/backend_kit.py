"""The conformance kit of backends: what every `Backend` must hold.

Subclass the kit, give it the backend, not yet started, and say how one of its boxes is killed behind its back::

    class TestDockerBackend(BackendKit):
        def backend(self) -> Backend:
            return DockerBackend(SandboxSettings())

        async def kill(self, backend: Backend, lease: str) -> None:
            ...

`at_once`: how many boxes the backend can have at a time; what needs more is skipped by name of the test. `answers`:
false for a fake in whose boxes no tool server runs.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

import anyio
import pytest
from msgspec import structs

from greenroom.actors.errors import SandboxError, SandboxLost
from greenroom.sandbox.backend import (
    BOX_SECONDS,
    EGRESS_SOCKET,
    TOKEN_FILE,
    Adopting,
    Backend,
    BoxAddress,
    BoxKind,
    BoxSpec,
    FoundBox,
    Pausing,
)
from greenroom.sandbox.client import BoxClient

OWNER = f"owner-of-the-kit-{secrets.token_hex(8)}"
"""Of this process's boxes: others of the tests' have theirs on the same engine, and remove them."""
END_SECONDS = 20.0
"""How long the news of a box's end may take."""

CANCEL_AFTER = (0.0, 0.01, 0.05, 0.2, 0.6)
"""Moments at which a `create` is cancelled: before the engine is asked, while it makes the box, while that starts."""

FETCH = """\
python3 - <<'END'
import urllib.request as u
opener = u.build_opener(u.ProxyHandler({"http": "http://127.0.0.1:3128"}))
try:
    print(opener.open("http://somewhere.test/page", timeout=10).read().decode())
except OSError as error:
    print("refused", type(error).__name__)
END
"""


class BackendKit(ABC):
    """The tests. Boxes of the kind `base` do where no browser is needed: they start faster."""

    at_once: ClassVar[int] = 4
    answers: ClassVar[bool] = True
    kind: ClassVar[BoxKind] = "base"

    @abstractmethod
    def backend(self) -> Backend:
        """One, not yet started. Those that one test makes are for the same engine."""

    @abstractmethod
    async def kill(self, backend: Backend, lease: str) -> None:
        """End the box as a fault would, not by the backend."""

    @pytest.fixture
    def folder(self) -> Iterator[Path]:
        """Where the boxes' directories are: with a short path, which is what a socket's may be."""
        path = Path(tempfile.mkdtemp(prefix="gr-"))
        path.chmod(0o711)
        yield path
        shutil.rmtree(path)

    @asynccontextmanager
    async def started(self) -> AsyncIterator[Backend]:
        """A started backend. What a test leaves of the kit's boxes is removed."""
        backend = self.backend()
        await backend.start()
        try:
            yield backend
        finally:
            with anyio.CancelScope(shield=True):
                for box in await backend.boxes():
                    if box.owner.startswith(OWNER):
                        await backend.remove(box.lease)
                await backend.stop()

    def spec(self, folder: Path, owner: str = OWNER) -> BoxSpec:
        """A new one with its directory, as those who use backends make it."""
        lease = secrets.token_hex(16)
        directory = folder / lease
        directory.mkdir(mode=0o700)
        return BoxSpec(
            lease=lease, owner=owner, kind=self.kind, token=secrets.token_urlsafe(24), directory=directory
        )

    def needs(self, *, boxes: int = 1, answers: bool = False) -> None:
        """Skip the test for a backend that cannot have what it needs."""
        if boxes > self.at_once:
            pytest.skip(f"has {self.at_once} box at a time, and this needs {boxes}")
        if answers and not self.answers:
            pytest.skip("nothing answers in its boxes")

    # ------------------------------------------------------------------------------------------------------- life

    async def test_it_may_be_started_and_stopped_twice(self) -> None:
        backend = self.backend()
        await backend.start()
        await backend.start()
        assert backend.name.isidentifier()
        await backend.stop()
        await backend.stop()

    async def test_a_box_is_there_from_create_to_remove(self, folder: Path) -> None:
        async with self.started() as backend:
            spec = self.spec(folder)
            address = await backend.create(spec)
            assert address.token == spec.token
            assert spec.token not in repr(address) + repr(spec)
            assert await found(backend, spec) == FoundBox(spec.lease, OWNER, True)
            await backend.remove(spec.lease)
            assert await found(backend, spec) is None
            assert spec.directory.is_dir()

    async def test_removing_what_is_gone_or_never_was_is_fine(self, folder: Path) -> None:
        async with self.started() as backend:
            spec = self.spec(folder)
            await backend.remove(spec.lease)
            await backend.create(spec)
            await backend.remove(spec.lease)
            await backend.remove(spec.lease)

    async def test_boxes_can_be_removed_by_several_at_once(self, folder: Path) -> None:
        async with self.started() as backend:
            spec = self.spec(folder)
            await backend.create(spec)
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(backend.remove, spec.lease)
            assert await found(backend, spec) is None

    async def test_another_process_finds_boxes_and_removes_them(self, folder: Path) -> None:
        async with self.started() as first:
            spec = self.spec(folder)
            await first.create(spec)
            async with self.started() as second:
                assert await found(second, spec) == FoundBox(spec.lease, OWNER, True)
                await second.remove(spec.lease)
            assert await found(first, spec) is None

    async def test_stop_removes_no_box(self, folder: Path) -> None:
        spec = self.spec(folder)
        backend = self.backend()
        await backend.start()
        await backend.create(spec)
        await backend.stop()
        async with self.started() as later:
            assert await found(later, spec) == FoundBox(spec.lease, OWNER, True)

    async def test_boxes_are_made_and_removed_at_the_same_time(self, folder: Path) -> None:
        self.needs(boxes=3)
        async with self.started() as backend:
            specs = [self.spec(folder, f"{OWNER}-{number}") for number in range(3)]
            addresses = dict[str, BoxAddress]()

            async def make(spec: BoxSpec) -> None:
                addresses[spec.lease] = await backend.create(spec)

            async with anyio.create_task_group() as group:
                for spec in specs:
                    group.start_soon(make, spec)
            assert len({str(address) for address in addresses.values()}) == 3
            assert [await found(backend, spec) for spec in specs] == [
                FoundBox(spec.lease, spec.owner, True) for spec in specs
            ]
            async with anyio.create_task_group() as group:
                for spec in specs:
                    group.start_soon(backend.remove, spec.lease)
            assert [await found(backend, spec) for spec in specs] == [None] * 3

    @pytest.mark.parametrize("seconds", CANCEL_AFTER)
    async def test_a_cancelled_create_leaves_nothing_that_cannot_be_removed(
        self, folder: Path, seconds: float
    ) -> None:
        async with self.started() as backend:
            spec = self.spec(folder)
            with anyio.move_on_after(seconds):
                await backend.create(spec)
            await backend.remove(spec.lease)
            assert await found(backend, spec) is None
            again = self.spec(folder)
            await backend.create(again)
            assert await found(backend, again) == FoundBox(again.lease, OWNER, True)

    # ---------------------------------------------------------------------------------------------------- endings

    async def test_endings_tell_of_boxes_that_are_removed(self, folder: Path) -> None:
        async with self.started() as backend:
            spec = self.spec(folder)
            async with ending_of(backend, spec.lease):
                await backend.create(spec)
                await backend.remove(spec.lease)

    async def test_endings_tell_of_boxes_that_die(self, folder: Path) -> None:
        async with self.started() as backend:
            spec = self.spec(folder)
            async with ending_of(backend, spec.lease):
                await backend.create(spec)
                await self.kill(backend, spec.lease)
            left = await found(backend, spec)
            assert left is None or not left.running
            await backend.remove(spec.lease)
            assert await found(backend, spec) is None

    # ------------------------------------------------------------------------------------------------ what is inside

    async def test_a_box_answers_until_it_is_removed(self, folder: Path) -> None:
        self.needs(answers=True)
        async with self.started() as backend:
            spec = self.spec(folder)
            async with ready(await backend.create(spec)) as client:
                said = await client.call("run_shell_command", {"command": "echo here $((6 * 7))"}, 20.0)
                assert said.part("stdout").strip() == "here 42"
                await backend.remove(spec.lease)
                assert not await client.healthy(2.0)
                with pytest.raises(SandboxLost):
                    await client.call("run_shell_command", {"command": "echo"}, 5.0)

    async def test_only_who_shows_the_token_is_served_and_it_lies_nowhere(self, folder: Path) -> None:
        self.needs(answers=True)
        async with self.started() as backend:
            spec = self.spec(folder)
            address = await backend.create(spec)
            async with ready(address) as client:
                look = "cat /proc/*/cmdline /proc/*/environ 2>/dev/null | tr '\\0' '\\n'; env; ls -a /box"
                seen = await client.call("run_shell_command", {"command": look}, 20.0)
                assert "PATH=" in seen.text
                assert spec.token not in seen.text
            assert not (spec.directory / TOKEN_FILE).exists()
            stranger = BoxClient(BoxAddress(token="guessed", url=address.url, socket=address.socket))
            try:
                with pytest.raises(SandboxError):
                    await stranger.call("run_shell_command", {"command": "echo"}, 5.0)
            finally:
                await stranger.close()

    async def test_two_boxes_share_no_files(self, folder: Path) -> None:
        self.needs(boxes=2, answers=True)
        async with (
            self.started() as backend,
            ready(await backend.create(self.spec(folder))) as first,
            ready(await backend.create(self.spec(folder))) as second,
        ):
            await first.write("mine.txt", b"mine")
            assert await first.read("mine.txt") == b"mine"
            assert not await second.exists("mine.txt")

    async def test_the_socket_in_its_directory_is_the_way_out(self, folder: Path) -> None:
        self.needs(answers=True)
        async with self.started() as backend:
            spec = self.spec(folder)
            async with proxy(spec.directory / EGRESS_SOCKET) as asked:
                async with ready(await backend.create(spec)) as client:
                    said = await client.call("run_shell_command", {"command": FETCH}, 30.0)
                assert said.part("stdout").strip() == "by the filter"
                assert asked == ["GET http://somewhere.test/page HTTP/1.1"]

    async def test_without_one_there_is_no_way_out(self, folder: Path) -> None:
        self.needs(answers=True)
        async with (
            self.started() as backend,
            ready(await backend.create(self.spec(folder))) as client,
        ):
            said = await client.call("run_shell_command", {"command": FETCH}, 30.0)
            assert said.part("stdout").startswith("refused")

    # ---------------------------------------------------------------------------------------------------- going on

    async def test_another_process_goes_on_with_a_box_that_was_let_go(self, folder: Path) -> None:
        self.needs(answers=True)
        async with self.started() as second, self.started() as first:
            spec = self.spec(folder)
            adopting_part(first)
            async with ready(await first.create(spec)) as client:
                await client.write("mine.txt", b"mine")
            await adopting_part(first).let_go(spec.lease)
            again = structs.replace(spec, owner=f"{OWNER}, another")
            async with ready(await adopting_part(second).adopt(again)) as client:
                assert await client.read("mine.txt") == b"mine"
                await second.remove(spec.lease)

    async def test_a_box_that_is_gone_cannot_be_gone_on_with(self, folder: Path) -> None:
        async with self.started() as backend:
            spec = self.spec(folder)
            adopting = adopting_part(backend)
            await backend.create(spec)
            await adopting.let_go(spec.lease)
            await backend.remove(spec.lease)
            with pytest.raises(SandboxLost):
                await adopting.adopt(spec)

    # ----------------------------------------------------------------------------------------------------- pausing

    async def test_a_paused_box_answers_when_it_is_resumed(self, folder: Path) -> None:
        self.needs(answers=True)
        async with self.started() as backend:
            pausing = pausing_part(backend)
            spec = self.spec(folder)
            async with ready(await backend.create(spec)) as client:
                await pausing.pause(spec.lease)
                assert await found(backend, spec) == FoundBox(spec.lease, OWNER, True)
                assert not await client.healthy(0.5)
                await pausing.resume(spec.lease)
                assert await client.healthy(20.0)

    async def test_a_paused_box_can_be_removed(self, folder: Path) -> None:
        async with self.started() as backend:
            pausing = pausing_part(backend)
            spec = self.spec(folder)
            await backend.create(spec)
            await pausing.pause(spec.lease)
            await backend.remove(spec.lease)
            assert await found(backend, spec) is None

    async def test_a_box_that_is_gone_can_be_neither_paused_nor_resumed(self, folder: Path) -> None:
        async with self.started() as backend:
            pausing = pausing_part(backend)
            spec = self.spec(folder)
            await backend.create(spec)
            await backend.remove(spec.lease)
            with pytest.raises(SandboxLost):
                await pausing.pause(spec.lease)
            with pytest.raises(SandboxLost):
                await pausing.resume(spec.lease)


def pausing_part(backend: Backend) -> Pausing:
    """The backend as one that pauses; skips the test otherwise."""
    if not isinstance(backend, Pausing):
        pytest.skip("this backend pauses no boxes")
    return backend


def adopting_part(backend: Backend) -> Adopting:
    """The backend as one whose boxes outlive their process; skips the test otherwise."""
    if not isinstance(backend, Adopting):
        pytest.skip("this backend's boxes end with their process")
    return backend


async def found(backend: Backend, spec: BoxSpec) -> FoundBox | None:
    """What the backend says of the box."""
    same = [box for box in await backend.boxes() if box.lease == spec.lease]
    assert len(same) <= 1, same
    return same[0] if same else None


@asynccontextmanager
async def ready(address: BoxAddress) -> AsyncIterator[BoxClient]:
    """A client of a box that answers."""
    client = BoxClient(address)
    try:
        await client.ready(BOX_SECONDS)
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def ending_of(backend: Backend, lease: str) -> AsyncIterator[None]:
    """Fails unless the backend tells of the end of the box that is made and ends inside.

    Making one takes an engine longer than taking note of a listener.
    """

    async def listen() -> None:
        async for ended in backend.endings():
            if ended == lease:
                return
        raise AssertionError("the endings themselves ended")

    task = asyncio.create_task(listen())
    try:
        yield
        with anyio.fail_after(END_SECONDS):
            await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def proxy(path: Path) -> AsyncIterator[list[str]]:
    """A filter's stand-in at the socket; the first lines of what is asked of it."""
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.split(b"\r\n")[0].decode())
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\nconnection: close\r\n\r\nby the filter")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_unix_server(answer, path)
    path.chmod(0o600)  # making it usable for the box's user is the backend's part
    async with server:
        yield asked
