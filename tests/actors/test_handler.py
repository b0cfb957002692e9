"""Handlers in every form a user may write them, synchronous ones off the loop (law 5)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from greenroom.actors.errors import ConfigurationError
from greenroom.actors.events import TurnCancelled, TurnCompleted, TurnFailed
from greenroom.actors.frameworks.plain import PlainAdapter
from greenroom.actors.handler import AgentHandler, QueryHandler
from greenroom.actors.limits import Limits
from greenroom.actors.messages import AgentRequest
from greenroom.actors.session import Session
from kits.system import asked, running_system, said, turn


async def asynchronous_generator(msgs: Any) -> AsyncIterator[str]:
    yield "he"
    yield "llo"


async def coroutine(msgs: Any) -> str:
    return "hello"


async def silent(msgs: Any) -> AsyncIterator[str]:
    words: tuple[str, ...] = ()
    for word in words:
        yield word


async def coroutine_that_returns_a_stream(msgs: Any) -> AsyncIterator[str]:
    return asynchronous_generator(msgs)


def function(msgs: Any) -> str:
    return "hello"


def generator(msgs: Any) -> Iterator[str]:
    yield "he"
    yield "llo"


def function_that_returns_a_generator(msgs: Any) -> Iterator[str]:
    return generator(msgs)


def function_that_returns_a_coroutine(msgs: Any) -> Any:
    return coroutine(msgs)


@pytest.mark.parametrize(
    "handler",
    [
        asynchronous_generator,
        coroutine,
        coroutine_that_returns_a_stream,
        function,
        generator,
        function_that_returns_a_generator,
        function_that_returns_a_coroutine,
    ],
)
async def test_every_form_of_handler_answers(handler: Callable[..., Any]) -> None:
    async with running_system(handler) as system:
        ending = await (await system.submit(turn())).ended()
    assert isinstance(ending, TurnCompleted)
    assert said(ending) == "hello"


async def test_a_handler_that_says_nothing_completes_with_nothing() -> None:
    async def silent(msgs: Any) -> None:
        return None

    async with running_system(silent) as system:
        ending = await (await system.submit(turn())).ended()
    assert isinstance(ending, TurnCompleted)
    assert ending.output == ()


async def test_synchronous_handlers_run_in_threads_with_the_context_while_the_loop_goes_on() -> None:
    colour: ContextVar[str] = ContextVar("colour", default="none")
    here = threading.get_ident()
    entered, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    threads: list[int] = []

    def blocking(msgs: Any) -> Iterator[str]:
        threads.append(threading.get_ident())
        loop.call_soon_threadsafe(entered.set)
        assert release.wait(10)
        yield colour.get()

    colour.set("red")
    async with running_system(blocking) as system:
        log = await system.submit(turn())
        await entered.wait()
        release.set()  # from the loop, which the handler therefore does not block
        assert said(await log.ended()) == "red"
    assert threads != [here]


async def test_cancelling_a_synchronous_handler_ends_its_turn_while_the_thread_is_not_heard() -> None:
    entered, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def blocking(msgs: Any) -> Iterator[str]:
        if asked(msgs[-1]) == "quick":
            yield "quick"
            return
        yield "before"
        loop.call_soon_threadsafe(entered.set)
        assert release.wait(10)
        yield "after"

    async with running_system(blocking, limits=Limits(cancel_seconds=5)) as system:
        log = await system.submit(turn("block"))
        await entered.wait()
        await system.cancel(log.id)
        ending = await log.ended()
        assert isinstance(ending, TurnCancelled)
        assert said(ending) == "before"
        assert said(await (await system.submit(turn("quick"))).ended()) == "quick"
        release.set()


async def test_a_synchronous_factory_runs_off_the_loop() -> None:
    threads: list[int] = []

    def factory(session: Session) -> Callable[..., Any]:
        threads.append(threading.get_ident())
        return coroutine

    async with running_system(factory, agent=True) as system:
        assert said(await (await system.submit(turn())).ended()) == "hello"
    assert threads[0] != threading.get_ident()


async def test_a_handler_gets_what_it_names() -> None:
    got: dict[str, Any] = {}

    async def everything(
        msgs: Any, request: AgentRequest, session: Session, *, other: int = 3, **rest: Any
    ) -> None:
        got.update(msgs=msgs, request=request, session=session, other=other, rest=rest)

    async with running_system(everything) as system:
        await (await system.submit(turn("hi", colour="red"))).ended()
    assert asked(got["msgs"][0]) == "hi"
    assert got["request"].session_id == "s"
    assert got["request"].colour == "red"
    with pytest.raises(AttributeError, match="taste"):
        _ = got["request"].taste
    assert (got["session"].user_id, got["session"].session_id) == ("u", "s")
    assert got["rest"] == {}
    with pytest.raises(ConfigurationError, match="sandboxes"):
        _ = got["session"].browser


async def test_a_handler_sees_its_sessions_history() -> None:
    async def remember(msgs: Any, session: Session) -> str:
        return ",".join(asked(kept.input[0]) for kept in await session.history())

    async with running_system(remember) as system:
        for text, expected in (("a", ""), ("b", "a"), ("c", "a,b")):
            assert said(await (await system.submit(turn(text))).ended()) == expected


def test_self_is_the_owner() -> None:
    def handler(self: Any, msgs: Any) -> None: ...

    bound = QueryHandler(handler, PlainAdapter(), "the application")
    assert bound._leading == ("the application",)


def test_a_parameter_that_nothing_fills_is_refused_at_once() -> None:
    def handler(msgs: Any, database: Any) -> None: ...

    with pytest.raises(ConfigurationError, match="database"):
        QueryHandler(handler, PlainAdapter(), None)


def test_a_factory_takes_the_session_or_nothing() -> None:
    def factory(session: Any, more: Any) -> None: ...

    with pytest.raises(ConfigurationError, match="one, the session"):
        AgentHandler(factory, PlainAdapter(), None)


async def test_a_factory_that_makes_no_agent_fails_the_turn_in_words() -> None:
    async def factory() -> int:
        return 3

    async with running_system(factory, agent=True) as system:
        ending = await (await system.submit(turn())).ended()
    assert isinstance(ending, TurnFailed)
    assert "neither callable" in ending.error.message


@pytest.mark.parametrize("handler", [silent, lambda msgs: None, lambda msgs: ""])
async def test_a_handler_that_says_nothing_is_logged_once(
    handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_system(handler) as system:
        for _ in range(2):
            ending = await (await system.submit(turn())).ended()
            assert isinstance(ending, TurnCompleted)
            assert said(ending) == ""
    [record] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "the handler said nothing" in record.getMessage()


async def test_a_handler_that_speaks_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with running_system(function) as system:
        assert isinstance(await (await system.submit(turn())).ended(), TurnCompleted)
    assert not caplog.records
