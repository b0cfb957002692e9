"""The egress filter over real sockets: servers of this machine, and a name server that the test owns."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from greenroom.actors.errors import ConfigurationError
from greenroom.sandbox.egress.filter import EgressFilter, EgressLimits, EgressListener
from greenroom.sandbox.settings import EgressRules
from kits.until import until

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Book:
    """A name server that says what the test wants; each list of addresses once, the last one for ever."""

    def __init__(self, **names: Iterable[Sequence[str]]) -> None:
        self._names = {name.replace("_", "."): list(answers) for name, answers in names.items()}
        self.asked: list[str] = []

    async def addresses(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        answers = self._names.get(host)
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return answers.pop(0) if len(answers) > 1 else answers[0]


class Server:
    """A server of the internet. It remembers what it read and does what it is told."""

    def __init__(self, says: bytes | None = ANSWER, keeps: bool = False) -> None:
        self.read: list[bytes] = []
        self.gone: list[anyio.Event] = []
        self.accepted = anyio.Event()
        self.port = 0
        self._says = says
        self._keeps = keeps

    @asynccontextmanager
    async def at(self, host: str, port: int = 0) -> AsyncIterator[Server]:
        server = await asyncio.start_server(self._serve, host, port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        place, gone = len(self.read), anyio.Event()
        self.read.append(b"")
        self.gone.append(gone)
        self.accepted.set()
        try:
            said = self._says is None
            while data := await reader.read(65536):
                self.read[place] += data
                if not said and self._says is not None:
                    writer.write(self._says)
                    said = True
                    if not self._keeps:
                        writer.write_eof()
            writer.write(b"bye" if self._says is None else b"")
        except OSError:
            pass  # the filter broke the connection, which some tests wait for
        finally:
            gone.set()
            writer.transport.abort() if self._says is not None else writer.close()


class Box:
    """What runs in a box: it has nothing but the socket."""

    def __init__(self, path: Path, listener: EgressListener) -> None:
        self.path = path
        self.listener = listener

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path)

    async def ask(self, data: bytes) -> bytes:
        """Send it all, and read until the filter ends the connection."""
        reader, writer = await self.connect()
        try:
            writer.write(data)
            with anyio.fail_after(10):
                return await reader.read()
        finally:
            writer.transport.abort()

    async def get(self, url: str, **headers: str) -> bytes:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return await self.ask(f"GET {url} HTTP/1.1\r\n{lines}\r\n".encode())

    async def quiet(self) -> None:
        """Wait until no connection is open."""
        await until(lambda: not self.listener.statistics().open)


@asynccontextmanager
async def box(folder: Path, rules: EgressRules | None = None, **options: Any) -> AsyncIterator[Box]:
    rules = rules or EgressRules()
    options.setdefault("resolver", Book())
    path = folder / "egress.sock"
    async with EgressFilter(rules, **options).listen(path, "lease-1") as listener:
        yield Box(path, listener)


def local(server: Server, name: str = "shop.test") -> EgressRules:
    return EgressRules(hosts={name: f"127.0.0.1:{server.port}"})


async def test_a_page_is_fetched_and_the_server_sees_only_what_was_understood(tmp_path: Path) -> None:
    async with Server().at("127.0.0.1") as server, box(tmp_path, local(server)) as inside:
        got = await inside.get("http://Shop.test./a", Host="evil.test", Cookie="a=b")
    assert got == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
    assert server.read == [b"GET /a HTTP/1.1\r\nHost: shop.test\r\nCookie: a=b\r\nConnection: close\r\n\r\n"]


async def test_a_second_request_behind_the_first_goes_nowhere(tmp_path: Path) -> None:
    second = b"GET http://inner.test/ HTTP/1.1\r\nHost: inner.test\r\n\r\n"
    async with Server().at("127.0.0.1") as server, box(tmp_path, local(server)) as inside:
        got = await inside.ask(b"GET http://shop.test/ HTTP/1.1\r\n\r\n" + second)
        got += await inside.ask(b"POST http://shop.test/ HTTP/1.1\r\nContent-Length: 2\r\n\r\nab" + second)
        chunked = b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
        got += await inside.ask(b"POST http://shop.test/ HTTP/1.1\r\n" + chunked + second)
    assert got.count(b"hello") == 3
    assert len(server.read) == 3
    assert not any(b"inner" in read for read in server.read)


async def test_a_body_that_cannot_be_understood_is_refused(tmp_path: Path) -> None:
    async with Server(says=None).at("127.0.0.1") as server, box(tmp_path, local(server)) as inside:
        head = b"POST http://shop.test/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        got = await inside.ask(head + b"zz\r\nGET / HTTP/1.1\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 400 ")
    assert server.read[0].endswith(b"Connection: close\r\n\r\n")


async def test_half_a_request_does_not_look_whole_to_the_server(tmp_path: Path) -> None:
    async with Server(says=None).at("127.0.0.1") as server, box(tmp_path, local(server)) as inside:
        reader, writer = await inside.connect()
        writer.write(b"POST http://shop.test/ HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc")
        await server.accepted.wait()
        writer.write_eof()
        assert (await reader.read()).startswith(b"HTTP/1.1 502 ")
        writer.close()
        await inside.quiet()


async def test_a_tunnel_carries_both_ways_and_ends_one_side_at_a_time(tmp_path: Path) -> None:
    async with Server(says=None).at("127.0.0.1") as server, box(tmp_path, local(server)) as inside:
        reader, writer = await inside.connect()
        writer.write(b"CONNECT shop.test:443 HTTP/1.1\r\nHost: shop.test:443\r\n\r\n\x16\x03\x01")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 Connection established\r\n\r\n"
        writer.write(b"more")
        writer.write_eof()  # the server still answers what it was told
        assert await reader.read() == b"bye"
        writer.close()
        await inside.quiet()
    assert server.read == [b"\x16\x03\x01more"]


async def test_a_large_transfer_arrives_whole(tmp_path: Path) -> None:
    body = bytes(range(256)) * 16_384
    says = b"HTTP/1.1 200 OK\r\n\r\n" + body
    async with Server(says).at("127.0.0.1") as server, box(tmp_path, local(server)) as inside:
        got = await inside.get("http://shop.test/")
        assert got.partition(b"\r\n\r\n")[2] == body
        length = str(len(body)).encode()
        await inside.ask(b"POST http://shop.test/ HTTP/1.1\r\nContent-Length: " + length + b"\r\n\r\n" + body)
        await inside.quiet()


async def test_what_a_tunnel_carries_looks_like_the_web(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Server(says=None).at("127.0.0.1") as server, box(tmp_path, local(server)) as inside:
        got = await inside.ask(b"CONNECT shop.test:443 HTTP/1.1\r\n\r\nSSH-2.0-OpenSSH_9.2\r\n")
    assert got == b"HTTP/1.1 200 Connection established\r\n\r\n"
    assert server.read in ([], [b""])
    assert "what was sent to shop.test:443 is neither TLS nor HTTP" in caplog.text


REFUSED = [
    "http://127.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://0.0.0.0:{port}/",
    "http://localhost:{port}/",
    "http://localhost.:{port}/",
    "http://inner.test:{port}/",
    "http://mapped.test:{port}/",
    "http://\uff11\uff12\uff17.0.0.1:{port}/",
]


@pytest.mark.parametrize("url", REFUSED)
async def test_this_machine_is_out_of_reach(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    book = Book(localhost=[["127.0.0.1"]], inner_test=[["127.0.0.1"]], mapped_test=[["::ffff:127.0.0.1"]])
    async with Server().at("127.0.0.1") as server, box(tmp_path, resolver=book) as inside:
        url = url.format(port=server.port)
        authority = url.removeprefix("http://").removesuffix("/")
        for request in [f"GET {url} HTTP/1.1\r\n\r\n", f"CONNECT {authority} HTTP/1.1\r\n\r\n"]:
            got = await inside.ask(request.encode())
            assert got.startswith(b"HTTP/1.1 403 Forbidden\r\n")
            assert b"boxes may not reach" in got
    assert server.read == []
    assert "egress of lease-1 refused: " in caplog.text


async def test_a_name_that_changes_its_address_is_judged_each_time_and_asked_once(tmp_path: Path) -> None:
    """DNS rebinding: 127.0.0.2 stands for the internet, 127.0.0.1 for what must not be reached."""
    book = Book(rebind_test=[["127.0.0.2"], ["127.0.0.1"]])
    rules = EgressRules(private=("127.0.0.2",))
    async with (
        Server().at("127.0.0.1") as victim,
        Server().at("127.0.0.2", victim.port) as outside,
        box(tmp_path, rules, resolver=book) as inside,
    ):
        url = f"http://rebind.test:{victim.port}/"
        assert (await inside.get(url)).endswith(b"hello")
        assert book.asked == ["rebind.test"]
        assert (await inside.get(url)).startswith(b"HTTP/1.1 403 ")
        assert len(outside.read) == 1
        assert victim.read == []


async def test_a_name_of_both_worlds_leads_only_outside(tmp_path: Path) -> None:
    book = Book(both_test=[["127.0.0.1", "127.0.0.2"]])
    rules = EgressRules(private=("127.0.0.2",))
    async with (
        Server().at("127.0.0.1") as victim,
        Server().at("127.0.0.2", victim.port) as outside,
        box(tmp_path, rules, resolver=book) as inside,
    ):
        assert (await inside.get(f"http://both.test:{victim.port}/")).endswith(b"hello")
    assert (len(outside.read), len(victim.read)) == (1, 0)


async def test_an_address_that_does_not_answer_does_not_hold_up_the_next(tmp_path: Path) -> None:
    with socket.socket() as full:  # accepts nothing, and its queue is full: connecting to it takes for ever
        full.bind(("127.0.0.2", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(("127.0.0.2", port))
        book = Book(slow_test=[["127.0.0.2", "127.0.0.4", "127.0.0.3"]])
        rules = EgressRules(private=("127.0.0.0/8",))
        async with Server().at("127.0.0.3", port), box(tmp_path, rules, resolver=book) as inside:
            assert (await inside.get(f"http://slow.test:{port}/")).endswith(b"hello")
            limits = EgressLimits(connect_seconds=0.05)
            async with EgressFilter(rules, limits=limits).listen(tmp_path / "b.sock", "b") as listener:
                got = await Box(tmp_path / "b.sock", listener).get(f"http://127.0.0.2:{port}/")
                assert got.startswith(b"HTTP/1.1 504 ")
        for client in waiting:
            client.close()


async def test_this_hosts_own_addresses_are_refused_whatever_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from greenroom.sandbox.egress import rules as egress_rules

    monkeypatch.setattr(
        egress_rules, "why_not_public", lambda _: None
    )  # as if loopback were a public address
    async with Server().at("127.0.0.1") as server, box(tmp_path) as inside:
        got = await inside.get(f"http://127.0.0.1:{server.port}/")
    assert b"leads to this host itself" in got
    assert server.read == []


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        (b"GET http://user@127.0.0.1/ HTTP/1.1\r\n\r\n", 400),
        (b"GET http://a.test@127.0.0.1/ HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT a.test HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT a.test:25 HTTP/1.1\r\n\r\n", 403),
        (b"CONNECT a.test:22 HTTP/1.1\r\n\r\n", 403),
        (b"CONNECT a.test:6667 HTTP/1.1\r\n\r\n", 403),
        (b"CONNECT 169.254.169.254:80 HTTP/1.1\r\n\r\n", 403),
        (b"GET http://nowhere.test/ HTTP/1.1\r\n\r\n", 502),
        (b"\x16\x03\x01\x00\r\n\r\n", 400),
        (b"GET http://a.test/ HTTP/1.1\r\n" + b"A: b\r\n" * 20_000, 431),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_a_refusal_says_why(data: bytes, status: int, tmp_path: Path) -> None:
    async with box(tmp_path, resolver=Book(a_test=[["93.184.216.34"]])) as inside:
        got = await inside.ask(data)
        assert got.startswith(f"HTTP/1.1 {status} ".encode())
        assert b"\r\nConnection: close\r\n" in got
        assert b"\r\n\r\nGreenroom's egress filter: " in got
        assert inside.listener.statistics().refused == 1


async def test_a_server_that_is_down_is_no_fault_of_the_rules(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        rules = EgressRules(hosts={"down.test": f"127.0.0.1:{unused.getsockname()[1]}"})
        async with box(tmp_path, rules) as inside:
            got = await inside.get("http://down.test/")
    assert got.startswith(b"HTTP/1.1 502 ")
    assert b"down.test:80 cannot be reached" in got
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("says", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b""])
async def test_a_server_that_speaks_something_else_is_a_bad_gateway(says: bytes, tmp_path: Path) -> None:
    async with Server(says).at("127.0.0.1") as server, box(tmp_path, local(server)) as inside:
        assert (await inside.get("http://shop.test/")).startswith(b"HTTP/1.1 502 ")


async def slow_head(inside: Box) -> bytes:
    return await inside.ask(b"GET http://shop.test/ HTTP/1.1\r\nA: ")


async def slow_answer(inside: Box) -> bytes:
    return await inside.ask(b"GET http://shop.test/ HTTP/1.1\r\n\r\n")


async def slow_tunnel(inside: Box) -> bytes:
    return await inside.ask(b"CONNECT shop.test:443 HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n")


async def silent_tunnel(inside: Box) -> bytes:
    return await inside.ask(b"CONNECT shop.test:443 HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize(
    ("act", "answer"),
    [(slow_head, b"408"), (slow_answer, b"502"), (slow_tunnel, b"200"), (silent_tunnel, b"200")],
)
async def test_who_is_slow_is_ended(
    act: Callable[[Box], Awaitable[bytes]], answer: bytes, tmp_path: Path
) -> None:
    limits = EgressLimits(head_seconds=0.1, idle_seconds=0.1)
    async with (
        Server(says=None).at("127.0.0.1") as server,
        box(tmp_path, local(server), limits=limits) as inside,
    ):
        assert (await act(inside)).startswith(b"HTTP/1.1 " + answer)
        await inside.quiet()


async def test_a_connection_through_which_something_goes_stays(tmp_path: Path) -> None:
    limits = EgressLimits(idle_seconds=0.4)
    async with (
        Server(says=None).at("127.0.0.1") as server,
        box(tmp_path, local(server), limits=limits) as inside,
    ):
        reader, writer = await inside.connect()
        writer.write(b"CONNECT shop.test:443 HTTP/1.1\r\n\r\nGET ")
        for _ in range(8):
            await anyio.sleep(0.1)  # twice as long in all as a silent connection may live
            writer.write(b"x")
        writer.write_eof()
        assert (await reader.read()).endswith(b"bye")
        writer.close()


async def test_a_reader_that_does_not_read_holds_up_only_itself(tmp_path: Path) -> None:
    says = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 8_000_000
    limits = EgressLimits(idle_seconds=0.3)
    async with Server(says).at("127.0.0.1") as server, box(tmp_path, local(server), limits=limits) as inside:
        _, writer = await asyncio.open_unix_connection(inside.path, limit=1)
        writer.write(b"GET http://shop.test/ HTTP/1.1\r\n\r\n")
        await server.accepted.wait()
        assert len(await inside.get("http://shop.test/")) > 8_000_000
        await inside.quiet()  # the slow one has been ended
        writer.close()


async def test_a_box_has_so_many_connections_and_no_more(tmp_path: Path) -> None:
    limits = EgressLimits(connections=3)
    async with (
        Server(says=None).at("127.0.0.1") as server,
        box(tmp_path, local(server), limits=limits) as inside,
    ):
        held = [await inside.connect() for _ in range(3)]
        await until(lambda: inside.listener.statistics().open == 3)
        got = await inside.get("http://shop.test/")
        assert got.startswith(b"HTTP/1.1 503 ")
        assert b"as many as a box may have" in got
        for _, writer in held:
            writer.close()
        await inside.quiet()
        assert inside.listener.statistics().accepted == 4


async def test_connections_come_at_a_bounded_pace(tmp_path: Path) -> None:
    limits = EgressLimits(connections_a_second=20)
    async with box(tmp_path, limits=limits) as inside:
        started = anyio.current_time()
        for _ in range(8):
            await inside.ask(b"GET / HTTP/1.1\r\n\r\n")
        assert anyio.current_time() - started > 0.3


async def test_slow_names_of_one_box_do_not_hold_up_another(tmp_path: Path) -> None:
    class Slow(Book):
        def __init__(self) -> None:
            super().__init__(fast_test=[["127.0.0.1"]])
            self.waiting = 0

        async def addresses(self, host: str) -> Sequence[str]:
            if host == "fast.test":
                return await super().addresses(host)
            self.waiting += 1
            await asyncio.Event().wait()
            raise AssertionError

    book = Slow()
    filtering = EgressFilter(EgressRules(), resolver=book, limits=EgressLimits(connect_seconds=0.5))
    async with (
        filtering.listen(tmp_path / "a.sock", "a") as first,
        filtering.listen(tmp_path / "b.sock", "b") as second,
    ):
        a, b = Box(tmp_path / "a.sock", first), Box(tmp_path / "b.sock", second)
        asks = [asyncio.create_task(a.get(f"http://slow{number}.test/")) for number in range(20)]
        await until(lambda: first.statistics().open == 20 and book.waiting == 4)
        assert b"loopback" in await b.get("http://fast.test/")
        assert all(got.startswith(b"HTTP/1.1 504 ") for got in await asyncio.gather(*asks))
        assert book.waiting == 4


async def test_leaving_ends_everything_and_takes_the_socket_away(tmp_path: Path) -> None:
    tasks = asyncio.all_tasks()
    async with Server(says=None).at("127.0.0.1") as server:
        async with box(tmp_path, local(server)) as inside:
            clients = [await inside.connect() for _ in range(4)]
            clients[0][1].write(b"CONNECT shop.test:443 HTTP/1.1\r\n\r\nGET ")
            clients[1][1].write(b"GET http://shop.test/ HTTP/1.1\r\n\r\n")
            clients[2][1].write(b"GET http://sh")
            await clients[0][0].readuntil(b"\r\n\r\n")
            await until(lambda: len(server.gone) == 2)
            path = inside.path
        assert not path.exists()
        for reader, writer in clients:
            with suppress(ConnectionResetError):  # the system's word for what had been sent and not read
                assert await reader.read() == b""
            writer.close()
        for gone in server.gone:
            with anyio.fail_after(5):
                await gone.wait()
        assert inside.listener.statistics().open == 0
    await anyio.lowlevel.checkpoint()
    left = {task.get_coro().__qualname__ for task in asyncio.all_tasks() - tasks}  # type: ignore[union-attr]
    assert not {name for name in left if "Egress" in name}


EXCHANGES = [
    b"GET http://shop.test/ HTTP/1.1\r\nA: b\r\n\r\n",
    b"POST http://shop.test/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"CONNECT shop.test:443 HTTP/1.1\r\n\r\n\x16\x03\x01and so on",
    b"GET http://10.0.0.1/ HTTP/1.1\r\n\r\n",
]


async def break_off(inside: Box, data: bytes) -> None:
    """Send this much and go: with the sending side closed before, or not; at once, or a moment later."""
    _, writer = await inside.connect()
    writer.write(data)
    if len(data) % 2:
        writer.write_eof()
    if len(data) % 5 == 0:
        await asyncio.sleep(0)
    writer.transport.abort()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("keeps", [True, False])
async def test_nothing_is_left_of_connections_that_break_anywhere(keeps: bool, tmp_path: Path) -> None:
    limits = EgressLimits(connections_a_second=10_000, connections=1000)
    async with Server(keeps=keeps).at("127.0.0.1") as server:
        async with box(tmp_path, local(server), limits=limits) as inside:
            before = await asyncio.to_thread(open_files)
            for data in [exchange[:cut] for exchange in EXCHANGES for cut in range(0, len(exchange) + 1, 3)]:
                await break_off(inside, data)
            await inside.quiet()
            await until(lambda: open_files() <= before)
        for gone in server.gone:
            with anyio.fail_after(5):
                await gone.wait()


async def test_another_task_may_leave_and_what_is_raised_inside_comes_out_as_it_is(tmp_path: Path) -> None:
    filtering = EgressFilter(EgressRules(), resolver=Book())
    context = filtering.listen(tmp_path / "a.sock", "a")
    await asyncio.create_task(context.__aenter__())
    await asyncio.create_task(context.__aexit__(None, None, None))
    with pytest.raises(KeyError):
        async with filtering.listen(tmp_path / "a.sock", "a"):
            raise KeyError


async def test_refusals_are_logged_once_with_the_lease_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    book = Book(inner_test=[["10.0.0.5"]])
    async with box(tmp_path, resolver=book) as inside:
        for _ in range(3):
            await inside.get("http://inner.test/")
    lines = [record.getMessage() for record in caplog.records]
    why = "inner.test:80 leads to a private address, which boxes may not reach (its name leads to 10.0.0.5)"
    assert lines == [
        f"egress of lease-1 refused: {why}",
        f"egress of lease-1, refused in all: 3 times: {why}",
    ]


async def test_a_log_cannot_be_flooded_or_written_by_a_box(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with box(tmp_path, limits=EgressLimits(connections_a_second=10_000)) as inside:
        for number in range(300):
            await inside.get(f"http://10.0.0.1:{number + 1}/\nforged: line")
            await inside.get(f"http://10.0.0.1:{number + 1}/")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) < 210
    assert not any("forged" in line or "\n" in line for line in lines)


async def test_the_systems_own_names_are_looked_up_off_the_loop(tmp_path: Path) -> None:
    async with Server().at("127.0.0.1") as server:
        rules = EgressRules(private=(f"127.0.0.1:{server.port}",))
        async with EgressFilter(rules).listen(tmp_path / "a.sock", "a") as listener:
            inside = Box(tmp_path / "a.sock", listener)
            assert (await inside.get(f"http://localhost:{server.port}/")).endswith(b"hello")
            assert (await inside.get("http://no-such-name.invalid/")).startswith(b"HTTP/1.1 502 ")


async def test_where_nothing_can_listen_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"."):
        async with EgressFilter(EgressRules()).listen(tmp_path / "missing" / "a.sock", "a"):
            pass


def test_rules_are_checked_before_anything_listens() -> None:
    with pytest.raises(ConfigurationError):
        EgressFilter(EgressRules(private=("example.com",)))
