"""Tools of AgentScope 1.x in a turn: synchronous ones run in worker threads (law 5).

`Toolkit.call_tool_function` calls a synchronous tool on the loop itself. `install` wraps it: inside a turn the tool
that is called is first replaced, in its toolkit, by one that looks where it runs. Outside of turns that one does what
the tool itself would do.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from dataclasses import replace
from functools import wraps
from typing import Any

from agentscope.tool import Toolkit, ToolResponse, _toolkit

from greenroom.actors.frameworks.tool_descriptions import described_once
from greenroom.actors.offload import in_thread, iterate_in_thread, never_blocks
from greenroom.actors.scope import current_turn

_INSTALLED = "_greenroom_off_loop"


def install() -> None:
    """Wrap `Toolkit.call_tool_function`, and describe each tool function once. Doing it twice is fine."""
    describe = getattr(_toolkit, "_parse_tool_function", None)
    if describe is not None:
        _toolkit._parse_tool_function = described_once(describe)
    original = Toolkit.call_tool_function
    if hasattr(original, _INSTALLED):
        return

    @wraps(original)
    async def call_tool_function(self: Toolkit, tool_call: dict[str, Any]) -> Any:
        if current_turn.get() is None:
            return await original(self, tool_call)
        tool = self.tools.get(tool_call["name"])
        if tool is not None:
            tool.original_func = off_loop(tool.original_func)
            if tool.postprocess_func is not None:
                tool.postprocess_func = off_loop(tool.postprocess_func)
        return last_at_the_end(await original(self, tool_call))

    setattr(call_tool_function, _INSTALLED, True)
    Toolkit.call_tool_function = call_tool_function


def off_loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """A synchronous function as an asynchronous one that runs it in a thread while a turn runs.

    An asynchronous function is given back as it is, and so is one that never blocks. What the synchronous one returns
    may be a generator, which is iterated in threads too, or something to await.
    """
    if (
        inspect.iscoroutinefunction(function)
        or inspect.isasyncgenfunction(function)
        or never_blocks(function)
    ):
        return function

    @wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        if current_turn.get() is None:
            return function(*args, **kwargs)
        result = await in_thread(function, *args, **kwargs)
        if inspect.isawaitable(result):
            result = await result
        return iterate_in_thread(result) if isinstance(result, Generator) else result

    return call


async def last_at_the_end(chunks: AsyncGenerator[ToolResponse, None]) -> AsyncGenerator[ToolResponse, None]:
    """A tool's chunks, of which only the last says that it is.

    `ToolResponse` says so by default, so that tools which stream say it of each chunk. Such a chunk waits for the next.
    """
    held: ToolResponse | None = None
    async with aclosing(chunks):
        async for chunk in chunks:
            if held is not None:
                yield replace(held, is_last=False)
            held = chunk if chunk.is_last else None
            if held is None:
                yield chunk
    if held is not None:
        yield held
