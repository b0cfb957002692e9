"""The user's own routes: what their functions get, and what becomes of what they give back."""

import asyncio
import contextvars
import dataclasses
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest
import starlette.requests
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from greenroom.actors.errors import (
    ConfigurationError,
    Forbidden,
    InvalidRequest,
    SessionBusy,
    TurnNotFound,
    Unauthenticated,
)
from greenroom.actors.ids import Sources
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import AgentRequest, Message, SessionKey, Text, Turn
from greenroom.services.conversation_store import ConversationStore, InMemoryConversations
from greenroom.services.memory_responses import InMemoryResponseStore
from greenroom.services.response_store import ResponseStore
from greenroom.services.store import SessionRecord
from greenroom.transports.endpoint_arguments import Given
from greenroom.transports.endpoints import EndpointCaller, encode, respond
from greenroom.transports.http_errors import guarded
from greenroom.transports.looking import Looking
from greenroom.transports.transport import Endpoint, HostState


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Order(pydantic.BaseModel):
    item: str
    amount: int = 1


@dataclasses.dataclass
class Pair:
    left: str
    right: str


class Named(TypedDict):
    name: str


class FakeHost:
    """A host with endpoints only; who sends `x-user: nobody` is turned away."""

    name = "fake"
    description = ""

    def __init__(
        self, endpoints: Sequence[Endpoint] = (), state: HostState = "ready", debug: bool = False
    ) -> None:
        self.endpoints = endpoints
        self.state: HostState = state
        self.debug = debug
        self.honours: frozenset[str] = frozenset()
        self.sources = Sources(now=lambda: 0.0, uuid=lambda: "id")
        self.responses: ResponseStore = InMemoryResponseStore()
        self.conversations: ConversationStore = InMemoryConversations()
        self.looking: Looking | None = None

    async def session(self, key: SessionKey) -> SessionRecord | None:
        return None

    async def forget(self, key: SessionKey) -> None:
        raise AssertionError("endpoints delete no sessions")

    async def authenticate(self, headers: Mapping[str, str]) -> str | None:
        user = headers.get("x-user")
        if user == "nobody":
            raise Unauthenticated("who are you?")
        return user

    async def submit(self, turn: Turn) -> TurnLog:
        raise AssertionError("endpoints start no turns")

    def check_input(self, messages: Sequence[Message]) -> None:
        raise AssertionError("endpoints read no messages")

    def find(self, turn_id: str, principal: str | None) -> TurnLog:
        raise TurnNotFound(turn_id)

    async def locate(self, turn_id: str, principal: str | None) -> TurnLog:
        raise TurnNotFound(turn_id)

    async def cancel(self, turn_id: str, principal: str | None, reason: str = "asked") -> TurnLog:
        raise TurnNotFound(turn_id)

    async def forget_turn(self, turn_id: str, principal: str | None) -> None:
        raise AssertionError("endpoints delete no turns")

    def client_left(self, log: TurnLog) -> None:
        raise AssertionError("endpoints start no turns")


def caller(function: Callable[..., Any], path: str = "/") -> EndpointCaller:
    return EndpointCaller(Endpoint(path, ("POST",), function))


async def call(function: Callable[..., Any], **given: Any) -> Any:
    return await caller(function).call(Given(**given))


