"""The `AgentApp` of applications that are written for AgentScope Runtime."""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

import greenroom
from greenroom import AiohttpServer, ConfigurationError, compat
from greenroom.actors.errors import TurnMoved
from greenroom.compat_app import REFUSED, AgentApp, Runner
from greenroom.load import load_application
from kits.system import said


async def answer(self: Any, msgs: Any, request: Any = None, **kwargs: Any) -> AsyncIterator[str]:
    yield "hello"


def app_with_answer(**arguments: Any) -> AgentApp:
    app = AgentApp(app_name="Friday", **arguments)
    app.query(framework="text")(answer)
    return app


# -- handlers and hooks ------------------------------------------------------------------------------------------------


async def test_hooks_handler_and_endpoints_share_the_runner_whatever_they_call_it() -> None:
    app = AgentApp()
    seen: list[object] = []

    @app.init
    async def init_func(runner: Runner) -> None:
        runner.agent = "an agent of the user's"  # type: ignore[attr-defined]
        seen.append(runner)

    @app.query(framework="text")
    async def query_func(this: Any, msgs: Any, request: Any = None, **kwargs: Any) -> AsyncIterator[str]:
        seen.append(this)
        yield this.agent

    @app.endpoint("/agent", methods=["GET"])
    def endpoint(self: Any) -> str:
        seen.append(self)
        return str(self.agent)

    @app.shutdown
    def shutdown_func(self: Any) -> None:
        seen.append(self)

    async with TestClient(TestServer(app.aiohttp_application())) as client:
        assert said(await app.process("hi").result()) == "an agent of the user's"
        async with client.get("/agent") as response:
            assert await response.json() == "an agent of the user's"
    assert len(seen) == 4
    assert isinstance(seen[0], Runner)
    assert len(set(map(id, seen))) == 1
    assert callable(app.agent)


