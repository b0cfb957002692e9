"""The terminal chat: what it shows of a turn, and how it holds on to one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from greenroom import AgentApp, AiohttpServer
from greenroom.actors.messages import AgentRequest, Text
from greenroom.chat import Chat, ChatFailed, Line, process_url
from greenroom.chat_view import ChatView, Piece, clean, shortened

# -- what is shown -----------------------------------------------------------------------------------------------------


def response(status: str, **more: Any) -> dict[str, Any]:
    return {"object": "response", "status": status, "id": "response_1", **more}


def message(status: str, kind: str = "message", item: str = "m") -> dict[str, Any]:
    return {"object": "message", "status": status, "type": kind, "id": item}


def text(words: str, delta: bool | None = True, item: str = "m") -> dict[str, Any]:
    status = "in_progress" if delta else "completed"
    return {
        "object": "content",
        "type": "text",
        "status": status,
        "delta": delta,
        "msg_id": item,
        "index": 0,
        "text": words,
    }


def data(status: str, item: str, **fields: Any) -> dict[str, Any]:
    return {"object": "content", "type": "data", "status": status, "msg_id": item, "index": 0, "data": fields}


def spoken(*words: str, item: str = "m", kind: str = "message") -> list[dict[str, Any]]:
    return [
        message("in_progress", kind, item),
        *(text(word, item=item) for word in words),
        text("".join(words), None, item),
        message("completed", kind, item),
    ]


def shown(*wire: dict[str, Any]) -> list[Piece]:
    """What a view shows, with neighbours of one style joined."""
    view = ChatView()
    pieces: list[Piece] = []
    for each in wire:
        for piece in view.take(each):
            if pieces and pieces[-1].style == piece.style:
                pieces[-1] = Piece(piece.style, pieces[-1].text + piece.text)
            else:
                pieces.append(piece)
    return pieces


def test_an_answer_is_shown_as_it_comes() -> None:
    view = ChatView()
    assert view.take(response("created")) == []
    assert view.take(message("in_progress")) == []
    assert view.take(text("Hello")) == [Piece("answer", "Hello")]
    assert view.take(text(" you")) == [Piece("answer", " you")]
    assert view.take(text("Hello you", None)) == []
    assert view.take(message("completed")) == [Piece("answer", "\n")]
    assert (view.ending, view.turn_id) == (None, "response_1")
    assert view.take(response("completed")) == []
    assert view.ending == "completed"


def test_reasoning_tools_and_the_answer_are_told_apart() -> None:
    output = msgspec.json.encode(
        [{"type": "text", "text": "Paris"}, {"type": "image", "source": {}}]
    ).decode()
    assert shown(
        *spoken("hm", item="r", kind="reasoning"),
        message("in_progress", "plugin_call", "c"),
        data("in_progress", "c", name="look_up", arguments='{"ci'),
        data("completed", "c", name="look_up", arguments='{"city":"?"}'),
        message("completed", "plugin_call", "c"),
        message("in_progress", "plugin_call_output", "o"),
        data("completed", "o", name="look_up", output=output),
        message("completed", "plugin_call_output", "o"),
        *spoken("It is ", "Paris."),
        response("completed"),
    ) == [
        Piece("reasoning", "hm\n"),
        Piece("tool", '→ look_up({"city":"?"})\n← look_up: Paris\n[image]\n'),
        Piece("answer", "It is Paris.\n"),
    ]


def test_a_block_that_is_open_ends_before_another_begins() -> None:
    pieces = shown(
        message("in_progress", "reasoning", "r"),
        message("in_progress", "message", "m"),
        text("thinking", item="r"),
        text("speaking", item="m"),
        response("canceled"),
    )
    assert pieces == [
        Piece("reasoning", "thinking\n"),
        Piece("answer", "speaking\n"),
        Piece("note", "(stopped)\n"),
    ]


def test_text_without_deltas_and_reworded_text_are_shown_whole() -> None:
    assert shown(message("in_progress"), text("all", None), message("completed")) == [
        Piece("answer", "all\n")
    ]
    assert shown(message("in_progress"), text("Hello wor"), text("Goodbye", None), message("completed")) == [
        Piece("answer", "Hello wor\n"),
        Piece("note", "(reworded)\n"),
        Piece("answer", "Goodbye\n"),
    ]


def test_failures_are_words() -> None:
    failed = response("failed", error={"code": "ValueError", "message": "the agent failed", "id": "err_1"})
    assert shown(message("in_progress"), text("Hel"), failed) == [
        Piece("answer", "Hel\n"),
        Piece("error", "failed: the agent failed [ValueError]\n"),
    ]
    assert shown({"error": "1 validation error"}) == [Piece("error", "failed: 1 validation error\n")]


def test_other_parts_are_named() -> None:
    part = {"object": "content", "status": "completed", "msg_id": "m", "index": 0}
    assert shown(
        {**part, "type": "image", "image_url": "data:image/png;base64,AAAA"},
        {**part, "type": "file", "filename": "a.pdf"},
        {**part, "type": "data", "data": {"a": 1}},
        {**part, "type": "refusal", "refusal": "No."},
        {"object": "new", "status": "completed"},
    ) == [
        Piece("note", '[image: data:image/png;base64]\n[file: a.pdf]\n[data: {"a":1}]\n'),
        Piece("answer", "No."),
    ]


def test_a_model_does_not_steer_the_terminal() -> None:
    assert clean("\x1b]0;title\x07a\tb\r\nc\x9b2J") == "]0;titlea\tb\nc2J"
    assert shown(message("in_progress"), text("\x1b[2Jhi"), text("\x1b[2Jhi", None)) == [
        Piece("answer", "[2Jhi")
    ]


def test_long_text_is_shortened() -> None:
    assert shortened(" short ", 10) == "short"
    assert shortened("x" * 30, 10) == "x" * 10 + " … (20 more characters)"
    assert shortened("one\ntwo\nthree", 100, lines=2) == "one\ntwo … (6 more characters)"


# -- the line ----------------------------------------------------------------------------------------------------------

ANSWER = [response("created"), *spoken("Hel", "lo"), response("completed")]


class FakeServer:
    """Speaks the wire of `/process`. `drops`: after how many objects each connection breaks off."""

    def __init__(self, *drops: int, answer: list[dict[str, Any]] | None = None) -> None:
        self._drops = list(drops)
        self._answer = [{**wire, "sequence_number": n} for n, wire in enumerate(answer or ANSWER)]
        self.bodies: list[dict[str, Any]] = []
        self.rejoined: list[str | None] = []

    def application(self) -> web.Application:
        application = web.Application()
        application.add_routes(
            [web.post("/process", self.process), web.get("/process/{id}/events", self.events)]
        )
        return application

    async def process(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        return await self._stream(request, 0)

    async def events(self, request: web.Request) -> web.StreamResponse:
        assert request.match_info["id"] == self.bodies[-1]["id"]
        self.rejoined.append(request.headers.get("Last-Event-ID"))
        return await self._stream(request, int(self.rejoined[-1] or -1) + 1)

    async def _stream(self, request: web.Request, start: int) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        count = self._drops.pop(0) if self._drops else len(self._answer)
        for wire in self._answer[start : start + count]:
            await stream.write(b"data: " + msgspec.json.encode(wire) + b"\n\n")
        if count < len(self._answer):
            assert request.transport is not None
            request.transport.abort()
        await stream.write(b"data: [DONE]\n\n")
        return stream


@asynccontextmanager
async def chat_with(application: web.Application) -> AsyncIterator[tuple[Chat, list[Piece]]]:
    pieces: list[Piece] = []
    ids = iter(range(100))
    async with TestServer(application) as server, aiohttp.ClientSession() as client:
        line = Line(client, str(server.make_url("/process")), rejoin_seconds=(0, 0))
        yield Chat(line, pieces.append, user_id="me", new_id=lambda: str(next(ids))), pieces


def words(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


async def test_a_turn_is_posted_and_shown() -> None:
    server = FakeServer()
    async with chat_with(server.application()) as (chat, pieces):
        assert await chat.say("Hi")
        assert words(pieces) == "Hello\n"
        assert await chat.say("Again")
        chat.begin_anew()
        assert await chat.say("Anew")
    assert server.bodies[0] == {
        "id": "response_1",
        "session_id": "0",
        "user_id": "me",
        "input": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    }
    assert [body["session_id"] for body in server.bodies] == ["0", "0", "3"]


@pytest.mark.parametrize("drops", [(3,), (1, 1, 1, 1, 1), (4, 2)])
async def test_a_stream_that_breaks_off_is_rejoined_where_it_was(drops: tuple[int, ...]) -> None:
    server = FakeServer(*drops)
    async with chat_with(server.application()) as (chat, pieces):
        assert await chat.say("Hi")
    assert words(pieces) == "Hello\n"
    assert len(server.rejoined) == len(drops)


async def test_a_stream_that_cannot_be_had_again_is_given_up() -> None:
    server = FakeServer(2, 0, 0, 0)
    async with chat_with(server.application()) as (chat, pieces):
        assert not await chat.say("Hi")
    assert "was lost" in words(pieces)


async def test_what_was_shown_is_not_shown_again() -> None:
    server = FakeServer(answer=[*ANSWER[:3], *ANSWER[3:]])

    async def from_the_start(request: web.Request) -> web.StreamResponse:
        return await server._stream(request, 0)

    application = web.Application()
    application.add_routes(
        [web.post("/process", server.process), web.get("/process/{id}/events", from_the_start)]
    )
    server._drops = [3]
    async with chat_with(application) as (chat, pieces):
        assert await chat.say("Hi")
    assert words(pieces) == "Hello\n"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (
            lambda: web.json_response(
                {"error": {"code": "mailbox_full", "message": "too many wait"}},
                status=429,
                headers={"Retry-After": "1"},
            ),
            "the server refused (429): too many wait [mailbox_full]; try again in 1 s",
        ),
        (lambda: web.Response(status=502, text="bad gateway"), "the server refused (502): bad gateway"),
        (lambda: web.Response(text="<html>", content_type="text/html"), "is this its /process?"),
        (
            lambda: web.Response(text="data: {]\n\n", content_type="text/event-stream"),
            "an event that is not JSON: {]",
        ),
    ],
)
async def test_refusals_are_words(reply: Callable[[], web.Response], expected: str) -> None:
    async def refuse(request: web.Request) -> web.Response:
        return reply()

    application = web.Application()
    application.add_routes([web.post("/process", refuse)])
    async with chat_with(application) as (chat, pieces):
        assert not await chat.say("Hi")
    assert expected in words(pieces)
    assert {piece.style for piece in pieces} == {"error"}


async def test_nobody_there_is_said(unused_tcp_port: int) -> None:
    pieces: list[Piece] = []
    async with aiohttp.ClientSession() as client:
        chat = Chat(Line(client, f"http://127.0.0.1:{unused_tcp_port}/process"), pieces.append)
        assert not await chat.say("Hi")
    assert "nobody answers" in words(pieces)
    assert "greenroom serve" in words(pieces)


@pytest.mark.parametrize(
    ("given", "posted_to"),
    [
        ("http://127.0.0.1:8090", "http://127.0.0.1:8090/process"),
        ("localhost:8090/", "http://localhost:8090/process"),
        ("https://x.example/agent/process", "https://x.example/agent/process"),
    ],
)
def test_where_turns_are_posted(given: str, posted_to: str) -> None:
    assert process_url(given) == posted_to


@pytest.mark.parametrize("given", ["ftp://x", "http://", ""])
def test_wrong_urls_are_refused(given: str) -> None:
    with pytest.raises(ChatFailed, match="no URL"):
        process_url(given)


# -- with a real application -------------------------------------------------------------------------------------------


def counting_app(server: AiohttpServer, waiting: asyncio.Event) -> AgentApp:
    app = AgentApp("Counter", transports=[server])
    turns: dict[str, int] = {}

    @app.query(framework="text")
    async def answer(request: AgentRequest) -> AsyncIterator[str]:
        part = request.input[0].content[0]
        assert request.session_id is not None
        assert isinstance(part, Text)
        turns[request.session_id] = turns.get(request.session_id, 0) + 1
        yield f"{turns[request.session_id]}: {part.text}"
        if part.text == "wait":
            waiting.set()
            await asyncio.Event().wait()

    return app


async def test_a_conversation_with_a_real_application() -> None:
    server, waiting, pieces = AiohttpServer(port=0), asyncio.Event(), list[Piece]()
    async with counting_app(server, waiting), aiohttp.ClientSession() as client:
        chat = Chat(Line(client, f"http://127.0.0.1:{server.port}/process"), pieces.append)
        assert await chat.say("one")
        assert await chat.say("two")
        assert words(pieces) == "1: one\n2: two\n"

        pieces.clear()
        turn = asyncio.create_task(chat.say("wait"))
        await waiting.wait()
        turn.cancel()  # as Ctrl-C does
        assert not await turn
        assert words(pieces) == "3: wait\n(stopped)\n"
        assert await chat.say("four")
