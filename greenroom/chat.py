"""`greenroom chat URL`: a conversation in the terminal with an application that is served somewhere."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final, TypeAlias
from urllib.parse import quote, urlsplit, urlunsplit

import aiohttp
import click
import msgspec

from greenroom.actors.errors import GreenroomError
from greenroom.actors.ids import uuid4_text
from greenroom.chat_view import ChatView, Piece, Style, clean
from greenroom.transports.sse import SSEParser

REJOIN_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
"""How long to wait before each attempt to rejoin a stream that was dropped."""

CONNECT_SECONDS: Final = 10.0
STOP_SECONDS: Final = 10.0
"""How long a turn that was told to stop may take to say so."""

_LOOKS: Final[dict[Style, dict[str, Any]]] = {
    "answer": {},
    "reasoning": {"dim": True},
    "tool": {"fg": "cyan"},
    "note": {"dim": True},
    "error": {"fg": "red"},
}

Show: TypeAlias = Callable[[Piece], None]

logger = logging.getLogger("greenroom.chat")


class ChatFailed(GreenroomError):
    """The server cannot be reached, refused the turn, or was lost while it answered."""


class Line:
    """The connection to one server: posts turns, follows their streams, rejoins those that are dropped.

    `url` is where turns are posted. `rejoin_seconds`: the pauses before each attempt to rejoin.
    """

    def __init__(
        self, client: aiohttp.ClientSession, url: str, rejoin_seconds: Sequence[float] = REJOIN_SECONDS
    ) -> None:
        self._client = client
        self.url = url
        self._rejoin_seconds = rejoin_seconds

    def __repr__(self) -> str:
        return f"<Line to {self.url}>"

    async def turn(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """The objects of a turn, to its ending. Raises `ChatFailed`.

        A stream that breaks off is rejoined at the object after the last one that came.
        """
        last = -1
        attempts = iter(self._rejoin_seconds)
        request = self._client.post(self.url, json=body)
        while True:
            async with aclosing(self._until_broken(request, first=last < 0)) as objects:
                async for wire in objects:
                    number = wire.get("sequence_number", last + 1)
                    if number > last:
                        last = number
                        attempts = iter(self._rejoin_seconds)
                        yield wire
                    if _is_ending(wire):
                        return
            await self._pause(attempts)
            headers = {"Last-Event-ID": str(last)} if last >= 0 else {}
            request = self._client.get(self._of(body["id"], "events"), headers=headers)

    async def stop(self, turn_id: str) -> None:
        """Cancel a turn. One that is over, or unknown, is left alone."""
        async with self._client.post(self._of(turn_id, "cancel")):
            pass

    def _of(self, turn_id: str, what: str) -> str:
        return f"{self.url}/{quote(turn_id, safe='')}/{what}"

    async def _pause(self, attempts: Iterator[float]) -> None:
        seconds = next(attempts, None)
        if seconds is None:
            raise ChatFailed(
                f"the connection to {self.url} was lost and could not be had again; the turn may run on"
            )
        await asyncio.sleep(seconds)

    async def _until_broken(self, request: Any, first: bool) -> AsyncGenerator[dict[str, Any]]:
        """The objects of one connection. `first`: nothing has come yet, so that a server that is not there is none."""
        try:
            async with aclosing(self._objects(request)) as objects:
                async for wire in objects:
                    yield wire
        except aiohttp.ClientConnectorError as error:
            if first:
                raise ChatFailed(_nobody(self.url, error)) from error
            logger.debug("no connection to %s: %s", self.url, error)
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            logger.debug("the stream of %s broke off: %s", self.url, error)

    async def _objects(self, request: Any) -> AsyncGenerator[dict[str, Any]]:
        async with request as response:
            if response.status != 200:
                raise _refusal(response.status, await response.read(), response.headers.get("Retry-After"))
            if response.content_type != "text/event-stream":
                raise ChatFailed(
                    f"{self.url} answered with {response.content_type}, not with an event stream; is this its /process?"
                )
            parser = SSEParser()
            async for chunk in response.content.iter_any():
                for event in parser.feed(chunk):
                    if event.data != "[DONE]" and isinstance(wire := _decode(event.data), dict):
                        yield wire


class Chat:
    """A conversation: one session, turn after turn. `show` gets what is to be seen."""

    def __init__(
        self,
        line: Line,
        show: Show,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        new_id: Callable[[], str] = uuid4_text,
    ) -> None:
        self._line = line
        self._show = show
        self._new_id = new_id
        self.user_id = user_id
        self.session_id = session_id or new_id()

    def __repr__(self) -> str:
        return f"<Chat of session {self.session_id!r}>"

    def begin_anew(self) -> None:
        """Leave the session for a new one."""
        self.session_id = self._new_id()

    async def say(self, text: str) -> bool:
        """One turn, shown as it comes; whether it completed. Being cancelled (Ctrl-C) stops the turn and returns."""
        turn_id = f"response_{self._new_id()}"
        answering = asyncio.ensure_future(self._answer(turn_id, text))
        try:
            await asyncio.wait({answering})
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            await self._stop(turn_id, answering)
        if answering.cancelled():
            self._show(Piece("note", "(left; the turn may run on)\n"))
            return False
        return answering.result()

    async def _answer(self, turn_id: str, text: str) -> bool:
        body: dict[str, Any] = {
            "id": turn_id,
            "session_id": self.session_id,
            "input": [{"role": "user", "content": [{"type": "text", "text": text}]}],
        }
        if self.user_id is not None:
            body["user_id"] = self.user_id
        view = ChatView()
        try:
            async for wire in self._line.turn(body):
                self._show_all(view.take(wire))
        except ChatFailed as error:
            self._show_all([*view.close(), Piece("error", f"{clean(error.message)}\n")])
            return False
        except asyncio.CancelledError:
            self._show_all(view.close())
            raise
        return view.ending == "completed"

    async def _stop(self, turn_id: str, answering: asyncio.Future[bool]) -> None:
        """Ask the server to end the turn, and see it end. A server that does neither is left."""
        with suppress(aiohttp.ClientError, ConnectionError, TimeoutError):
            await self._line.stop(turn_id)
        await asyncio.wait({answering}, timeout=STOP_SECONDS)
        answering.cancel()
        await asyncio.wait({answering})

    def _show_all(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            self._show(piece)


# -- the wire ----------------------------------------------------------------------------------------------------------


def process_url(url: str) -> str:
    """Where turns are posted: what was given, `/process` of it when it names no path. Raises `ChatFailed`."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ChatFailed(f"{url!r} is no URL of a server; write it like http://127.0.0.1:8090")
    path = parts.path.rstrip("/") or "/process"
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def _decode(data: str) -> Any:
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise ChatFailed(f"the server sent an event that is not JSON: {clean(data[:100])}") from error