async def test_an_endpoint_where_the_server_tells_of_itself_keeps_no_application_from_running(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = app_with_answer()

    @app.endpoint("/health", methods=["GET", "HEAD", "PUT"])
    @app.endpoint("/", methods=["GET"])
    @app.endpoint("/ready", methods=["HEAD"])
    @app.endpoint("/openapi.json", methods=["GET"])
    async def mine() -> dict[str, str]:
        return {"status": "mine"}

    left_out = re.findall(r"GET (\S+) is left out", caplog.text)
    assert left_out == ["/health", "/", "/ready", "/openapi.json"]
    async with TestClient(TestServer(app.aiohttp_application())) as client:
        async with client.get("/health") as response:
            assert (await response.json())["status"] == "healthy"
        async with client.get("/ready") as response:
            assert (await response.json())["status"] == "ready"
        async with client.put("/health") as response:
            assert await response.json() == {"status": "mine"}


async def test_whether_it_is_ready_an_application_may_say_itself() -> None:
    app = app_with_answer()

    @app.endpoint("/ready", methods=["GET"])
    async def ready() -> dict[str, str]:
        return {"status": "mine"}

    async with TestClient(TestServer(app.aiohttp_application())) as client:
        for method in ("GET", "HEAD"):
            async with client.request(method, "/ready") as response:
                assert response.status == 200
                assert await response.text() == ("" if method == "HEAD" else '{"status":"mine"}')
        async with client.get("/openapi.json") as response:
            assert (await response.json())["paths"]["/ready"]["get"]["operationId"] != "ready"
        async with client.get("/") as response:
            routes = (await response.json())["routes"]
            assert routes.count({"method": "GET", "path": "/ready"}) == 1
        await app.stop()
        async with client.get("/ready") as response:
            assert response.status == 503


@pytest.mark.parametrize("function", [lambda: "hi", lambda msgs: "hi", lambda request, **kwargs: "hi"])
async def test_a_handler_may_do_without_the_runner(function: Callable[..., str]) -> None:
    app = AgentApp()
    app.query(framework="text")(function)
    async with app:
        assert said(await app.process("x").result()) == "hi"


async def test_the_request_is_as_handlers_know_it() -> None:
    app = AgentApp()

    @app.query(framework="text")
    async def query_func(self: Any, msgs: Any, request: Any = None, **kwargs: Any) -> AsyncIterator[str]:
        assert isinstance(request.input, list)
        assert isinstance(request, greenroom.AgentRequest)
        assert request.input[0].content[0].type == "text"
        heard: Any = request.input[0]
        yield heard.get_text_content()

    async with app:
        assert said(await app.process("what was said").result()) == "what was said"


@pytest.fixture
def agentscope_app() -> AgentApp:
    """Made before there is a loop that importing AgentScope would block."""
    from agentscope.message import Msg

    app = AgentApp()

    @app.query()
    async def query_func(self: Any, msgs: Any, request: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        yield Msg("Friday", msgs[-1].get_text_content(), "assistant"), True

    return app


@pytest.mark.agentscope1
async def test_the_framework_is_agentscope_if_nothing_is_said(agentscope_app: AgentApp) -> None:
    async with agentscope_app:
        assert said(await agentscope_app.process("hi").result()) == "hi"


@pytest.mark.parametrize("framework", ["agno", "autogen", "langgraph", None])
def test_other_frameworks_are_refused_in_words(framework: str | None) -> None:
    with pytest.raises(ConfigurationError, match=r"serves AgentScope; use.*yield the text"):
        AgentApp().query(framework=framework)


async def test_the_order_of_hooks() -> None:
    notes: list[Any] = []

    async def before(app: Any, **kwargs: Any) -> None:
        app.state.database = "open"
        notes.append(("before_start", app, kwargs))

    def after(app: Any, **kwargs: Any) -> None:
        assert threading.current_thread() is not threading.main_thread()
        notes.append(("after_finish", app.state.database))

    app = app_with_answer(before_start=before, after_finish=after)
    app.init(lambda self: notes.append("init"))
    app.shutdown(lambda self: notes.append("shutdown"))
    async with app:
        assert notes == ["init", ("before_start", app, {})]
    assert notes[2:] == [("after_finish", "open"), "shutdown"]


async def test_of_two_init_hooks_the_last_counts(caplog: pytest.LogCaptureFixture) -> None:
    notes: list[str] = []
    app = app_with_answer()
    app.init(lambda self: notes.append("first"))
    assert not caplog.records
    app.init(lambda self: notes.append("second"))
    assert "takes the place of the first" in caplog.text
    async with app:
        assert notes == ["second"]


class Parrot(Runner):
    framework_type = "text"

    def __init__(self) -> None:
        self.notes: list[str] = []

    async def init_handler(self) -> None:
        self.notes.append("init")

    async def query_handler(self, *args: Any, **kwargs: Any) -> AsyncIterator[str]:
        assert not args
        yield kwargs["request"].input[0].get_text_content()

    async def shutdown_handler(self) -> None:
        self.notes.append("shutdown")


async def test_a_runner_of_the_users_own() -> None:
    runner = Parrot()
    app = AgentApp(runner=runner)
    async with app:
        assert said(await app.process("hi").result()) == "hi"
    assert runner.notes == ["init", "shutdown"]


async def test_a_runner_does_not_run() -> None:
    for use in (Runner().start, Runner().deploy, Runner().__aenter__):
        with pytest.raises(ConfigurationError, match=r"greenroom serve|app\.run"):
            await use()
    with pytest.raises(ConfigurationError, match=r"app\.process"):
        Runner().stream_query({"input": []})


# -- arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_refused_with_what_to_do_instead(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name) as refused:
        app_with_answer(**{name: [object()]})
    assert REFUSED[name] in str(refused.value)
    app_with_answer(**{name: None})


@pytest.mark.parametrize("arguments", [{"stream": False}, {"runner": object()}, {"endpoint_path": "chat"}])
def test_wrong_values_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        AgentApp(**arguments)


def test_what_changes_nothing_is_left_out_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    AgentApp(
        response_type="sse",
        stream=True,
        request_model=greenroom.AgentRequest,
        broker_url=None,
        enable_embedded_worker=False,
    )
    assert not caplog.records
    AgentApp(broker_url="redis://localhost", title="Friday", response_type="json")
    assert "broker_url, title, response_type" in caplog.text


async def test_settings_of_greenrooms_own_may_be_added() -> None:
    app = app_with_answer(limits=greenroom.Limits(turns=1), overlap="reject", debug=True)
    async with app:
        assert said(await app.process("x").result()) == "hello"


async def test_other_paths_for_process_and_endpoints_by_argument() -> None:
    def double(number: int) -> int:
        return number * 2

    app = app_with_answer(
        endpoint_path="/api/chat",
        custom_endpoints=[
            {"path": "/double", "handler": double, "methods": ["GET"]},
            {"path": "/double", "handler": double},
        ],
    )
    body = {"input": [{"role": "user", "content": "hi"}], "stream": False}
    async with TestClient(TestServer(app.aiohttp_application())) as client:
        for path in ("/api/chat", "/process"):
            async with client.post(path, json=body) as response:
                assert (await response.json())["output"][0]["content"][0]["text"] == "hello"
        async with client.get("/double?number=2") as response:
            assert await response.json() == 4
        async with client.post("/double", json={"number": 3}) as response:
            assert await response.json() == 6


@pytest.mark.parametrize("mount", ["", "/agents", "/process"])
@pytest.mark.parametrize(
    "path", ["/process", "/process/task", "/ask", "/ask/task", "/mine/x", "/process/y/cancel"]
)
async def test_where_a_turn_is_that_moved_is_said_below_the_same_mount(mount: str, path: str) -> None:
    def meet(headers: Any) -> str | None:
        raise TurnMoved("t/1", named=False, stored=False)

    app = app_with_answer(endpoint_path="/ask", authenticate=meet)

    @app.endpoint("/mine/{x:.*}")
    async def mine(x: str) -> None:
        meet(x)

    served = outer = app.aiohttp_application()
    if mount:
        outer = web.Application()
        outer.add_subapp(mount, served)
    async with TestClient(TestServer(outer)) as client, client.post(mount + path, json={}) as response:
        assert response.status == 424, await response.text()
        assert response.headers["Location"] == f"{mount}/process/t%2F1"


async def test_what_it_has_not_says_what_to_do_instead() -> None:
    app = app_with_answer()
    with pytest.raises(ConfigurationError, match="greenroom serve"):
        await app.deploy(object())
    with pytest.raises(ConfigurationError, match=r"app\.process"):
        app.get_fastapi_app()
    with pytest.raises(ConfigurationError, match="queue of yours"):
        app.task("/long", queue="celery")
    with pytest.raises(ConfigurationError, match="queue of yours"):
        AgentApp(custom_endpoints=[{"path": "/long", "handler": answer, "task_type": True}])


# -- running -----------------------------------------------------------------------------------------------------------


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def app_that_stops(**arguments: Any) -> AgentApp:
    app = app_with_answer(**arguments)
    app.init(stop)
    return app


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Where servers listened."""
    hosts: list[str] = []
    start = AiohttpServer.start

    async def note_and_start(self: AiohttpServer, host: greenroom.Host) -> None:
        hosts.append(self.host)
        await start(self, host)

    monkeypatch.setattr(AiohttpServer, "start", note_and_start)
    yield hosts
    gc.unfreeze()


def test_where_it_listens(served: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greenroom.compat_app.PORT", 0)
    monkeypatch.delenv("HOST", raising=False)
    monkeypatch.delenv("PORT", raising=False)
    app_that_stops().run()
    monkeypatch.setattr("greenroom.compat_app.PORT", -1)
    monkeypatch.setenv("HOST", "localhost")
    monkeypatch.setenv("PORT", "0")
    app_that_stops().run(idle_seconds=3)
    monkeypatch.setenv("PORT", "-1")
    app_that_stops().run("127.0.0.1", port=0)
    assert served == ["127.0.0.1", "localhost", "127.0.0.1"]


def test_what_run_does_not_know_is_for_the_callbacks(served: list[str]) -> None:
    got: list[dict[str, Any]] = []

    def before_start(app: Any, **kwargs: Any) -> None:
        got.append(kwargs)
        stop()

    app_with_answer(before_start=before_start).run(port=0, body_bytes=1000, colour="red")
    assert got == [{"colour": "red"}]


def test_the_web_page_may_call(served: list[str], caplog: pytest.LogCaptureFixture) -> None:
    app_that_stops(endpoint_path="/chat").run(port=0, web_ui=True)
    assert "--url http://localhost:0/chat" in caplog.text
    assert "http://localhost:5173" in caplog.text


def test_a_port_of_the_environment_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "80a")
    with pytest.raises(ConfigurationError, match="the environment's PORT='80a' is no number"):
        app_that_stops().run()


def test_greenroom_serve_serves_it_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "runs_itself.py").write_text(
        "from agentscope_runtime.engine import AgentApp\n"
        "agent_app = AgentApp(app_name='Friday')\n"
        "agent_app.run(host='0.0.0.0', port=8090, web_ui=False)\n"
    )
    before = list(sys.path)
    try:
        with caplog.at_level(logging.WARNING):
            loaded = load_application(str(tmp_path / "runs_itself.py"))
    finally:
        compat.uninstall()
        sys.path[:] = before
        del sys.modules["runs_itself"]
    assert isinstance(loaded, AgentApp)
    assert "--host and --port" in caplog.text
