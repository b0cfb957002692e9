"""What AgentScope 1.x does on its own while a turn runs, brought to the turn's attention.

Agents run in tasks of their own (`stream_printing_messages` starts them) and take a cancellation for a wish to talk; a
turn must be able to end them. Models report usage where no message shows it. Both are seen by wrapping classes, once;
outside of turns the wrapped classes do what they always did.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from contextvars import ContextVar
from functools import wraps
from typing import Any
from weakref import WeakSet

from agentscope.agent import AgentBase
from agentscope.model import ChatModelBase

from greenroom.actors.errors import TurnOver
from greenroom.actors.messages import Usage
from greenroom.actors.scope import TurnScope, current_turn

_WRAPPED = "_greenroom_wrapped"


def install() -> None:
    """Wrap the classes of agents and models, also those of models that are yet to be written. Twice is fine."""
    _wrap(AgentBase, "__call__", _of_its_turn)
    _wrap(AgentBase, "interrupt", _remembered)
    if not hasattr(ChatModelBase.__init_subclass__, _WRAPPED):
        ChatModelBase.__init_subclass__ = _counting_subclasses(vars(ChatModelBase).get("__init_subclass__"))
    for model in _family(ChatModelBase):
        _wrap(model, "__call__", _counted)


def _wrap(owner: type, name: str, wrapper: Callable[[Any], Any]) -> None:
    function = vars(owner).get(name)
    if function is not None and not hasattr(function, _WRAPPED):
        wrapped = wraps(function)(wrapper(function))
        setattr(wrapped, _WRAPPED, True)
        setattr(owner, name, wrapped)


def _family(base: type) -> Iterator[type]:
    subclasses: list[type] = base.__subclasses__()
    for subclass in subclasses:
        yield subclass
        yield from _family(subclass)


# ---------------------------------------------------------------------------------------------------------- agents

_interrupted: WeakSet[asyncio.Task[Any]] = WeakSet()
"""Tasks that `agent.interrupt()` cancelled: there the agent may answer instead of ending."""


def _remembered(interrupt: Callable[..., Any]) -> Callable[..., Any]:
    async def interrupt_and_remember(self: AgentBase, *args: Any, **kwargs: Any) -> None:
        if self._reply_task is not None:
            _interrupted.add(self._reply_task)
        await interrupt(self, *args, **kwargs)

    return interrupt_and_remember


def _of_its_turn(call: Callable[..., Any]) -> Callable[..., Any]:
    async def call_in_turn(self: AgentBase, *args: Any, **kwargs: Any) -> Any:
        scope = current_turn.get()
        task = asyncio.current_task()
        if scope is None or task is None:
            return await call(self, *args, **kwargs)
        if scope.closed:
            raise TurnOver(
                f"agent {getattr(self, 'name', self.id)!r} was called by code of a turn that has ended"
            )
        scope.adopt(task)
        _interrupted.discard(task)
        before = task.cancelling()
        try:
            reply = await call(self, *args, **kwargs)
        except Exception as error:
            if _was_cancelled(task, before):
                raise asyncio.CancelledError from error  # the agent failed at answering its cancellation
            raise
        if _was_cancelled(task, before):
            raise asyncio.CancelledError  # the agent answered it instead; its turn is being stopped all the same
        return reply

    return call_in_turn


def _was_cancelled(task: asyncio.Task[Any], before: int) -> bool:
    """Whether somebody cancelled the task since there were `before` requests, other than to interrupt the agent."""
    if task.cancelling() <= before:
        return False
    if task in _interrupted:
        _interrupted.discard(task)
        return task.uncancel() > before
    return True


# ---------------------------------------------------------------------------------------------------------- models

_counting: ContextVar[bool] = ContextVar("greenroom_counting_usage", default=False)
"""Whether a model is being called: a model that calls another reports for both."""


def _counting_subclasses(own: Any) -> Any:
    """What is called for a new model class. `own`: what `ChatModelBase` itself has for that, if it has."""

    def init_subclass(cls: type, /, **kwargs: Any) -> None:
        if own is not None:
            own.__func__(cls, **kwargs)
        else:
            super(ChatModelBase, cls).__init_subclass__(**kwargs)
        _wrap(cls, "__call__", _counted)

    setattr(init_subclass, _WRAPPED, True)
    return classmethod(init_subclass)


def _counted(call: Callable[..., Any]) -> Callable[..., Any]:
    async def call_and_count(self: ChatModelBase, *args: Any, **kwargs: Any) -> Any:
        scope = current_turn.get()
        if scope is None or _counting.get():
            return await call(self, *args, **kwargs)
        token = _counting.set(True)
        try:
            response = await call(self, *args, **kwargs)
        finally:
            _counting.reset(token)
        if isinstance(response, AsyncGenerator):
            return _count_stream(scope, response)
        _count(scope, response)
        return response

    return call_and_count


async def _count_stream(scope: TurnScope, responses: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    """The responses, each of which has the usage so far; the last counts, also when nobody wants to hear the rest."""
    response = None
    try:
        async with aclosing(responses):
            while True:
                token = _counting.set(True)
                try:
                    response = await anext(responses)
                except StopAsyncIteration:
                    return
                finally:
                    _counting.reset(token)
                yield response
    finally:
        _count(scope, response)


def _count(scope: TurnScope, response: Any) -> None:
    reported = getattr(response, "usage", None)
    if reported is not None:
        scope.usage.append((response.id, to_usage(reported)))


def to_usage(reported: Any) -> Usage:
    """AgentScope's `ChatUsage` as ours. What a service says beyond it is in its `metadata`, named as OpenAI does."""
    details = reported.metadata
    return Usage(
        reported.input_tokens or 0,
        reported.output_tokens or 0,
        _detail(details, ("prompt_tokens_details", "input_tokens_details"), "cached_tokens"),
        _detail(details, ("completion_tokens_details", "output_tokens_details"), "reasoning_tokens"),
    )


def _detail(details: Any, groups: tuple[str, ...], name: str) -> int:
    for group in groups:
        value = _field(_field(details, group), name)
        if isinstance(value, int):
            return value
    return 0


def _field(owner: Any, name: str) -> Any:
    return owner.get(name) if isinstance(owner, dict) else getattr(owner, name, None)