def _is_ending(wire: dict[str, Any]) -> bool:
    if wire.get("object") == "response":
        return wire.get("status") in ("completed", "failed", "canceled", "rejected", "incomplete")
    return "object" not in wire and bool(
        wire.get("error")
    )  # all that the predecessor says of a wrong request


def _nobody(url: str, error: aiohttp.ClientConnectorError) -> str:
    reason = error.os_error.strerror or str(error.os_error)
    return f"nobody answers at {url} ({reason}); is it served? `greenroom serve app.py` does it"


def _refusal(status: int, body: bytes, retry_after: str | None) -> ChatFailed:
    try:
        error = msgspec.json.decode(body)["error"]
        words = f"{error['message']} [{error['code']}]"
    except (msgspec.DecodeError, KeyError, TypeError):
        words = body[:200].decode("utf-8", "replace").strip() or "no reason given"
    later = f"; try again in {retry_after} s" if retry_after else ""
    return ChatFailed(f"the server refused ({status}): {words}{later}")


# -- the terminal ------------------------------------------------------------------------------------------------------


def show_on_terminal(piece: Piece) -> None:
    """The answer goes to standard output, everything else to standard error; colours only on a terminal."""
    look = _LOOKS[piece.style]
    text = click.style(piece.text, **look) if look else piece.text
    click.echo(text, nl=False, err=piece.style != "answer")


def run_chat(
    url: str,
    *,
    session_id: str | None = None,
    user_id: str | None = None,
    once: str | None = None,
    headers: Sequence[str] = (),
    show: Show = show_on_terminal,
) -> bool:
    """Chat until the input ends; whether all turns completed. Raises `ChatFailed` for a wrong URL or header."""
    where = process_url(url)
    pairs = _header_pairs(headers)
    with asyncio.Runner() as runner:
        client = runner.run(_open(pairs))
        try:
            chat = Chat(Line(client, where), show, session_id=session_id, user_id=user_id)
            if once is not None:
                return runner.run(chat.say(once))
            if sys.stdin.isatty():
                return _converse(runner, chat, show, where)
            completed = [runner.run(chat.say(line.strip())) for line in sys.stdin if line.strip()]
            return all(completed)
        finally:
            runner.run(client.close())


async def _open(headers: list[tuple[str, str]]) -> aiohttp.ClientSession:
    # The loop stands still while the user types: a connection kept open would be found closed when it is used again.
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        headers=headers,
    )


def _header_pairs(headers: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            raise ChatFailed(f"{header!r} is no header; write it like 'Authorization: Bearer …'")
        pairs.append((name.strip(), value.strip()))
    return pairs


def _converse(runner: asyncio.Runner, chat: Chat, show: Show, where: str) -> bool:
    if importlib.util.find_spec("readline"):
        importlib.import_module("readline")  # line editing and history for `input`
    show(
        Piece(
            "note", f"{where}, session {chat.session_id}\n/new begins a new session, /quit or Ctrl-D leaves\n"
        )
    )
    for text in _typed(show):
        if text == "/quit":
            break
        if text == "/new":
            chat.begin_anew()
            show(Piece("note", f"session {chat.session_id}\n"))
        elif text.startswith("/"):
            show(Piece("note", f"{text.split()[0]} is no command; there are /new and /quit\n"))
        else:
            runner.run(chat.say(text))
    return True


def _typed(show: Show) -> Iterator[str]:
    """What the user types, line by line. Ctrl-C begins the line anew, Ctrl-D ends."""
    while True:
        try:
            text = input("> ").strip()
        except EOFError:
            show(Piece("note", "\n"))
            return
        except KeyboardInterrupt:
            show(Piece("note", "\n(Ctrl-D or /quit leaves)\n"))
            continue
        if text:
            yield text
