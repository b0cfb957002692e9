"""The way out of a box: from a port inside to the filter's socket."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from greenroom.sandbox.image.relay import Relay
from kits.box_process import box_process

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="box-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@asynccontextmanager
async def way_out(folder: Path, talk: Talk) -> AsyncIterator[tuple[str, int]]:
    """A relay to a filter that talks like this; the address inside."""
    server = await asyncio.start_unix_server(talk, folder / "egress.sock")
    relay = Relay(folder / "egress.sock", 0)
    await relay.start()
    try:
        yield "127.0.0.1", int(relay.url.rpartition(":")[2])
    finally:
        await relay.stop()
        server.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b" and that was all")
    writer.close()


async def test_bytes_go_both_ways_and_half_closing_too(folder: Path) -> None:
    async with way_out(folder, echo) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.write_eof()
        assert await reader.read() == b" and that was all"
        writer.close()


async def test_much_goes_through_with_many_at_once(folder: Path) -> None:
    data = bytes(range(256)) * 4096

    async def one(host: str, port: int) -> bytes:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(data)
        writer.write_eof()
        try:
            return await reader.read()
        finally:
            writer.close()

    async with way_out(folder, echo) as address:
        answers = await asyncio.gather(*(one(*address) for _ in range(10)))

    assert answers == [data + b" and that was all"] * 10


async def test_a_filter_that_hangs_up_ends_the_connection(folder: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"no")
        writer.close()

    async with way_out(folder, hang_up) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        assert await reader.read() == b"no"
        writer.close()


async def test_without_a_filter_it_is_said(folder: Path) -> None:
    relay = Relay(folder / "none.sock", 0)
    await relay.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(relay.url.rpartition(":")[2]))
    answer = await reader.read()
    writer.close()
    await relay.stop()

    assert answer.startswith(b"HTTP/1.1 502 ")


async def test_stopping_ends_what_is_under_way(folder: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with way_out(folder, silent) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"x")
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()


async def test_programs_in_a_box_use_it(folder: Path) -> None:
    asked = asyncio.Queue[bytes]()

    async def filter_(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.put_nowait((await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")[0])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nfiltered\n")
        writer.close()

    server = await asyncio.start_unix_server(filter_, folder / "egress.sock")
    code = "import urllib.request as u; print(u.urlopen('http://somewhere.test/page', timeout=10).read().decode())"
    with box_process(environ={"GREENROOM_BOX": str(folder)}) as started:
        async with started.connected() as box:
            assert await box.shell(f'python3 -c "{code}"') == "filtered\n\n"
            assert (await box.cell(code)).part("stdout") == "filtered\n\n"
    server.close()

    assert [asked.get_nowait(), asked.get_nowait()] == [b"GET http://somewhere.test/page HTTP/1.1"] * 2
