"""`AgentApp`: what its author writes, and the order in which its parts live and die."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from greenroom import (
    AgentApp,
    AgentRequest,
    ConfigurationError,
    GreenroomError,
    Host,
    InMemorySessionHistoryService,
    InMemoryStateService,
    InMemoryStore,
    Message,
    Session,
    Text,
    TurnCancelled,
    TurnCompleted,
    TurnFailed,
    compat_app,
)
from kits.system import asked, said


async def hello(msgs: Any) -> str:
    return "hello"


class Notes:
    """A transport that notes when it starts and stops."""

    name = "notes"

    def __init__(self, notes: list[str], fails: bool = False) -> None:
        self._notes = notes
        self._fails = fails

    async def start(self, host: Host) -> None:
        self._notes.append(f"transport starts while {host.state}")
        if self._fails:
            raise ConfigurationError("cannot start")

    async def stop(self, deadline: float) -> None:
        assert deadline > 0
        self._notes.append("transport stops")


class NotingStore(InMemoryStore):
    def __init__(self, notes: list[str]) -> None:
        super().__init__()
        self._notes = notes

    async def start(self) -> None:
        self._notes.append("store starts")

    async def stop(self) -> None:
        self._notes.append("store stops")


def noting_app(notes: list[str], *, init_fails: bool = False, transport_fails: bool = False) -> AgentApp:
    app = AgentApp(transports=[Notes(notes, transport_fails)], state=NotingStore(notes), drain_seconds=0)
    app.query()(hello)

    @app.init
    async def first(self: AgentApp) -> None:
        assert self is app
        notes.append("init 1")

    @app.init
    def second() -> None:
        notes.append("init 2")
        if init_fails:
            raise OSError("no database")

    @app.shutdown
    async def last(self: AgentApp) -> None:
        notes.append("shutdown 1")

    @app.shutdown
    def very_last() -> None:
        notes.append("shutdown 2")

    return app


START = ["transport starts while starting", "init 1", "init 2", "store starts"]
STOP = ["transport stops", "store stops", "shutdown 1", "shutdown 2"]


async def test_each_part_starts_and_stops_once_and_in_order() -> None:
    notes: list[str] = []
    async with noting_app(notes):
        assert notes == START
    assert notes == START + STOP


async def test_a_failed_init_fails_loudly_and_still_tidies_up() -> None:
    notes: list[str] = []
    app = noting_app(notes, init_fails=True)
    with pytest.raises(OSError, match="no database"):
        await app.start()
    assert notes == [*START[:3], "transport stops", "shutdown 1", "shutdown 2"]
    await app.stop()
    assert notes.count("shutdown 1") == 1


async def test_why_it_did_not_start_is_raised_and_what_failed_after_it_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    notes: list[str] = []
    app = noting_app(notes, init_fails=True)

    @app.shutdown
    async def broken() -> None:
        raise OSError("cannot close")

    with pytest.raises(OSError, match="no database"):
        await app.start()
    assert notes == [*START[:3], "transport stops", "shutdown 1", "shutdown 2"]
    assert "did not start" in caplog.text
    assert "OSError: cannot close" in caplog.text


async def test_a_transport_that_cannot_start_stops_the_start_before_init() -> None:
    notes: list[str] = []
    with pytest.raises(ConfigurationError, match="cannot start"):
        await noting_app(notes, transport_fails=True).start()
    assert notes == ["transport starts while starting"]


async def test_turns_still_have_the_services_while_they_end() -> None:
    notes: list[str] = []
    app = AgentApp(drain_seconds=30)
    release = asyncio.Event()

    @app.query()
    async def answer(msgs: Any) -> str:
        await release.wait()
        notes.append("turn ends")
        return "ok"

    @app.shutdown
    async def shutdown() -> None:
        notes.append("shutdown")

    await app.start()
    log = await app.process("x").submit()
    stopping = asyncio.create_task(app.stop())
    await asyncio.sleep(0)
    release.set()
    await stopping
    assert isinstance(log.terminal, TurnCompleted)
    assert notes == ["turn ends", "shutdown"]


async def test_a_shutdown_hook_that_fails_is_heard_after_the_others_ran() -> None:
    notes: list[str] = []
    app = noting_app(notes)

    @app.shutdown
    async def broken() -> None:
        raise OSError("cannot close")

    await app.start()
    with pytest.raises(OSError, match="cannot close"):
        await app.stop()
    assert notes == START + STOP


async def test_synchronous_hooks_do_not_block_the_loop() -> None:
    threads: list[int] = []
    app = AgentApp()
    app.query()(hello)
    app.init(lambda: threads.append(threading.get_ident()))
    async with app:
        assert threads != [threading.get_ident()]


async def test_it_can_be_configured_until_it_starts() -> None:
    app = AgentApp(drain_seconds=30)
    begun = asyncio.Event()

    @app.query()
    async def answer(msgs: Any) -> None:
        begun.set()
        if asked(msgs[-1]) == "fail":
            raise ValueError("the text of the exception")
        await asyncio.Event().wait()

    app.configure()
    app.configure(debug=True)
    app.configure(drain_seconds=0)
    async with app:
        with pytest.raises(ConfigurationError, match="before it starts"):
            app.configure(debug=False)
        failed = await app.process("fail").result()
        assert isinstance(failed, TurnFailed)
        assert "the text of the exception" in failed.error.message
        begun.clear()
        log = await app.process("wait").submit()
        await begun.wait()
    assert isinstance(log.terminal, TurnCancelled)


async def test_self_of_an_endpoint_is_the_application() -> None:
    app = AgentApp()
    app.query()(hello)
    app.greeting = "hello"  # type: ignore[attr-defined]

    @app.endpoint("/greet")
    def greet(self: Any, name: str) -> str:
        return f"{self.greeting} {name}"

    assert greet.__name__ == "greet"
    async with (
        TestClient(TestServer(app.aiohttp_application())) as client,
        client.post("/greet", json={"name": "Ada"}) as response,
    ):
        assert await response.json() == "hello Ada"


async def test_starting_twice_is_refused() -> None:
    app = AgentApp()
    app.query()(hello)
    async with app:
        with pytest.raises(ConfigurationError, match="running already"):
            await app.start()


async def test_an_application_without_a_handler_says_what_to_add() -> None:
    with pytest.raises(ConfigurationError, match=r"@app\.query"):
        await AgentApp("Empty").start()


def test_two_handlers_are_one_too_many() -> None:
    app = AgentApp()
    app.query()(hello)
    with pytest.raises(ConfigurationError, match="one"):
        app.agent(framework="text")(hello)


async def test_hooks_may_be_written_with_parentheses() -> None:
    notes: list[str] = []
    for application in (AgentApp(), compat_app.AgentApp()):
        application.query("text")(hello)

        @application.init()
        async def first() -> None:
            notes.append("init")

        @application.shutdown()
        def last() -> None:
            notes.append("shutdown")

        async with application:
            assert notes.pop() == "init"
        assert notes.pop() == "shutdown"


def test_a_hook_that_is_no_function_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="a hook is a function"):
        AgentApp().init("connect")  # type: ignore[call-overload]


@pytest.mark.filterwarnings("error")
async def test_run_in_a_running_loop_says_what_to_do_there() -> None:
    app = AgentApp()
    app.query()(hello)
    with pytest.raises(ConfigurationError, match=r"notebook.*async with app.*app\.start\(AiohttpServer"):
        app.run(port=0)


def test_a_decorator_without_its_parentheses_is_explained() -> None:
    with pytest.raises(ConfigurationError, match="parentheses"):
        AgentApp().query(hello)  # type: ignore[arg-type]


async def start_with_a_store_that_is_not_there() -> None:
    app = AgentApp(state="mongodb://localhost")
    app.query()(hello)
    await app.start()


async def make_an_endpoint_without_its_slash() -> None:
    AgentApp().endpoint("no-slash")


async def ask_for_an_unknown_framework() -> None:
    AgentApp().query(framework="lang")(hello)


async def ask_for_an_unknown_overlap() -> None:
    AgentApp(overlap="push")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        start_with_a_store_that_is_not_there,
        make_an_endpoint_without_its_slash,
        ask_for_an_unknown_framework,
        ask_for_an_unknown_overlap,
    ],
)
async def test_a_wrong_setting_is_refused_in_words(wrong: Callable[[], Awaitable[None]]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        await wrong()
    assert len(str(refused.value)) > 20
    assert issubclass(ConfigurationError, GreenroomError)


async def test_the_tutorials_level_self_carries_the_services() -> None:
    app = AgentApp(app_name="Friday", app_description="A helpful assistant")

    @app.init
    async def init_func(self: Any) -> None:
        self.state_service = InMemoryStateService()
        self.session_service = InMemorySessionHistoryService()
        await self.state_service.start()
        await self.session_service.start()

    @app.shutdown
    async def shutdown_func(self: Any) -> None:
        await self.state_service.stop()
        await self.session_service.stop()

    @app.query()
    async def query_func(
        self: Any, msgs: Any, request: AgentRequest | None = None, **kwargs: Any
    ) -> AsyncIterator[str]:
        assert request is not None
        ids = {"session_id": request.session_id, "user_id": request.user_id}
        state = await self.state_service.export_state(**ids) or {"count": 0}
        session = await self.session_service.get_session(request.user_id, request.session_id)
        session = session or await self.session_service.create_session(request.user_id, request.session_id)
        await asyncio.sleep(0)
        yield str(state["count"] + 1)
        await self.session_service.append_message(session, list(msgs))
        if asked(msgs[-1]) == "fail":
            await self.state_service.save_state(**ids, state={"count": 1000})
            raise RuntimeError("after saving")
        await self.state_service.save_state(**ids, state={"count": state["count"] + 1})

    async with app:
        texts = [*(f"q{number}" for number in range(5)), "fail", *(f"q{number}" for number in range(5, 10))]
        endings = await asyncio.gather(*(app.process(text, session_id="s").result() for text in texts))
        completed = [said(ending) for ending in endings if isinstance(ending, TurnCompleted)]
        assert completed == [str(number) for number in range(1, 11)]
        service = app.session_service  # type: ignore[attr-defined]
        history = await service.get_session("s", "s")
        assert [asked(message) for message in history.messages] == [f"q{number}" for number in range(10)]


async def test_the_actors_level_keeps_the_agent() -> None:
    app = AgentApp()

    class Parrot:
        def __init__(self) -> None:
            self.heard: list[str] = []

        async def reply(self, msgs: Any) -> str:
            self.heard.append(asked(msgs[-1]))
            return " ".join(self.heard)

    @app.agent(framework="text")
    async def make(self: Any, session: Session) -> Parrot:
        assert self is app
        return Parrot()

    async with app:
        for text, expected in (("a", "a"), ("b", "a b")):
            assert said(await app.process(text, session_id="s").result()) == expected
        assert app.statistics().active_sessions == 1
        request = AgentRequest(input=(Message((Text("c"),)),), session_id="s")
        assert said(await app.process(request, user_id="somebody else").result()) == "c"
