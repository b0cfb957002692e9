"""Errors under the base path: one form for all of them, in all forms of use, and none that makes a client run an agent
twice."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

import pytest
from aiohttp import web
from msgspec import structs

from greenroom import AgentApp, AiohttpServer, ConfigurationError, Limits, NotServing
from greenroom.actors.errors import (
    BodyTooLarge,
    ContinuationNotFound,
    CursorExpired,
    Forbidden,
    GreenroomError,
    HandlerError,
    InvalidRequest,
    MailboxFull,
    Overloaded,
    SessionBusy,
    SessionHeld,
    SessionLost,
    StoreUnavailable,
    TurnExists,
    TurnMoved,
    TurnNotFound,
    Unauthenticated,
    UnsupportedMediaType,
)
from greenroom.actors.ids import Sources
from greenroom.actors.repeats import may_run
from greenroom.transports.door import TooManyConnections
from greenroom.transports.http_errors import OURS, ErrorForm, guard
from greenroom.transports.responses_errors import FORM
from kits.http_client import http_client
from kits.responses_http import BASE_PATH, Answer, ResponsesClient, responses_of
from kits.system import turn
from kits.transport_kit import Script

INVALID = "invalid_request_error"

# -- our own errors in the API's words -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "type_", "code"),
    [
        (InvalidRequest("x", field="input"), 400, INVALID, "invalid_request"),
        (ContinuationNotFound("x"), 400, INVALID, "previous_response_not_found"),
        (Unauthenticated("x"), 401, INVALID, "invalid_api_key"),
        (Forbidden("x"), 403, INVALID, "forbidden"),
        (TurnNotFound("x"), 404, INVALID, "response_not_found"),
        (CursorExpired("x", field="starting_after"), 410, INVALID, "cursor_expired"),
        (SessionBusy("x"), 400, INVALID, "conversation_locked"),
        (TurnExists("x"), 400, INVALID, "response_exists"),
        (BodyTooLarge("x"), 413, INVALID, "body_too_large"),
        (UnsupportedMediaType("x"), 415, INVALID, "unsupported_media_type"),
        (MailboxFull("x"), 429, "rate_limit_exceeded", "rate_limit_exceeded"),
        (Overloaded("x"), 429, "rate_limit_exceeded", "rate_limit_exceeded"),
        (HandlerError("x"), 500, "server_error", "server_error"),
        (NotServing("x"), 503, "server_error", "not_serving"),
    ],
)
async def test_each_error_has_its_words(error: GreenroomError, status: int, type_: str, code: str) -> None:
    async with refusing(error) as client:
        answer = await client.create("x")
    assert answer.status == status
    assert answer.error == {"message": "x", "type": type_, "param": error.field, "code": code}


@asynccontextmanager
async def refusing(error: GreenroomError) -> AsyncIterator[ResponsesClient]:
    """A client of a server that meets this error in each request."""

    async def meet(headers: Any) -> str | None:
        raise error

    async with responses_of(Script(authenticate=meet).app) as client:
        yield client


def is_sent_again(answer: Answer) -> bool:
    """What OpenAI's SDKs make of it."""
    said = answer.headers.get("x-should-retry")
    return said != "false" and (answer.status in (408, 409, 429) or answer.status >= 500)


NEVER_RAN = [
    MailboxFull,
    Overloaded,
    TooManyConnections,
    NotServing,
    SessionHeld,
    SessionLost,
    StoreUnavailable,
]
KINDS = [
    kind
    for kind in GreenroomError.__subclasses__()
    if kind.__init__ is GreenroomError.__init__ or kind is StoreUnavailable
]


@pytest.mark.parametrize("kind", [MailboxFull, Overloaded, NotServing, SessionHeld, StoreUnavailable])
async def test_where_waiting_helps_it_says_how_long(kind: type[GreenroomError]) -> None:
    async with refusing(kind("x")) as client:
        assert int((await client.create("x")).headers["Retry-After"]) >= 1


@pytest.mark.parametrize("kind", KINDS)
async def test_what_never_ran_is_sent_again_and_nothing_else(kind: type[GreenroomError]) -> None:
    async with refusing(kind("x")) as client:
        assert is_sent_again(await client.create("x")) == (kind in NEVER_RAN)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_does_no_harm_twice_is_sent_again_for_a_while(kind: type[GreenroomError]) -> None:
    async with refusing(kind("x")) as client:
        keyed = await client.ask("POST", "/responses", json={"input": "x"}, headers={"Idempotency-Key": "k"})
        for answer in (keyed, await client.get("/responses/x"), await client.ask("DELETE", "/responses/x")):
            assert is_sent_again(answer) == (answer.status in (429, 503))


@pytest.mark.parametrize(
    ("path", "stored", "where"),
    [
        ("/responses", True, f"{BASE_PATH}/responses/t%2F1"),
        ("/responses", False, "/process/t%2F1"),
        ("/chat/completions", False, "/process/t%2F1"),
    ],
)
@pytest.mark.parametrize("named", [True, False])
async def test_a_turn_that_went_to_another_process_is_there_and_begun_by_nobody_again(
    path: str, stored: bool, where: str, named: bool
) -> None:
    async with refusing(TurnMoved("t/1", named=named, stored=stored)) as client:
        headers = {"Idempotency-Key": "k"} if named else {}
        answer = await client.ask("POST", path, json={}, headers=headers)
    assert (answer.status, answer.error["code"]) == (503 if named else 424, "turn_moved")
    assert "t/1" in answer.error["message"]
    assert answer.headers["Location"] == where
    assert is_sent_again(answer) == named == ("Retry-After" in answer.headers)


@pytest.mark.parametrize("named", [False, True])
async def test_a_turn_of_which_it_is_not_known_whether_it_runs_is_not_begun_again(named: bool) -> None:
    sent = structs.replace(turn("x", id="t"), fingerprint=b"f" if named else b"")
    async with refusing(may_run(sent, StoreUnavailable("away"))) as client:
        headers = {"Idempotency-Key": "k"} if named else {}
        answer = await client.ask("POST", "/responses", json={"input": "x"}, headers=headers)
    expected = (503, "server_error", "5") if named else (424, "store_unavailable", None)
    assert (answer.status, answer.error["code"], answer.headers.get("Retry-After")) == expected
    assert answer.error["type"] == "server_error"
    assert is_sent_again(answer) == named


# -- aiohttp's own, and those of bodies, in all forms of use -------------------------------------------------------


@asynccontextmanager
async def alone(app: AgentApp, **options: Any) -> AsyncIterator[ResponsesClient]:
    async with responses_of(app, **options) as client:
        yield client


@asynccontextmanager
async def listening(outer: web.Application, prefix: str = "") -> AsyncIterator[ResponsesClient]:
    runner = web.AppRunner(outer)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with http_client(f"http://127.0.0.1:{runner.addresses[0][1]}{prefix}") as client:
            yield ResponsesClient(client)
    finally:
        await runner.cleanup()


@asynccontextmanager
async def mounted(app: AgentApp, **options: Any) -> AsyncIterator[ResponsesClient]:
    outer = web.Application()
    outer.add_subapp("/agent", app.aiohttp_application(**options))
    async with listening(outer, "/agent") as client:
        yield client


@asynccontextmanager
async def among_others(app: AgentApp, **options: Any) -> AsyncIterator[ResponsesClient]:
    outer = web.Application()
    outer.add_routes(app.aiohttp_routes(**options))
    async with app, listening(outer) as client:
        yield client


FORMS = pytest.mark.parametrize("form", [alone, mounted, among_others])


@FORMS
@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("GET", "/nothing", 404, "not_found"),
        ("POST", "/responses/x/nothing", 404, "not_found"),
        ("PUT", "/responses", 405, "method_not_allowed"),
        ("GET", "/responses", 405, "method_not_allowed"),
        ("PATCH", "/responses/resp_1", 405, "method_not_allowed"),
        ("GET", "/responses/resp_1/cancel", 405, "method_not_allowed"),
        ("POST", "/models", 405, "method_not_allowed"),
        ("GET", "/chat/completions", 405, "method_not_allowed"),
        ("GET", "/models/another", 404, "model_not_found"),
        ("GET", "/models/another/one", 404, "model_not_found"),
        ("GET", "/responses/resp_unknown", 404, "response_not_found"),
        ("DELETE", "/responses/resp_unknown", 404, "response_not_found"),
        ("POST", "/responses/resp_unknown/cancel", 404, "response_not_found"),
        ("GET", "/responses/resp_unknown/input_items", 404, "response_not_found"),
        ("GET", "/conversations/conv_unknown", 404, "conversation_not_found"),
        ("DELETE", "/conversations/conv_unknown", 404, "conversation_not_found"),
        ("GET", "/conversations/conv_unknown/items", 404, "conversation_not_found"),
        ("GET", "/conversations/conv_unknown/items/msg_1", 404, "conversation_not_found"),
    ],
)
async def test_what_is_not_there(form: Any, method: str, path: str, status: int, code: str) -> None:
    async with form(Script().app) as client:
        answer = await client.ask(method, path)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.error["type"] == INVALID
    if status == 405:
        assert answer.headers["Allow"]


@FORMS
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "not valid JSON"),
        (b"", "empty"),
        (b"\xff\xfe", "UTF-8"),
        (b"[]", "JSON object"),
        (b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "deep"),
    ],
)
@pytest.mark.parametrize("path", ["/responses", "/responses/compact", "/responses/input_tokens"])
async def test_what_is_no_json(form: Any, path: str, data: bytes, message: str) -> None:
    async with form(Script().app) as client:
        answer = await client.ask("POST", path, data=data, headers={"Content-Type": "application/json"})
    assert (answer.status, answer.error["type"]) == (400, INVALID)
    assert message in answer.error["message"]


@FORMS
async def test_a_body_over_the_limit(form: Any) -> None:
    async with form(Script().app, compatible_body_bytes=1_000) as client:
        answer = await client.create("x" * 2_000)
        assert (answer.status, answer.error["code"]) == (413, "body_too_large")
        assert "compatible_body_bytes" in answer.error["message"]
        pieces = _in_pieces(b"x" * 600, 3)
        answer = await client.ask(
            "POST", "/responses", data=pieces, headers={"Content-Type": "application/json"}
        )
        assert answer.status == 413


async def _in_pieces(piece: bytes, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield piece


@FORMS
async def test_a_body_with_pictures_is_taken_whatever_the_outer_application_takes(form: Any) -> None:
    picture = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 3_000_000}
    words = {"type": "input_text", "text": "hi there"}
    body = json.dumps({"input": [{"role": "user", "content": [words, picture]}]}).encode()
    async with form(Script().app) as client:
        answer = await client.ask(
            "POST", "/responses", data=BytesIO(body), headers={"Content-Type": "application/json"}
        )
    assert answer.status == 200, answer


@FORMS
async def test_a_body_that_does_not_arrive(form: Any) -> None:
    async with form(Script().app, read_seconds=0.05) as client:
        host, _, rest = client.url.removeprefix("http://").partition("/")
        reader, writer = await asyncio.open_connection(*host.split(":"))
        head = f"POST /{rest}/responses HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        writer.write(f'{head}Content-Length: 500\r\n\r\n{{"input"'.encode())
        answer = await reader.readuntil(b"}}")
        writer.close()
    assert answer.startswith(b"HTTP/1.1 400")
    assert b'"type":"invalid_request_error"' in answer


@FORMS
@pytest.mark.parametrize("declared", ["text/plain", "application/x-www-form-urlencoded"])
async def test_what_any_page_may_post(form: Any, declared: str) -> None:
    script = Script()
    async with form(script.app) as client:
        for path in ("/responses", "/conversations"):
            answer = await client.ask("POST", path, data='{"input": "x"}', headers={"Content-Type": declared})
            assert (answer.status, answer.error["code"]) == (415, "unsupported_media_type")
    assert script.asked == []


@FORMS
async def test_an_unknown_expectation_is_passed_over(form: Any) -> None:
    async with form(Script().app) as client:
        answer = await client.ask("POST", "/responses", json={}, headers={"Expect": "the-unexpected"})
        assert answer.error["type"] == INVALID
        answer = await client.ask("POST", "/responses", json={"input": "x"}, expect100=True)
        assert answer.status == 200


# -- who and when --------------------------------------------------------------------------------------------------


async def by_token(headers: Any) -> str | None:
    return {"Bearer a": "alice", "Bearer b": "bob"}.get(headers.get("Authorization", ""))