async def refused(function: Callable[..., Any], **given: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        await call(function, **given)
    return caught.value


# -- arguments ---------------------------------------------------------------------------------------------------------


async def test_arguments_come_from_path_then_body_then_query() -> None:
    async def where(a: str, b: str, c: str, d: str = "default") -> list[str]:
        return [a, b, c, d]

    given: dict[str, Any] = {
        "path": {"a": "path"},
        "body": {"a": "body", "b": "body"},
        "query": {"a": ["query"], "b": ["query"], "c": ["query"]},
    }
    assert await call(where, **given) == ["path", "body", "query", "default"]


async def test_words_become_what_is_annotated_and_json_keeps_its_types() -> None:
    async def add(n: int, flag: bool, ratio: float | None = None, tags: list[str] | None = None) -> list[Any]:
        return [n, flag, ratio, tags]

    query = {"n": ["1", "2"], "flag": ["true"], "ratio": ["0.5"], "tags": ["a", "b"]}
    assert await call(add, query=query) == [2, True, 0.5, ["a", "b"]]
    assert (await refused(add, body={"n": "2", "flag": True})).field == "n"


async def test_what_is_missing_is_named() -> None:
    async def greet(name: str) -> str:
        return name

    error = await refused(greet, body={})
    assert (error.field, error.status) == ("name", 400)
    assert "name is missing" in error.message


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (Point, Point(1, 2)),
        (dict, {"x": 1, "y": 2}),
        (dict[str, int], {"x": 1, "y": 2}),
        (Mapping[str, int] | None, {"x": 1, "y": 2}),
        (Any, None),
    ],
)
async def test_a_sole_model_takes_the_body_whole(annotation: Any, expected: object) -> None:
    async def take(thing: Any = None) -> Any:
        return thing

    take.__annotations__["thing"] = annotation
    assert await call(take, body={"x": 1, "y": 2}) == expected


async def test_models_of_every_kind() -> None:
    async def order(order: Order) -> int:
        return order.amount

    async def pair(pair: Pair) -> Pair:
        return pair

    async def named(named: Named) -> str:
        return named["name"]

    assert await call(order, body={"item": "tea", "amount": 3}) == 3
    assert await call(pair, body={"left": "l", "right": "r"}) == Pair("l", "r")
    assert await call(named, body={"name": "Friday"}) == "Friday"


async def test_models_among_others_take_the_field_of_their_name() -> None:
    async def move(point: Point, order: Order, by: int = 1) -> list[Any]:
        return [point.x, order.item, by]

    assert await call(move, body={"point": {"x": 1}, "order": {"item": "tea"}, "by": 2}) == [1, "tea", 2]

    async def scaled(point: Point, by: int) -> int:
        return point.x * by

    assert await call(scaled, body={"x": 2}, query={"by": ["3"]}) == 6


async def test_lists_of_models_and_faults_deep_inside() -> None:
    async def many(points: list[Point], orders: list[Order] | None = None) -> int:
        return len(points) + len(orders or [])

    assert await call(many, body={"points": [{"x": 1}], "orders": [{"item": "a"}]}) == 2
    error = await refused(many, body={"points": [{"x": 1}, {"x": "?"}]})
    assert error.field in {"points[1].x", "points[...].x"}  # as exact as msgspec is
    error = await refused(many, body={"points": [], "orders": [{"item": "a", "amount": "?"}]})
    assert error.field == "orders[0].amount"


async def test_a_body_that_is_no_object_goes_to_a_sole_parameter() -> None:
    async def total(numbers: list[int]) -> int:
        return sum(numbers)

    async def two(a: int, b: int) -> int:
        return a + b

    assert await call(total, body=[1, 2]) == 3
    assert await call(total, body={"numbers": [1, 2]}) == 3
    assert "an object" in (await refused(two, body=[1, 2])).message.replace("a JSON object", "an object")


async def test_request_principal_and_the_rest() -> None:
    async def everything(
        request: Any, principal: str | None, /, a: int, *args: Any, **others: Any
    ) -> list[Any]:
        return [request, principal, a, args, others]

    given = Given(
        request="the request",
        principal="me",
        body={"a": 1, "b": 2, "principal": "forged"},
        query={"c": ["3"]},
    )
    assert await caller(everything).call(given) == ["the request", "me", 1, (), {"b": 2, "c": "3"}]


async def test_request_as_a_model_is_the_body() -> None:
    async def model(request: Point) -> int:
        return request.x

    async def plain(request: dict[str, Any]) -> dict[str, Any]:
        return request

    assert await call(model, request="raw", body={"x": 5}) == 5
    assert await call(plain, request="raw", body={"request": 1}) == {"request": 1}


async def test_an_agent_request_is_read_as_process_reads_it() -> None:
    async def ask(request: AgentRequest) -> AgentRequest:
        return request

    request = await call(ask, body={"input": [{"content": "hi"}], "colour": "red"}, principal="me")
    assert request.input[0].content == (Text("hi"),)
    assert (request.user_id, request.colour) == ("me", "red")
    assert (await refused(ask, body={"input": 1})).field == "input"
    with pytest.raises(Forbidden):
        await call(ask, body={"input": [{"content": "hi"}], "user_id": "you"}, principal="me")


async def test_annotations_as_text_are_resolved() -> None:
    def take(point: "Point", request: "Nowhere") -> int:  # type: ignore[name-defined]  # noqa: F821
        return point.x

    assert await call(take, body={"x": 1}) == 1

    def wrong(point: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821
        return None

    with pytest.raises(ConfigurationError, match="Nowhere"):
        caller(wrong)


def test_an_endpoint_that_nothing_can_satisfy_is_refused_at_start_up() -> None:
    async def pathless() -> None:
        return None

    async def impossible(what: Point | Pair) -> None:
        return None

    with pytest.raises(ConfigurationError, match="user_id"):
        caller(pathless, "/users/{user_id}")
    with pytest.raises(ConfigurationError, match="Point"):
        caller(impossible)


async def test_what_reads_the_request_itself_leaves_the_body_alone() -> None:
    async def upload(request: web.Request) -> None:
        return None

    assert not caller(upload).binder.reads_body


# -- calling -----------------------------------------------------------------------------------------------------------

setting = contextvars.ContextVar("setting", default="unset")


async def test_synchronous_functions_run_in_a_thread_with_their_context() -> None:
    def where() -> tuple[int, str]:
        return threading.get_ident(), setting.get()

    setting.set("set")
    thread, value = await call(where)
    assert thread != threading.get_ident()
    assert value == "set"


@pytest.mark.parametrize(
    ("value", "json"),
    [
        ("text", b'"text"'),
        (None, b"null"),
        ({"a": [1, 2.5, True]}, b'{"a":[1,2.5,true]}'),
        (Point(1), b'{"x":1,"y":0}'),
        (Pair("l", "r"), b'{"left":"l","right":"r"}'),
        ([Order(item="tea")], b'[{"item":"tea","amount":1}]'),
        ({3}, b"[3]"),
    ],
)
def test_results_as_json(value: object, json: bytes) -> None:
    assert encode(value) == json


# -- over HTTP ---------------------------------------------------------------------------------------------------------


def application(host: FakeHost, **options: Any) -> web.Application:
    app = web.Application(**options)
    for endpoint in host.endpoints:
        made = EndpointCaller(endpoint)

        async def answer(request: web.Request, made: EndpointCaller = made) -> web.StreamResponse:
            return await respond(made, request, host)

        routes = [web.route(method, endpoint.path, answer) for method in endpoint.methods]
        app.add_routes(guarded(routes, host.sources))
    return app


async def asked(
    function: Callable[..., Any],
    method: str = "POST",
    path: str = "/",
    url: str = "/",
    host: FakeHost | None = None,
    **request: Any,
) -> tuple[ClientResponse, bytes]:
    host = host or FakeHost()
    host.endpoints = [Endpoint(path, (method,), function)]
    app = application(host, client_max_size=1000)
    async with (
        TestClient(TestServer(app)) as client,
        client.request(method, url, **request) as response,
    ):
        return response, await response.read()


def code_of(body: bytes) -> object:
    return msgspec.json.decode(body)["error"]["code"]


async def test_json_in_json_out() -> None:
    async def add(a: int, b: int) -> dict[str, int]:
        return {"sum": a + b}

    response, body = await asked(add, json={"a": 1, "b": 2})
    assert (response.status, response.content_type, body) == (200, "application/json", b'{"sum":3}')


async def test_get_with_path_and_query() -> None:
    def show(user: str, page: int = 1) -> list[Any]:
        return [user, page]

    response, body = await asked(show, "GET", "/users/{user}", "/users/kim?page=2")
    assert (response.status, body) == (200, b'["kim",2]')


async def test_the_requests_faults_are_named() -> None:
    async def add(a: int, b: int = 0) -> int:
        return a + b

    cases: list[tuple[tuple[int, str], dict[str, Any]]] = [
        ((400, "invalid_request"), {"json": {"a": "x"}}),
        ((400, "invalid_request"), {"data": b"{", "headers": {"Content-Type": "application/json"}}),
        ((413, "body_too_large"), {"json": {"a": "x" * 2000}}),
        ((415, "unsupported_media_type"), {"data": b"a=1", "headers": {"Content-Type": "text/plain"}}),
        ((401, "unauthenticated"), {"json": {"a": 1}, "headers": {"x-user": "nobody"}}),
    ]
    for expected, request in cases:
        response, body = await asked(add, **request)
        assert (response.status, code_of(body)) == expected
    response, body = await asked(add, json={"a": 1}, host=FakeHost(state="draining"))
    assert (response.status, response.headers["Retry-After"]) == (503, "2")


async def test_the_functions_own_refusals_go_out_as_they_are() -> None:
    async def busy() -> None:
        raise SessionBusy("wait")

    async def gone() -> None:
        raise web.HTTPGone

    response, body = await asked(busy)
    assert (response.status, code_of(body), response.headers["Retry-After"]) == (409, "session_busy", "1")
    response, body = await asked(gone)
    assert response.status == 410


async def test_a_function_written_for_fastapi_gets_the_request() -> None:
    async def written_for_fastapi(it: starlette.requests.Request) -> Any:
        return [it.method, it.headers["x-colour"], await it.json()]

    _, body = await asked(written_for_fastapi, json={"a": 1}, headers={"x-colour": "red"})
    assert body == b'["POST","red",{"a":1}]'


async def test_a_response_of_aiohttp_goes_out_as_it_is() -> None:
    async def made(request: web.Request) -> web.Response:
        return web.Response(text=await request.text(), status=202)

    response, body = await asked(made, data=b"raw", headers={"Content-Type": "text/plain"})
    assert (response.status, body) == (202, b"raw")


async def test_an_exception_is_logged_under_its_id_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ValueError("the password is swordfish")

    response, body = await asked(fail)
    assert (response.status, code_of(body)) == (500, "ValueError")
    assert b"err_id" in body
    assert b"swordfish" not in body
    assert "err_id" in caplog.text
    assert "swordfish" in caplog.text
    _, body = await asked(fail, host=FakeHost(debug=True))
    assert b"swordfish" in body


async def test_what_json_cannot_say_is_the_endpoints_fault(caplog: pytest.LogCaptureFixture) -> None:
    async def thing() -> object:
        return object()

    response, body = await asked(thing)
    assert (response.status, code_of(body)) == (500, "handler_error")
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def asynchronous(n: int = 2) -> AsyncIterator[Any]:
    for i in range(n):
        yield {"i": i}
    yield "text"


def synchronous(n: int = 2) -> Iterator[Any]:
    for i in range(n):
        yield {"i": i}
    yield "text"


async def returned(n: int = 2) -> AsyncIterator[Any]:
    return asynchronous(n)


@pytest.mark.parametrize("function", [asynchronous, synchronous, returned])
async def test_generators_are_event_streams(function: Callable[..., Any]) -> None:
    response, body = await asked(function, json={"n": 1})
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert body == b'data: {"i":0}\n\ndata: "text"\n\n'


async def test_a_stream_that_fails_says_so_and_ends() -> None:
    async def half() -> AsyncIterator[str]:
        yield "first"
        raise ValueError("the password is swordfish")

    response, body = await asked(half)
    first, last, rest = body.split(b"\n\n")
    assert (response.status, first, rest) == (200, b'data: "first"', b"")
    assert msgspec.json.decode(last.removeprefix(b"data: "))["error"]["id"] == "err_id"
    assert b"swordfish" not in body


async def test_arguments_of_generators_are_checked_before_the_stream_begins() -> None:
    response, body = await asked(asynchronous, json={"n": "many"})
    assert (response.status, code_of(body)) == (400, "invalid_request")


async def test_a_client_that_leaves_closes_the_generator() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[str]:
        try:
            while True:
                yield "x" * 1000
        finally:
            closed.set()

    host = FakeHost([Endpoint("/", ("GET",), endless)])
    async with TestClient(TestServer(application(host))) as client:
        async with client.get("/") as response:
            assert await response.content.readline() == b'data: "' + b"x" * 1000 + b'"\n'
            response.close()
        async with asyncio.timeout(5):
            await closed.wait()
