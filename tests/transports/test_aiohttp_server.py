"""The aiohttp server, through real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import pytest
from aiohttp import web

from greenroom import AgentApp, AiohttpServer, ConfigurationError, Limits
from greenroom.actors.errors import TurnNotFound
from greenroom.actors.events import TurnCancelled, TurnCompleted
from kits.http_client import body, completed_text, http_client, served
from kits.system import said
from kits.transport_kit import Client, Refused, Script, TransportKit


class TestAiohttp(TransportKit):
    def connect(self, app: AgentApp) -> AbstractAsyncContextManager[Client]:
        return served(app)


async def raw(url: str, *pieces: bytes, until: bytes | None = None) -> bytes:
    """Send bytes as they are and read to the end, or until something is seen."""
    port = int(url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        return await (reader.readuntil(until) if until else reader.read())
    finally:
        writer.close()


def post(data: bytes, version: str = "1.1", length: int | None = None, more: str = "") -> bytes:
    head = (
        f"POST /process HTTP/{version}\r\nHost: x\r\nContent-Type: application/json\r\n{more}"
        f"Content-Length: {len(data) if length is None else length}\r\n\r\n"
    )
    return head.encode() + data


# -- /process ------------------------------------------------------------------------------------------------------


async def test_the_stream_is_the_protocols() -> None:
    async with served(Script().app) as client:
        events = await (await client.ask("one two", "s")).rest()
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [(event["object"], event["status"]) for event in events] == [
        ("response", "created"),
        ("response", "in_progress"),
        ("message", "in_progress"),
        ("content", "in_progress"),
        ("content", "in_progress"),
        ("content", "completed"),
        ("message", "completed"),
        ("response", "completed"),
    ]
    assert completed_text(events[-1]) == "onetwo"


async def test_a_burst_leaves_in_one_piece_with_its_headers() -> None:
    async with served(Script().app) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(client.url.rsplit(":", 1)[1]))
        writer.write(post(json.dumps(body("one two")).encode()))
        first = await reader.read(1 << 20)
        writer.close()
    assert first.startswith(b"HTTP/1.1 200 OK")
    assert first.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


async def test_the_connection_is_used_again() -> None:
    async with served(Script().app) as client:
        request = post(json.dumps(body("x")).encode())
        last = post(json.dumps(body("x")).encode(), more="Connection: close\r\n")
        answers = await raw(client.url, request, request, last)
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    assert answers.count(b"data: [DONE]") == 3


async def test_http_1_0_gets_the_plain_stream_and_the_end_of_the_connection() -> None:
    async with served(Script().app) as client:
        answer = await raw(client.url, post(json.dumps(body("x")).encode(), version="1.0"))
    head, _, stream = answer.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert stream.startswith(b"data: {")
    assert stream.endswith(b"data: [DONE]\n\n")


async def test_stream_false_answers_one_response() -> None:
    async with served(Script().app) as client:
        status, response = await client.json("POST", "/process", json=body("one two", "s", stream=False))
        assert (status, response["object"], response["status"]) == (200, "response", "completed")
        assert (completed_text(response), response["session_id"]) == ("onetwo", "s")
        status, response = await client.json("POST", "/process", json=body("fail", "s", stream=False))
        assert (status, response["status"], response["error"]["code"]) == (200, "failed", "ValueError")


async def test_many_requests_without_a_session_at_once_all_complete() -> None:
    async with served(Script().app) as client:
        exchanges = await asyncio.gather(*(client.ask("hi") for _ in range(100)))
        endings = await asyncio.gather(*(exchange.ending() for exchange in exchanges))
    assert endings == [("completed", "hi")] * 100


async def test_a_turn_can_be_shown_while_it_runs_and_after() -> None:
    script = Script()
    async with served(script.app) as client:
        exchange = await client.ask("wait", "s")
        await exchange.next_text()
        status, response = await client.json("GET", f"/process/{exchange.id}")
        assert (status, response["status"]) == (200, "in_progress")
        script.gate.set()
        await exchange.ending()
        status, response = await client.json("GET", f"/process/{exchange.id}")
        assert (response["status"], completed_text(response)) == ("completed", "waiting no more")


async def test_a_stream_is_rejoined_after_any_event() -> None:
    async with served(Script().app) as client:
        exchange = await client.ask("one two three", "s")
        events = await exchange.rest()
        for position in range(len(events)):
            again = await client.rejoin(exchange.id, str(events[position]["sequence_number"]))
            assert await again.rest() == events[position + 1 :]  # type: ignore[attr-defined]


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "99999", "9" * 40, "٣"])
async def test_a_cursor_that_names_no_event_is_refused(cursor: str) -> None:
    async with served(Script().app) as client:
        exchange = await client.ask("one", "s")
        await exchange.rest()
        status, error = await client.json(
            "GET",
            f"/process/{exchange.id}/events",
            headers={"Last-Event-ID": cursor.encode().decode("latin-1")},
        )
    assert status == 400
    assert error["error"]["field"] == "Last-Event-ID"


async def test_silence_is_broken_by_comments_that_carry_no_number() -> None:
    script = Script()
    chunks: list[bytes] = []
    async with served(script.app, keepalive_seconds=0.02) as client, AsyncExitStack() as stack:
        response = await stack.enter_async_context(
            client.http.post(f"{client.url}/process", json=body("wait", "s"))
        )
        while sum(chunk.startswith(b":") for chunk in chunks) < 3:
            chunks.append((await response.content.readchunk())[0])
        script.gate.set()
        while chunk := (await response.content.readchunk())[0]:
            chunks.append(chunk)
    events = [json.loads(chunk[6:]) for chunk in chunks if chunk.startswith(b"data: {")]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert all(len(chunk) >= 2048 for chunk in chunks if chunk.startswith(b":")), (
        "too short to move a proxy's buffer"
    )


async def test_a_slow_reader_holds_nobody_up_and_misses_nothing() -> None:
    said = asyncio.Event()

    async def flood(msgs: Any) -> AsyncIterator[str]:
        for number in range(5000):
            yield f"{number:06}".ljust(3000, ".")  # in all far more than the sockets' buffers hold
        said.set()

    app = AgentApp()
    app.query()(flood)
    async with served(app) as client:
        exchange = await client.ask("go", "s")
        await said.wait()  # the turn ends although nobody reads
        numbers = [int(event["text"][:6]) for event in await exchange.rest() if event.get("delta") is True]
    assert numbers == list(range(5000))


# -- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b"{", None),
        (b"[]", None),
        (b'"text"', None),
        (b"\xff\xfe", None),
        (b"", None),
        (b"{}", "input"),
        (b'{"input": 3}', "input"),
        (b'{"input": [3]}', "input[0]"),
        (b'{"input": [{"role": "king"}]}', "input[0].role"),
        (b'{"input": [{"content": 5}]}', "input[0].content"),
        (b'{"input": [{"content": [{"type": "smell"}]}]}', "input[0].content[0].type"),
        (b'{"input": [{"content": "x"}], "stream": "yes"}', "stream"),
        (b'{"input": [{"content": "x"}], "session_id": 3}', "session_id"),
        (b'{"input": [{"content": "x"}], "overlap": "push"}', "overlap"),
        (b'{"input": [{"content": "x"}], "disconnect": "never"}', "disconnect"),
        (b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
    ],
)
async def test_what_cannot_start_is_a_400_that_names_the_field(data: bytes, field: str | None) -> None:
    script = Script()
    async with served(script.app) as client:
        status, error = await client.json(
            "POST", "/process", data=data, headers={"Content-Type": "application/json"}
        )
        assert script.app.statistics().accepted_turns == 0
    assert status == 400
    assert error["error"]["code"] == "invalid_request"
    assert error["error"].get("field") == field
    assert error["error"]["message"]


async def test_a_body_over_the_limit_is_refused_before_it_is_held() -> None:
    async with served(Script().app, body_bytes=1000) as client:
        status, error = await client.json("POST", "/process", json=body("x" * 2000))
        assert (status, error["error"]["code"]) == (413, "body_too_large")
        headers = b"Host: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunked = b"POST /process HTTP/1.1\r\n" + headers
        answer = await raw(client.url, chunked, (b"400\r\n" + b"x" * 1024 + b"\r\n") * 2, until=b"}}")
        assert b"413" in answer


async def test_a_body_that_does_not_arrive_is_given_up() -> None:
    async with served(Script().app, read_seconds=0.05) as client:
        answer = await raw(client.url, post(b'{"input"', length=500), until=b"}}")
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"did not arrive" in answer


async def test_a_connection_that_says_nothing_is_closed() -> None:
    async with served(Script().app, idle_seconds=0.05) as client:
        assert await raw(client.url) == b""
        assert await raw(client.url, b"POST /process HTTP/1.1\r\nHos") == b""


@pytest.mark.parametrize(
    "declared", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
async def test_what_any_page_may_post_is_refused(declared: str) -> None:
    async with served(Script().app) as client:
        status, error = await client.json(
            "POST", "/process", data=json.dumps(body("x")), headers={"Content-Type": declared}
        )
    assert (status, error["error"]["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/process", 405), ("DELETE", "/", 405), ("POST", "/shutdown", 404)],
)
async def test_aiohttps_own_errors_are_json_too(method: str, path: str, status: int) -> None:
    async with served(Script().app) as client:
        got, error = await client.json(method, path)
    assert got == status
    assert path in error["error"]["message"]


async def test_garbage_instead_of_http_is_answered_and_survived() -> None:
    async with served(Script().app) as client:
        assert b"400" in await raw(client.url, b"\x00\xff garbage\r\n\r\n")
        assert (await (await client.ask("still here")).ending())[1] == "stillhere"


@pytest.mark.parametrize("limits", [Limits(waiting_turns=1), Limits(waiting_bytes=1)])
async def test_refusals_say_when_to_try_again(limits: Limits) -> None:
    async with served(Script(limits=limits).app) as client:
        for _ in range(2):
            await client.ask("wait", "s")
        async with client.http.post(f"{client.url}/process", json=body("x", "s")) as response:
            assert response.status == 429
            assert int(response.headers["Retry-After"]) >= 1
            assert (await response.json())["error"]["code"] == "mailbox_full"


# -- who may -------------------------------------------------------------------------------------------------------


async def by_token(headers: Any) -> str | None:
    return {"Bearer a": "alice", "Bearer b": "bob"}.get(headers.get("Authorization", ""))


async def test_with_authentication_nobody_reaches_what_is_not_his() -> None:
    script = Script(authenticate=by_token)
    async with AsyncExitStack() as stack:
        stranger = await stack.enter_async_context(served(script.app))
        alice = await stack.enter_async_context(
            http_client(stranger.url, headers={"Authorization": "Bearer a"})
        )
        bob = await stack.enter_async_context(
            http_client(stranger.url, headers={"Authorization": "Bearer b"})
        )
        exchange = await alice.ask("wait", "s", id="mine")
        for client, code in ((bob, "turn_not_found"), (stranger, "unauthenticated")):
            assert await refused(client.rejoin("mine")) == code
            assert await refused(client.cancel("mine")) == code
        assert await refused(stranger.ask("x")) == "unauthenticated"
        assert await refused(bob.ask("x", "s", user_id="alice")) == "forbidden"
        assert (await (await bob.ask("count", "s")).ending())[1] == "1"  # his own session of that name
        script.gate.set()
        assert (await exchange.ending())[0] == "completed"


async def test_the_program_around_the_server_reaches_what_users_have_by_naming_them() -> None:
    app = Script(authenticate=by_token).app
    async with (
        served(app) as server,
        http_client(server.url, headers={"Authorization": "Bearer a"}) as alice,
    ):
        exchange = await alice.ask("wait", "s", id="hers")
        for another in (None, "bob"):
            with pytest.raises(TurnNotFound):
                await app.cancel("hers", principal=another)
            with pytest.raises(TurnNotFound):
                await anext(aiter(app.follow("hers", principal=another)))
        behind = app.process("next", session_id="s", user_id="alice")
        await behind.submit()
        assert app.statistics().active_sessions == 1
        await app.cancel("hers", principal="alice")
        events = [event async for event in app.follow("hers", principal="alice")]
        assert isinstance(events[-1], TurnCancelled)
        assert (await exchange.ending())[0] == "cancelled"
        assert said(await behind.result()) == "next"


async def test_in_an_embedded_call_a_session_alone_is_that_of_the_user_with_its_name() -> None:
    app = Script(authenticate=by_token).app
    async with (
        served(app) as server,
        http_client(server.url, headers={"Authorization": "Bearer a"}) as alice,
    ):
        exchange = await alice.ask("wait", "alice")
        embedded = await app.process("next", session_id="alice", overlap="interrupt").submit()
        assert (await exchange.ending())[0] == "cancelled"
        assert isinstance(await embedded.ended(), TurnCompleted)


async def refused(attempt: Awaitable[object]) -> str:
    """With what code it was."""
    with pytest.raises(Refused) as caught:
        await attempt
    return caught.value.code


async def test_cors_is_off_unless_said() -> None:
    headers = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    async with (
        served(Script().app) as client,
        client.http.options(f"{client.url}/process", headers=headers) as answer,
    ):
        assert answer.status == 405
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_cors_allows_the_origins_it_is_told() -> None:
    async with served(Script().app, cors_origins=["https://page.example"]) as client:
        url = f"{client.url}/process"
        ours = {"Origin": "https://page.example"}
        asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        async with client.http.options(url, headers=ours | asking) as answer:
            assert answer.status == 204
            assert answer.headers["Access-Control-Allow-Origin"] == "https://page.example"
            assert answer.headers["Access-Control-Allow-Headers"] == "content-type"
            assert answer.headers["Access-Control-Expose-Headers"] == "Location, Retry-After, x-should-retry"
        async with client.http.post(url, json=body("x"), headers=ours) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "https://page.example"
        async with client.http.post(url, json={}, headers=ours) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "https://page.example"
        async with client.http.post(
            url, json=body("x"), headers={"Origin": "https://other.example"}
        ) as answer:
            assert "Access-Control-Allow-Origin" not in answer.headers


# -- life ----------------------------------------------------------------------------------------------------------


async def test_what_the_server_tells_of_itself() -> None:
    app = Script().app

    @app.endpoint("/mine", methods=["GET"])
    async def mine() -> dict[str, int]:
        return {"answer": 42}

    async with served(app) as client:
        status, about = await client.json("GET", "/")
        paths = {(route["method"], route["path"]) for route in about["routes"]}
        assert (status, about["name"]) == (200, "Script")
        assert {
            ("POST", "/process"),
            ("GET", "/process/{id}/events"),
            ("GET", "/mine"),
            ("GET", "/ready"),
        } <= paths
        assert not [path for _, path in paths if "shutdown" in path]
        assert await client.json("GET", "/mine") == (200, {"answer": 42})
        assert (await client.json("GET", "/health"))[0] == 200
        assert await client.json("GET", "/ready") == (200, {"status": "ready"})


async def test_not_ready_while_starting_and_while_draining() -> None:
    script = Script(drain_seconds=30)
    starting, go_on = asyncio.Event(), asyncio.Event()

    @script.app.init
    async def slow_init(self: AgentApp) -> None:
        starting.set()
        await go_on.wait()

    server = AiohttpServer(port=0)
    start = asyncio.create_task(script.app.start(server))
    await starting.wait()
    async with http_client(f"http://127.0.0.1:{server.port}") as client:
        assert (await client.json("GET", "/health"))[0] == 200
        assert (await client.json("GET", "/ready"))[0] == 503
        assert (await client.json("POST", "/process", json=body("x")))[0] == 503
        go_on.set()
        await start
        assert (await client.json("GET", "/ready"))[0] == 200
        exchange = await client.ask("wait", "s")
        await exchange.next_text()
        stop = asyncio.create_task(script.app.stop())
        await asyncio.sleep(0)
        assert (await client.json("GET", "/health"))[0] == 200
        assert (await client.json("GET", "/ready"))[0] == 503
        with pytest.raises(Refused) as refused:
            await client.ask("late")
        assert refused.value.code == "not_serving"
        script.gate.set()
        assert (await exchange.ending())[0] == "completed"
        await stop


async def test_a_port_that_is_taken_stops_the_start_before_init() -> None:
    inits: list[str] = []
    async with served(Script().app) as client:
        script = Script()
        script.app.init(lambda: inits.append("init"))
        with pytest.raises(ConfigurationError, match="--port"):
            await script.app.start(AiohttpServer(port=int(client.url.rsplit(":", 1)[1])))
    assert inits == []


async def test_stopping_does_not_wait_for_a_reader_that_does_not_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def flood(msgs: Any) -> AsyncIterator[str]:
        while True:
            yield "x" * 1000
            await asyncio.sleep(0)

    app = AgentApp(drain_seconds=0, limits=Limits(turn_bytes=5_000_000))
    app.query()(flood)
    server = AiohttpServer(port=0)
    await app.start(server)
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(post(json.dumps(body("x")).encode()))
    async with asyncio.timeout(20):
        await app.stop()
    writer.close()
    assert not [
        record for record in caplog.records if record.levelno >= logging.ERROR and record.name == "asyncio"
    ]


# -- inside another aiohttp application ----------------------------------------------------------------------------


async def test_it_lives_inside_another_aiohttp_application() -> None:
    script = Script(drain_seconds=30)
    order: list[str] = []

    @script.app.init
    async def init(self: AgentApp) -> None:
        order.append("init")

    @script.app.shutdown
    async def shutdown(self: AgentApp) -> None:
        order.append("shutdown")

    outer = web.Application()
    outer.router.add_get("/", _hello)
    outer.add_subapp("/agent", script.app.aiohttp_application())
    runner = web.AppRunner(outer)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with http_client(f"http://127.0.0.1:{runner.addresses[0][1]}/agent") as client:
        assert (await (await client.ask("hi there", "s")).ending()) == ("completed", "hithere")
        assert (await client.json("GET", "/ready"))[0] == 200
        gone = await client.ask("wait", "s", disconnect="cancel")
        await gone.next_text()
        await gone.leave()
        script.ended.clear()
        await script.ended.wait()
        open_stream = await client.ask("wait", "t")
        await open_stream.next_text()
        cleanup = asyncio.create_task(runner.cleanup())
        await asyncio.sleep(0)
        script.gate.set()
        assert (await open_stream.ending())[0] == "completed"
        await cleanup
    assert order == ["init", "shutdown"]


async def _hello(_: web.Request) -> web.Response:
    return web.Response(text="hello")


async def test_its_routes_live_among_those_of_another_application() -> None:
    script = Script()

    async def life(_: web.Application) -> AsyncIterator[None]:
        async with script.app:
            yield

    outer = web.Application()
    outer.router.add_get("/", _hello)
    outer.add_routes(script.app.aiohttp_routes())
    outer.cleanup_ctx.append(life)
    runner = web.AppRunner(outer)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with http_client(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
        assert (await (await client.ask("hi there", "s")).ending()) == ("completed", "hithere")
        status, error = await client.json("POST", "/process", json={"input": 3})
        assert (status, error["error"]["field"]) == (400, "input")
        async with client.http.get(client.url) as answer:
            assert await answer.text() == "hello"
    await runner.cleanup()


async def test_an_application_that_runs_already_is_mounted_without_being_started_again() -> None:
    script = Script()
    async with script.app as app:
        outer = web.Application()
        outer.add_subapp("/a", app.aiohttp_application())
        runner = web.AppRunner(outer)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with http_client(f"http://127.0.0.1:{runner.addresses[0][1]}/a") as client:
            assert (await (await client.ask("count", "s")).ending())[1] == "1"
        await runner.cleanup()
        stream = app.process("count", session_id="s")
        assert (await stream.result()).output[0].parts[0].text == "2"  # type: ignore[union-attr]