@FORMS
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/responses"),
        ("GET", "/responses/x"),
        ("DELETE", "/responses/x"),
        ("POST", "/responses/x/cancel"),
        ("GET", "/responses/x/input_items"),
        ("POST", "/responses/compact"),
        ("POST", "/responses/input_tokens"),
        ("GET", "/models"),
        ("GET", "/models/Script"),
        ("POST", "/conversations"),
        ("GET", "/conversations/x"),
        ("POST", "/conversations/x"),
        ("DELETE", "/conversations/x"),
        ("GET", "/conversations/x/items"),
        ("POST", "/conversations/x/items"),
        ("GET", "/conversations/x/items/y"),
        ("DELETE", "/conversations/x/items/y"),
        ("POST", "/chat/completions"),
    ],
)
async def test_who_does_not_say_who_he_is_gets_nowhere(form: Any, method: str, path: str) -> None:
    async with form(Script(authenticate=by_token).app) as client:
        answer = await client.ask(method, path)
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_a_full_mailbox_says_when_to_try_again() -> None:
    script = Script(limits=Limits(waiting_turns=0))
    async with responses_of(script.app) as client:
        first = await client.stream("wait", conversation="s")
        await first.until("response.output_text.delta")
        answer = await client.create("x", conversation="s")
        assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
        assert int(answer.headers["Retry-After"]) >= 1
        streamed = await client.create("x", conversation="s", stream=True)
        assert (streamed.status, streamed.error["code"]) == (429, "rate_limit_exceeded")
        locked = await client.create("x", conversation="s", overlap="reject")
        assert (locked.status, locked.error["code"]) == (400, "conversation_locked")


async def test_an_application_that_starts_takes_nothing() -> None:
    script = Script()
    starting, go_on = asyncio.Event(), asyncio.Event()

    @script.app.init
    async def slow_init(self: AgentApp) -> None:
        starting.set()
        await go_on.wait()

    server = AiohttpServer(port=0)
    start = asyncio.create_task(script.app.start(server))
    await starting.wait()
    async with http_client(f"http://127.0.0.1:{server.port}") as plain:
        client = ResponsesClient(plain)
        for answer in (await client.create("x"), await client.get("/conversations/x")):
            assert (answer.status, answer.error["code"]) == (503, "not_serving")
            assert is_sent_again(answer)
            assert answer.headers["Retry-After"]
        go_on.set()
        await start
        assert (await client.create("x")).status == 200
        await script.app.stop()


# -- what breaks ---------------------------------------------------------------------------------------------------


async def test_what_breaks_is_a_500_that_is_not_sent_again_and_keeps_the_inside_inside(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(headers: Any) -> str | None:
        raise ValueError("internal matter")

    async with responses_of(Script(authenticate=broken).app) as client:
        answer = await client.create("x")
    assert (answer.status, answer.error["type"], answer.error["code"]) == (
        500,
        "server_error",
        "server_error",
    )
    assert answer.headers["x-should-retry"] == "false"
    assert "internal matter" not in repr(answer)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "internal matter" in str(record.exc_info)
    error_id = record.getMessage().rpartition("[")[2].rstrip("]")
    assert error_id in answer.error["message"]


@pytest.mark.parametrize("form", [OURS, FORM])
async def test_an_answer_that_has_begun_is_cut_and_followed_by_no_error(form: ErrorForm) -> None:
    """As a stream whose turn goes to another process under way."""

    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        raise SessionLost("x")

    outer = web.Application()
    outer.router.add_get("/half", guard(half, Sources(), form))
    async with listening(outer) as client:
        host, _, _ = client.url.removeprefix("http://").partition("/")
        reader, writer = await asyncio.open_connection(*host.split(":"))
        writer.write(b"GET /half HTTP/1.1\r\nHost: x\r\n\r\n")
        said = await asyncio.wait_for(reader.read(), 20)
        writer.close()
    assert said.endswith(b"half\r\n")
    assert said.count(b"HTTP/1.1") == 1


async def test_a_failed_run_is_an_answer_and_not_an_error() -> None:
    async with responses_of(Script().app) as client:
        answer = await client.create("fail")
    assert (answer.status, answer["status"], answer["error"]["code"]) == (200, "failed", "server_error")
    assert "internal matter" not in repr(answer)


def test_settings_that_are_none() -> None:
    with pytest.raises(ConfigurationError, match="tool_display"):
        AiohttpServer(tool_display="everything")
    with pytest.raises(TypeError, match="nonsense"):
        AiohttpServer(nonsense=1)


def test_the_base_path() -> None:
    assert BASE_PATH == "/compatible-mode/v1"
