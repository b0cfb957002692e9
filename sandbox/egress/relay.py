"""Bytes from one side to the other, until both have said all, or nothing comes any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

from greenroom.sandbox.egress.bodies import Answer, Body, no_answer
from greenroom.sandbox.egress.dial import CHUNK, Streams
from greenroom.sandbox.egress.refusal import Refusal

NOTICE_SECONDS: Final = 1.0
"""How exact an idle connection's end is: a timer is not set anew for every piece."""
TURN_BYTES: Final = 4096
"""Of bodies in chunks, that are read at a time: chunks of one byte are a thousand times the work of large ones."""
LINGER_SECONDS: Final = 60.0
"""How long a server may be silent whose box has said all: it may have gone, which only a write would show."""


class Idle:
    """Ends what goes through it when nothing has gone through for so long. Entered as a context."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._scope = anyio.CancelScope(deadline=anyio.current_time() + seconds)

    def __enter__(self) -> Idle:
        self._scope.__enter__()
        return self

    def __exit__(self, *error: object) -> bool:
        return bool(self._scope.__exit__(*error))  # type: ignore[arg-type]

    @property
    def over(self) -> bool:
        """Whether it has ended what went through."""
        return self._scope.cancelled_caught

    def touch(self) -> None:
        """Something went through."""
        deadline = anyio.current_time() + self._seconds
        if deadline - self._scope.deadline > min(NOTICE_SECONDS, self._seconds / 10):
            self._scope.deadline = deadline

    def hurry(self, seconds: float) -> None:
        """Wait no longer than so long from now on."""
        self._seconds = min(self._seconds, seconds)
        self._scope.deadline = min(self._scope.deadline, anyio.current_time() + self._seconds)


async def send(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write, and wait until the system has it all: nothing piles up here for a slow reader."""
    writer.write(data)
    await writer.drain()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, touch: Callable[[], None]) -> None:
    """Copy until the end, and pass the end on. Raises `OSError` when either side breaks."""
    while data := await reader.read(CHUNK):
        touch()
        await send(writer, data)
        touch()
    if writer.can_write_eof() and not writer.is_closing():
        writer.write_eof()


async def relay_tunnel(box: Streams, server: Streams, idle_seconds: float) -> None:
    """Copy both ways, each until its own end. Raises `OSError` when either side breaks."""
    with Idle(idle_seconds) as idle:
        await _together(
            lambda _: pump(box[0], server[1], idle.touch), lambda _: pump(server[0], box[1], idle.touch)
        )


async def relay_exchange(
    box: Streams, server: Streams, body: Body, early: bytes, idle_seconds: float, turn: anyio.Lock
) -> None:
    """Send one request's body, of which `early` has come already, and pass the one answer on. `turn`: held by the one
    of a box's exchanges that reads chunks.

    Raises `OSError` when either side breaks, `Refusal` for a bad body or answer before any of the answer was sent on.
    """
    answer = Answer()
    with Idle(idle_seconds) as idle:
        try:
            await _together(
                lambda _: _send_body(box[0], server[1], body, early, idle, turn),
                lambda group: _pass_answer(server[0], box[1], answer, idle, group),
            )
        except Refusal as refusal:
            if answer.begun:
                raise ConnectionAbortedError(refusal.reason) from refusal
            raise
    if idle.over and not answer.begun:
        raise no_answer(f"the server said nothing for {idle_seconds:g} seconds")


async def _together(*parts: Callable[[TaskGroup], Coroutine[Any, Any, None]]) -> None:
    """Run them at once; the first that fails ends the others, and its exception is raised as it is."""
    try:
        async with anyio.create_task_group() as group:
            for part in parts:
                group.start_soon(part, group)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


async def understood(body: Body, data: bytes, turn: anyio.Lock) -> bytes:
    """What of the data is sent on. Between two pieces of one box's chunks, others get to do something."""
    if not body.chunked:
        return body.feed(data)
    out = bytearray()
    for start in range(0, len(data), TURN_BYTES):
        async with turn:
            out += body.feed(data[start : start + TURN_BYTES])
    return bytes(out)


async def _send_body(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    body: Body,
    data: bytes,
    idle: Idle,
    turn: anyio.Lock,
) -> None:
    try:
        while True:
            await send(writer, await understood(body, data, turn))
            idle.touch()
            if body.done:
                break
            data = await reader.read(CHUNK)
            if not data:
                writer.transport.abort()  # half a request: the server must not take it for a whole one
                return
    except OSError:
        return  # a server may answer without having read all; what it says, or that it is gone, is for the answer
    while await reader.read(CHUNK):
        pass  # what follows a request goes nowhere
    idle.hurry(LINGER_SECONDS)


async def _pass_answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer, idle: Idle, group: TaskGroup
) -> None:
    while data := await reader.read(CHUNK):
        idle.touch()
        await send(writer, answer.feed(data))
        idle.touch()
    if not answer.begun:
        raise no_answer("the server ended the connection without an answer")
    group.cancel_scope.cancel()
