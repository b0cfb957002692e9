"""Calls of a sandbox object: carried out one after another, in the order in which they were made, for code of any kind.

The work is done on one event loop, the object's *home*. Code in a thread without a running loop waits for its result.
Code where a loop runs gets a `PendingCall` at once, which is under way already: it may be awaited, be read as a stream
of chunks by an agent framework, or be left alone; it is carried out all the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Final, Generic, NoReturn, TypeAlias, TypeVar, cast

from greenroom.actors.errors import ConfigurationError, GreenroomError, LeaseOver, SandboxBusy
from greenroom.sandbox.agentscope_chunks import chunk_of, chunk_of_error
from greenroom.sandbox.result import ToolResult

logger = logging.getLogger("greenroom.sandbox")

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

MOST_WAITING: Final = 1000
"""Calls of one object that may wait: code that never awaits can make them faster than a browser works them off."""

Work: TypeAlias = Callable[[], Awaitable[T]]


def never_blocks(function: F) -> F:
    """Mark a function that looks synchronous and gives back at once what is to be awaited, when a loop runs where it is
    called: framework adapters call it on the loop and not in a thread."""
    function.never_blocks = True  # type: ignore[attr-defined]
    return function


class OneChunk(AsyncGenerator[Any, None]):
    """A stream of one chunk, in the form of the agent framework that reads it: what tools give there."""

    _read = False

    async def _chunk(self) -> Any:
        raise NotImplementedError

    async def asend(self, value: None) -> Any:
        """The chunk; the second time the end."""
        del value
        if self._read:
            raise StopAsyncIteration
        self._read = True
        return await self._chunk()

    async def athrow(
        self, typ: Any, val: BaseException | object = None, tb: TracebackType | None = None, /
    ) -> NoReturn:
        """End the stream with an exception."""
        self._read = True
        error = typ if isinstance(typ, BaseException) else val if isinstance(val, BaseException) else typ()
        raise error.with_traceback(tb)


class ToolAnswer(ToolResult, OneChunk):
    """What a tool answered. It may be awaited, which gives it, so that code with `await` runs whether it had to wait
    for the call or not; and agent frameworks may read it as a stream of chunks."""

    def __await__(self) -> Generator[Any, None, ToolResult]:
        return self
        yield

    async def _chunk(self) -> Any:
        return chunk_of(self)


class PendingCall(OneChunk, Generic[T]):
    """A call under way. Await it for what it gives; that raises what went wrong with the sandbox (`SandboxError`).
    Who is cancelled while awaiting it cancels the call.

    Its failure is logged when nobody has awaited it.
    """

    def __init__(self, call: _Call[T], future: asyncio.Task[None] | Future[None]) -> None:
        self._call = call
        self._future = future

    def __repr__(self) -> str:
        state = "done" if self._future.done() else "under way"
        return f"<{self._call.name}(…), {state}: await it for its result>"

    def __await__(self) -> Generator[Any, None, T]:
        return self._wait().__await__()

    def __getitem__(self, key: object) -> NoReturn:
        raise TypeError(f"the result of {self._call.name}() is not here yet: await the call first")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(f"the result of {self._call.name}() is not here yet: await the call first")

    def __del__(self) -> None:
        call = self.__dict__.get("_call")
        if call is not None and not call.heard:
            call.desert()

    async def _wait(self) -> T:
        call, future = self._call, self._future
        call.heard = True
        if isinstance(future, Future):
            await asyncio.wrap_future(future)
        else:
            await future
        try:
            return call.result()
        finally:
            del self, call, future  # an error's traceback holds this frame, and they hold the error

    async def _chunk(self) -> Any:
        try:
            return chunk_of(cast("ToolResult", await self._wait()))
        except GreenroomError as error:
            return chunk_of_error(error)


class _Call(Generic[T]):
    """One call, shared by who made it and who carries it out."""

    __slots__ = ("_deserted", "_error", "_value", "heard", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.heard = False
        """Whether anybody has asked how it went."""
        self._deserted = False
        self._value: T | None = None
        self._error: Exception | None = None

    async def carry_out(self, work: Work[T]) -> None:
        try:
            self._value = await work()
        except Exception as error:  # noqa: BLE001 - who awaits the call gets it
            trace = error.__traceback__
            # Without this frame, which holds the call: the two would wait for the garbage collector.
            self._error = error.with_traceback(trace.tb_next if trace is not None else None)
        if self._deserted:
            self._lament()

    def result(self) -> T:
        error = self._error
        if error is None:
            return cast("T", self._value)
        try:
            raise error
        finally:
            del self, error  # its traceback holds this frame

    def desert(self) -> None:
        """Nobody will ask any more."""
        self._deserted = True
        self._lament()

    def _lament(self) -> None:
        """Log a failure that nobody has heard of."""
        if self._error is not None:
            logger.error("%s() failed, and nobody awaited it", self.name, exc_info=self._error)
        elif isinstance(self._value, ToolResult) and self._value.is_error:
            logger.warning("%s() failed, and nobody awaited it: %.500s", self.name, self._value.text)


class CallQueue:
    """Carries out the calls of one object, whose name in messages is `owner`, each when those before it are done."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._home: asyncio.AbstractEventLoop | None = None
        self._waits_always = False
        self._over: str | None = None
        self._one_at_a_time = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"<CallQueue of {self._owner}, {len(self._tasks)} calls{', over' if self._over else ''}>"

    def open(self, home: asyncio.AbstractEventLoop | None = None, *, waits_always: bool = False) -> None:
        """Take calls. `home`: the loop that carries them out; nothing: the running one. `waits_always`: callers wait
        for their results even where a loop runs."""
        self._home = home or asyncio.get_running_loop()
        self._waits_always = waits_always
        self._over = None
        self._one_at_a_time = asyncio.Lock()  # one of an earlier life would belong to its loop

    def close(self, why: str) -> None:
        """Carry out nothing more. Calls from now on, and those that still wait, raise `LeaseOver` with `why`."""
        self._over = why

    async def settled(self) -> None:
        """Wait until all calls made so far are done. On the home loop."""
        home = asyncio.get_running_loop()
        await home.create_task(self._reached())

    def call(self, name: str, work: Work[T]) -> T:
        """Have `work` done: its result, or, where a loop runs, a `PendingCall` of it (which is no `T`: who is called
        there awaits it).

        Raises `LeaseOver` after `close`, and `ConfigurationError` before `open` or when the home loop has ended.
        """
        home = self._check_open()
        running = running_loop()
        call = _Call[T](name)
        if running is home and not self._waits_always:
            task = home.create_task(self._in_turn(call, work), name=f"{name} of {self._owner}")
            return cast("T", PendingCall(call, task))
        future = asyncio.run_coroutine_threadsafe(self._in_turn(call, work), home)
        if running is not None and not self._waits_always:
            return cast("T", PendingCall(call, future))
        call.heard = True
        try:
            future.result()
        except BaseException:
            future.cancel()  # Ctrl-C: the tool in the box is stopped too
            raise
        return call.result()

    def _check_open(self) -> asyncio.AbstractEventLoop:
        if self._over is not None:
            raise LeaseOver(self._over)
        if self._home is None:
            raise ConfigurationError(
                f"{self._owner} is not started: use it in `with {self._owner}() as box:`, in asyncio in `async with`, "
                "or call start() first"
            )
        if not self._home.is_running():
            raise ConfigurationError(
                f"the event loop in which {self._owner} was started has ended, and the sandbox with it; start one in "
                "the loop that uses it"
            )
        return self._home

    async def _in_turn(self, call: _Call[T], work: Work[T]) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)  # the loop alone would let go of it
        try:
            await call.carry_out(lambda: self._one_of_many(work))
        finally:
            self._tasks.discard(task)

    async def _one_of_many(self, work: Work[T]) -> T:
        if len(self._tasks) > MOST_WAITING:
            raise SandboxBusy(
                f"{MOST_WAITING} calls of this {self._owner} wait already; await some before making more"
            )
        async with self._one_at_a_time:
            if self._over is not None:
                raise LeaseOver(self._over)
            return await work()

    async def _reached(self) -> None:
        async with self._one_at_a_time:
            return


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
