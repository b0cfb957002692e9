"""Handlers: the user's function that answers a turn, in whatever form it was written.

`QueryHandler` calls a function for each turn (`@app.query`); `AgentHandler` calls a factory once a session and keeps
the agent (`@app.agent`). Synchronous functions run in worker threads.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from greenroom.actors.errors import ConfigurationError
from greenroom.actors.frameworks.adapter import AgentDriver, ForeignState, FrameworkAdapter
from greenroom.actors.messages import Message, Turn
from greenroom.actors.offload import as_stream, call
from greenroom.actors.session import Session
from greenroom.actors.setting_checks import check_setting
from greenroom.actors.turn_options import ALWAYS, OPTIONS, instructed, request_with_options

logger = logging.getLogger("greenroom.actors")


class Handler(Protocol):
    """What an actor needs to answer turns. `honours`: the options of a turn (`TurnOptions`) that it does as asked.
    `idempotent`: a turn may be begun once more when a process dies over it."""

    adapter: FrameworkAdapter
    honours: frozenset[str]
    idempotent: bool

    async def answer(self, session: Session, turn: Turn) -> AsyncIterator[object]:
        """What the turn's answer is made of, to be fed to the adapter's translator."""
        ...

    def save(self, session: Session) -> bytes | None:
        """The session's state after a turn that went well; none: the actor keeps no state for this handler."""
        ...


class QueryHandler:
    """`@app.query`: the function gets `msgs` and `request` (and `session`), and `self` if its first parameter is so
    called."""

    def __init__(
        self,
        function: Callable[..., Any],
        adapter: FrameworkAdapter,
        owner: object,
        honours: Collection[str] = (),
        idempotent: bool = False,
    ) -> None:
        self.adapter = adapter
        check_setting("the handler", "idempotent", idempotent, bool)
        self.idempotent = idempotent
        self.honours = honoured(adapter, honours)
        self._function = function
        self._wanted = wanted_arguments(function, {"msgs", "request", "session"})
        self._leading = (owner,) if takes_self(function) else ()
        self._is_async_generator = inspect.isasyncgenfunction(function)

    async def answer(self, session: Session, turn: Turn) -> AsyncIterator[object]:
        given: dict[str, Any] = {}
        for name in self._wanted:
            if name == "msgs":
                given[name] = self.adapter.messages(input_of(turn, self.adapter))
            else:
                given[name] = (
                    request_with_options(turn.request, turn.options) if name == "request" else session
                )
        if self._is_async_generator:
            result: AsyncIterator[object] = self._function(*self._leading, **given)
            return result
        return as_stream(await call(self._function, *self._leading, **given))

    def save(self, session: Session) -> bytes | None:
        return None


class AgentHandler:
    """`@app.agent`: the factory makes a session's agent; it is restored, run, saved and kept for the next turn."""

    def __init__(
        self,
        factory: Callable[..., Any],
        adapter: FrameworkAdapter,
        owner: object,
        honours: Collection[str] = (),
        idempotent: bool = False,
    ) -> None:
        self.adapter = adapter
        check_setting("the handler", "idempotent", idempotent, bool)
        self.idempotent = idempotent
        self.honours = honoured(adapter, honours)
        self._factory = factory
        self._leading = (owner,) if takes_self(factory) else ()
        parameters = len(inspect.signature(factory).parameters) - len(self._leading)
        if parameters > 1:
            raise ConfigurationError(
                f"the agent factory {factory.__name__}() takes {parameters} parameters; "
                "it gets one, the session: `def make_agent(session): ...`"
            )
        self._takes_session = parameters == 1

    async def answer(self, session: Session, turn: Turn) -> AsyncIterator[object]:
        if session.driver is None:
            arguments = (*self._leading, session) if self._takes_session else self._leading
            driver = self.adapter.driver(await call(self._factory, *arguments))
            state = await session.state()
            if state is not None:
                _restore(driver, state, session)
            if session.turn_id == turn.id:  # not when the turn was ended over its head meanwhile
                session.driver = driver
            return driver.run(input_of(turn, self.adapter))
        return session.driver.run(input_of(turn, self.adapter))

    def save(self, session: Session) -> bytes | None:
        return session.driver.save() if session.driver is not None else None


def _restore(driver: AgentDriver, state: bytes, session: Session) -> None:
    """Give an agent its session's state. One that is of another framework is left out, and its loss is logged: from the
    turn's end on the session has this agent's."""
    try:
        driver.restore(state)
    except ForeignState as error:
        user_id, session_id = session.key
        logger.warning(
            "the state that the agent of session %r of user %r left cannot be read: %s. The agent begins anew, and "
            "remembers nothing of what was said before",
            session_id,
            user_id,
            error,
        )


def honoured(adapter: FrameworkAdapter, more: Collection[str]) -> frozenset[str]:
    """The options of a turn that a handler does as asked: its framework's, and `more` that its author does himself.

    Raises `ConfigurationError` for what is no option.
    """
    unknown = sorted({more} if isinstance(more, str) else set(more) - OPTIONS)
    if unknown:
        raise ConfigurationError(
            f"honours={more!r}: {unknown[0]!r} is no option of a turn; it is a set of names out of {sorted(OPTIONS)}"
        )
    return adapter.honours | frozenset(more) | ALWAYS


def input_of(turn: Turn, adapter: FrameworkAdapter) -> Sequence[Message]:
    """A turn's messages; after its instructions, if the framework has no other place for them."""
    if "instructions" in adapter.honours:
        return turn.request.input
    return instructed(turn.request.input, turn.options)


def takes_self(function: Callable[..., Any]) -> bool:
    """Whether the function's first parameter is called `self`, as the tutorial writes it."""
    return next(iter(_parameters(function)), None) == "self"


def wanted_arguments(function: Callable[..., Any], offered: set[str]) -> tuple[str, ...]:
    """Which of the offered keyword arguments the function takes.

    Raises `ConfigurationError` for a required parameter that nobody would fill.
    """
    parameters = dict(_parameters(function))
    if next(iter(parameters), None) == "self":
        parameters.pop("self")
    for name, parameter in parameters.items():
        required = parameter.default is parameter.empty
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if name not in offered and required and (named or parameter.kind is parameter.POSITIONAL_ONLY):
            raise ConfigurationError(
                f"{function.__name__}() has a parameter {name!r} that nothing fills; it may take "
                f"{', '.join(sorted(offered))} (and self first), others need a default"
            )
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return tuple(sorted(offered))
    return tuple(name for name in parameters if name in offered)


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters
