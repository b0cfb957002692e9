"""AgentScope 2.x's tools as a turn needs them: off the loop, and gone when the turn is.

AgentScope calls synchronous tools on the loop (`FunctionTool.call`, and tools whose own `__call__` is synchronous), and
runs concurrent tool calls in tasks that it leaves behind when nobody reads its stream to the end. `install` puts thin
wrappers around three methods. They act inside a Greenroom turn alone; outside of one AgentScope behaves as ever.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import suppress
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from agentscope.agent import Agent
from agentscope.tool import FunctionTool, Toolkit

from greenroom.actors.offload import in_thread, iterate_in_thread, never_blocks
from greenroom.actors.scope import TurnScope, current_turn

_MARK = "_greenroom_wrapped"

# Agents tell their model the time, in UTC unless told otherwise. The zone's file is read while modules are imported
# (zones are cached), not by the first turn on the loop.
with suppress(ZoneInfoNotFoundError):
    ZoneInfo("UTC")


def install() -> None:
    """Wrap AgentScope's methods. Doing it twice is fine."""
    wrap(FunctionTool, "call", _call)
    wrap(Toolkit, "call_tool", _call_tool)
    wrap(Agent, "_into_queue", _into_queue)


def wrap(owner: type, name: str, wrapper: Callable[..., Any]) -> None:
    """Put a wrapper around a method, once."""
    original = getattr(owner, name)
    if not hasattr(original, _MARK):
        wrapped = wrapper(original)
        functools.update_wrapper(wrapped, original)
        setattr(wrapped, _MARK, True)
        setattr(owner, name, wrapped)


_within_tool: ContextVar[bool] = ContextVar("greenroom_within_tool", default=False)
"""Whether a tool runs: agents and models that it uses are the tool's, and not those the turn was asked of."""


def turn_of_agent() -> TurnScope | None:
    """The turn whose request an agent that acts here answers; none: there is no turn, or a tool runs the agent."""
    return None if _within_tool.get() else current_turn.get()


# -- synchronous tool functions ----------------------------------------------------------------------------------------


def _call(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def call(self: FunctionTool, **kwargs: Any) -> Any:
        if current_turn.get() is not None and not _is_async(self._func):
            # A twin with another function: what AgentScope makes of the result stays AgentScope's.
            function, self = self._func, copy.copy(self)
            self._func = functools.partial(_off_the_loop, function)
        return await original(self, **kwargs)

    return call


async def _off_the_loop(function: Callable[..., Any], **kwargs: Any) -> Any:
    """Call a synchronous tool in a worker thread; a generator's steps run in threads too."""
    result = await in_thread(function, **kwargs)
    if inspect.isawaitable(result):
        return await result
    return iterate_in_thread(result) if isinstance(result, Generator) else result


def _is_async(function: Callable[..., Any]) -> bool:
    return never_blocks(function) or any(
        inspect.iscoroutinefunction(form) or inspect.isasyncgenfunction(form)
        for form in (function, getattr(function, "__call__", None))  # noqa: B004 - the method, not whether there is one
    )


# -- whole tool calls --------------------------------------------------------------------------------------------------


def _call_tool(
    original: Callable[..., AsyncGenerator[Any, None]],
) -> Callable[..., AsyncGenerator[Any, None]]:
    async def call_tool(self: Toolkit, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        if current_turn.get() is not None:
            tools, self = self._get_available_tools, copy.copy(self)
            self._get_available_tools = functools.partial(_available_off_the_loop, tools)
        chunks = original(self, *args, **kwargs)
        try:
            while True:
                token = _within_tool.set(True)
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    return
                finally:
                    _within_tool.reset(token)
                yield chunk
        except GeneratorExit:
            await _interrupt(chunks)
            raise

    return call_tool


async def _interrupt(chunks: AsyncGenerator[Any, None]) -> None:
    """Stop a tool call whose stream is closed. AgentScope's generator refuses `aclose` (it yields once more) but knows
    cancellation."""
    with suppress(asyncio.CancelledError, StopAsyncIteration):
        await chunks.athrow(asyncio.CancelledError())
        async for _ in chunks:
            pass  # what it says of being interrupted has no listener


async def _available_off_the_loop(available: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    """The tools that may be called, with those that would run on the loop replaced by what does not."""
    tools = await available(*args, **kwargs)
    return {name: entry if _is_async(entry.tool) else _threaded(entry) for name, entry in tools.items()}


def _threaded(entry: Any) -> Any:
    return SimpleNamespace(tool=_ThreadedTool(entry.tool), group=entry.group)


class _ThreadedTool:
    """A tool with a synchronous `__call__`, called in a worker thread."""

    def __init__(self, tool: Any) -> None:
        self._tool = tool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tool, name)

    async def __call__(self, **kwargs: Any) -> Any:
        return await _off_the_loop(self._tool, **kwargs)


# -- concurrent tool calls ---------------------------------------------------------------------------------------------


def _into_queue(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    async def into_queue(self: Agent, *args: Any, **kwargs: Any) -> None:
        turn, task = current_turn.get(), asyncio.current_task()
        if turn is not None and task is not None:
            turn.adopt(task)  # one task a concurrent tool call; when all have ended, the one around them does
        await original(self, *args, **kwargs)

    return into_queue
