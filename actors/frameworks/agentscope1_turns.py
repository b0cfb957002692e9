"""What AgentScope 1.x does on its own while a turn runs, brought to the turn's attention.

Agents run in tasks of their own (`stream_printing_messages` starts them) and take a cancellation for a wish to talk; a
turn must be able to end them. Models report usage where no message shows it. What a turn is asked for besides its input
(`agentscope1_options`) concerns models, agents, and the formatters between them. All are seen by wrapping classes,
once; outside of turns the wrapped classes do what they always did.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeAlias
from weakref import WeakSet

from agentscope.agent import AgentBase, ReActAgentBase
from agentscope.formatter import FormatterBase
from agentscope.message import Msg
from agentscope.model import ChatModelBase, ChatResponse

from greenroom.actors.errors import TurnOver
from greenroom.actors.frameworks.agentscope1_loop import reasoning_in_turn, run_agent, summarizing_in_turn
from greenroom.actors.frameworks.agentscope1_options import TurnModels, models_of_turn
from greenroom.actors.frameworks.agentscope1_pairs import has_calls, paired, unechoed
from greenroom.actors.frameworks.agentscope1_pictures import in_files, passes_on
from greenroom.actors.messages import Usage
from greenroom.actors.scope import TurnScope, current_turn

_WRAPPED = "_greenroom_wrapped"


def install() -> None:
    """Wrap the classes of agents, models and formatters, also those that are yet to be written. Twice is fine."""
    _wrap(AgentBase, "__call__", _of_its_turn)
    _wrap(AgentBase, "interrupt", _remembered)
    _wrap_family(ReActAgentBase, {"_reasoning": reasoning_in_turn, "_summarizing": summarizing_in_turn})
    _wrap_family(FormatterBase, {"format": _pairing})
    _wrap_family(ChatModelBase, {"__call__": _counted})


Wrapper: TypeAlias = Callable[[Any], Any]


def _wrap_family(base: Any, wrappers: Mapping[str, Wrapper]) -> None:
    """Wrap methods where the subclasses of `base` have them, also those that are yet to be written."""
    if not hasattr(base.__init_subclass__, _WRAPPED):
        base.__init_subclass__ = _wrapping_subclasses(base, vars(base).get("__init_subclass__"), wrappers)
    for member in _family(base):
        for name, wrapper in wrappers.items():
            _wrap(member, name, wrapper)


def _wrapping_subclasses(base: Any, own: Any, wrappers: Mapping[str, Wrapper]) -> Any:
    """What is called for a new class of a family. `own`: what `base` itself has for that, if it has."""

    def init_subclass(cls: type, /, **kwargs: Any) -> None:
        if own is not None:
            own.__func__(cls, **kwargs)
        else:
            super(base, cls).__init_subclass__(**kwargs)
        for name, wrapper in wrappers.items():
            _wrap(cls, name, wrapper)

    setattr(init_subclass, _WRAPPED, True)
    return classmethod(init_subclass)


def _wrap(owner: type, name: str, wrapper: Wrapper) -> None:
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
        args = await _unechoed(self, args)
        try:
            reply = await run_agent(self, lambda: call(self, *args, **kwargs))
        except Exception as error:
            if _was_cancelled(task, before):
                raise asyncio.CancelledError from error  # the agent failed at answering its cancellation
            raise
        if _was_cancelled(task, before):
            raise asyncio.CancelledError  # the agent answered it instead; its turn is being stopped all the same
        return reply

    return call_in_turn


async def _unechoed(agent: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """What an agent is called with, without answered calls that its memory has."""
    if not args or not isinstance(args[0], list) or not hasattr(agent, "memory"):
        return args
    msgs = [msg for msg in args[0] if isinstance(msg, Msg)]
    if len(msgs) < len(args[0]) or not has_calls(msgs):
        return args
    return list(unechoed(await agent.memory.get_memory(), msgs)), *args[1:]


def _was_cancelled(task: asyncio.Task[Any], before: int) -> bool:
    """Whether somebody cancelled the task since there were `before` requests, other than to interrupt the agent."""
    if task.cancelling() <= before:
        return False
    if task in _interrupted:
        _interrupted.discard(task)
        return task.uncancel() > before
    return True


# ------------------------------------------------------------------------------------------------------ formatters


def _pairing(form: Callable[..., Any]) -> Callable[..., Any]:
    async def format_in_turn(self: FormatterBase, *args: Any, **kwargs: Any) -> Any:
        if current_turn.get() is None:
            return await form(self, *args, **kwargs)
        msgs, *rest = args or (kwargs.pop("msgs", None),)
        msgs = _paired(msgs)
        if passes_on(self):
            msgs = await in_files(msgs)
        return await form(self, msgs, *rest, **kwargs)

    return format_in_turn


def _paired(msgs: object) -> object:
    """Messages in order; anything else is the formatter's to refuse."""
    if isinstance(msgs, list) and all(isinstance(msg, Msg) for msg in msgs):
        return paired(msgs)
    return msgs


# ---------------------------------------------------------------------------------------------------------- models

_counting: ContextVar[bool] = ContextVar("greenroom_counting_usage", default=False)
"""Whether a model is being called: a model that calls another reports for both."""


def _counted(call: Callable[..., Any]) -> Callable[..., Any]:
    async def call_and_count(self: ChatModelBase, *args: Any, **kwargs: Any) -> Any:
        scope = current_turn.get()
        if scope is None or _counting.get():
            return await call(self, *args, **kwargs)
        models = models_of_turn()
        if models is not None:
            if models.spent and kwargs.get("structured_model") is None:
                return _silence() if self.stream else ChatResponse([])
            args, kwargs = models.fit(self, call, args, kwargs)
        heard = Hearing(scope, models, self)
        token = _counting.set(True)
        try:
            response = await call(self, *args, **kwargs)
        finally:
            _counting.reset(token)
        if isinstance(response, AsyncGenerator):
            return _hear_stream(heard, response)
        heard.hear(response)
        heard.end()
        return response

    return call_and_count


async def _silence() -> AsyncGenerator[ChatResponse, None]:
    """The answer of a model that may not say more."""
    return
    yield


class Hearing:
    """One call's responses, each of which has all so far; the last counts."""

    __slots__ = ("_last", "_model", "_models", "_scope")

    def __init__(self, scope: TurnScope, models: TurnModels | None, model: ChatModelBase) -> None:
        self._scope = scope
        self._models = models
        self._model = model
        self._last: Any = None

    def hear(self, response: Any) -> None:
        """A response, before its agent gets it."""
        self._last = response
        if self._models is not None:
            self._models.trim(self._model, response)

    def end(self) -> None:
        """There are no more, or nobody wants to hear them."""
        reported = getattr(self._last, "usage", None)
        if reported is not None:
            self._scope.usage.append((self._last.id, to_usage(reported)))
        if self._models is not None and self._last is not None:
            self._models.spend(self._last)


async def _hear_stream(heard: Hearing, responses: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
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
                heard.hear(response)
                yield response
    finally:
        heard.end()


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
