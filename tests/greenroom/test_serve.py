"""Loading applications, serving them until a signal, and the logs."""

import asyncio
import gc
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from greenroom import AgentApp, AiohttpServer, compat
from greenroom.actors.errors import ConfigurationError
from greenroom.load import LoadFailed, NoSuchApplication, load_application, parse
from greenroom.logs import TALKATIVE, configure_logging
from greenroom.serve import banner, run_application, serve, url_of

ECHO = """
from agentscope_runtime.engine import AgentApp

app = AgentApp(app_name="Echo")

@app.query(framework="text")
def answer(self, msgs, **kwargs):
    yield "hello"

if __name__ == "__main__":
    raise SystemExit("this is not for greenroom serve")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder; what is imported in a test is forgotten after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = dict(sys.modules)
    yield tmp_path
    compat.uninstall()
    for name in [
        name for name, module in sys.modules.items() if name not in modules and "greenroom" not in str(module)
    ]:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


# -- loading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["app.py", "app.py:app", "./app.py", "app", "app:app"])
def test_an_application_is_found_however_it_is_named(folder: Path, spec: str) -> None:
    (folder / "app.py").write_text(ECHO)
    app = load_application(spec)
    assert isinstance(app, AgentApp)
    assert app.app_name == "Echo"


def test_packages_and_neighbours_are_found(folder: Path) -> None:
    (folder / "agents").mkdir()
    (folder / "agents" / "names.py").write_text("NAME = 'Friday'")
    (folder / "agents" / "friday.py").write_text(
        ECHO.replace('"Echo"', "NAME").replace("app =", "from names import NAME\napp =")
    )
    assert load_application("agents/friday.py").app_name == "Friday"
    (folder / "pack").mkdir()
    (folder / "pack" / "main.py").write_text(ECHO.replace("Echo", "Packed"))
    assert load_application("pack.main:app").app_name == "Packed"


def test_a_file_whose_name_is_taken_is_loaded_all_the_same(folder: Path) -> None:
    (folder / "json.py").write_text(ECHO)
    (folder / "my-app.py").write_text(ECHO)
    taken = sys.modules["json"]
    sys.path.insert(0, str(folder))  # so that loading does not put the file in front of the real module
    assert load_application("json.py").app_name == "Echo"
    assert load_application("my-app.py").app_name == "Echo"
    assert sys.modules["json"] is taken


def test_two_names_for_one_application_are_one(folder: Path) -> None:
    (folder / "app.py").write_text(ECHO + "\nalias = app\n")
    assert load_application("app.py").app_name == "Echo"


@pytest.mark.parametrize(
    ("spec", "code", "words"),
    [
        ("missing.py", "", "there is no file missing.py"),
        ("missing.py:app", "", "there is no file missing.py"),
        ("no.such.module", "", "there is no module no"),
        ("what is this", "", "names neither a file nor a module"),
        (".", "", "neither"),
        ("./", "", "is a folder"),
        (
            "app.py",
            "from agentscope_runtime.engine import AgentApp\na, b = AgentApp(), AgentApp()",
            "app.py:a",
        ),
        (
            "app.py",
            "class Agent: ...\ndef make(): ...\nimport os\nnumber = 3",
            "Agent (a class), make (a function), number",
        ),
        ("app.py", "", "it has nothing; make one: `app = AgentApp()`"),
        ("app.py:nope", ECHO, "app.py has no 'nope'; it has app"),
        ("app.py:answer", ECHO, "'answer' of app.py is a function, not an AgentApp; it has app"),
    ],
)
def test_what_cannot_be_found_is_said(folder: Path, spec: str, code: str, words: str) -> None:
    (folder / "app.py").write_text(code)
    with pytest.raises(NoSuchApplication) as caught:
        load_application(spec)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("package/app.py", "greenroom serve package.app:app"),
        ("package/part/app.py", "greenroom serve package.part.app:app"),
        ("package/app.py:friday", "greenroom serve package.app:friday"),
    ],
)
def test_a_file_of_a_package_is_to_be_named_as_a_module(folder: Path, file: str, named: str) -> None:
    (folder / "package" / "part").mkdir(parents=True)
    for package in (folder / "package", folder / "package" / "part"):
        (package / "__init__.py").touch()
        (package / "helper.py").touch()
        (package / "app.py").write_text("from . import helper\n" + ECHO)
    with pytest.raises(LoadFailed, match=re.escape(named)):
        load_application(file)


def test_a_file_called_like_agentscope_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "agentscope", raising=False)
    (folder / "agentscope.py").write_text("from agentscope.no_such_part import Agent")
    with pytest.raises(LoadFailed, match=re.escape(f"{folder / 'agentscope.py'} is called like AgentScope")):
        load_application("agentscope.py")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("from . import helper", "without the dot"),
        ("import nonexistent_package.part", "pip install nonexistent_package"),
        ("from json import no_such_name", "cannot import name 'no_such_name'"),
        ("from agentscope.nowhere import Thing", "greenroom[agentscope1]"),
        ("from agentscope_runtime.engine import LocalDeployManager", "in its place"),
        ("def f(:\n  pass", "SyntaxError"),
        ("value = {}['key']", "KeyError: 'key'"),
        ("import sys; sys.exit(3)", "sys.exit(3)"),
        ("from greenroom import AgentApp\nAgentApp().run()", "__main__"),
        ("from greenroom import AgentApp\n@AgentApp().query\ndef f(): ...", "parentheses"),
    ],
)
def test_a_file_that_fails_shows_its_own_part_of_the_traceback(folder: Path, code: str, words: str) -> None:
    (folder / "app.py").write_text(code)
    with pytest.raises(LoadFailed) as caught:
        load_application("app.py")
    message = caught.value.message
    assert words in message
    assert "importlib" not in message
    assert "load.py" not in message
    assert "sys.exit" in words or 'app.py", line' in message


def test_a_path_of_windows_is_no_name() -> None:
    with pytest.raises(NoSuchApplication, match="no file"):
        parse("C:\\agents\\app.py")


# -- serving -----------------------------------------------------------------------------------------------------------


def greeting_app(**options: float) -> AgentApp:
    app = AgentApp("Greeter", **options)  # type: ignore[arg-type]

    @app.query(framework="text")
    async def answer() -> AsyncIterator[str]:
        yield "hello"

    return app


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_serves_until_a_signal(number: signal.Signals) -> None:
    app = greeting_app()
    ended: list[str] = []
    app.shutdown(lambda: ended.append("shutdown"))
    urls = asyncio.Queue[str]()
    serving = asyncio.create_task(serve(app, port=0, started=urls.put_nowait))
    url = await urls.get()
    async with aiohttp.ClientSession() as client, client.get(f"{url}/ready") as response:
        assert response.status == 200
    os.kill(os.getpid(), number)
    await serving
    assert ended == ["shutdown"]


async def test_a_signal_while_it_starts_stops_it() -> None:
    app = greeting_app()
    begun = asyncio.Event()
    ended: list[str] = []
    app.shutdown(lambda: ended.append("shutdown"))

    @app.init
    async def forever() -> None:
        begun.set()
        await asyncio.Event().wait()

    serving = asyncio.create_task(serve(app, port=0))
    await begun.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await serving
    assert ended == ["shutdown"]


async def test_what_fails_at_the_start_is_raised() -> None:
    app = greeting_app()

    @app.init
    async def fail() -> None:
        raise ValueError("no database")

    with pytest.raises(ValueError, match="no database"):
        await serve(app, port=0)


async def test_a_port_that_is_taken_is_said() -> None:
    first = AiohttpServer(port=0)
    async with _running(first):
        with pytest.raises(ConfigurationError, match=str(first.port)):
            await serve(greeting_app(), port=first.port)


def _running(server: AiohttpServer) -> AgentApp:
    app = AgentApp("First", transports=[server])

    @app.query(framework="text")
    def answer() -> str:
        return "hello"

    return app


async def test_an_application_with_its_own_server_is_served_by_it() -> None:
    server = AiohttpServer(port=0)
    app = _running(server)
    app.init(lambda: os.kill(os.getpid(), signal.SIGTERM))
    await serve(app, started=pytest.fail)
    assert server.port != 0


def test_an_application_does_not_serve_while_it_is_loaded(folder: Path) -> None:
    (folder / "app.py").write_text("from greenroom import AgentApp\napp = AgentApp()\napp.run()")
    with pytest.raises(LoadFailed, match="if __name__"):
        load_application("app.py")
    with pytest.raises(ConfigurationError, match="nothing to answer with"):
        run_application(AgentApp(), port=0)  # loading is over: it would serve


def test_who_owns_the_process_lets_the_collector_forget() -> None:
    gc.unfreeze()
    app = greeting_app()
    app.init(lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        run_application(app, port=0)
        assert gc.get_freeze_count() > 1000
    finally:
        gc.unfreeze()


async def test_an_embedded_application_leaves_the_collector_alone() -> None:
    frozen = gc.get_freeze_count()
    urls = asyncio.Queue[str]()
    serving = asyncio.create_task(serve(greeting_app(), port=0, started=urls.put_nowait))
    await urls.get()
    assert gc.get_freeze_count() == frozen
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_the_log_says_where_sessions_are_kept_and_no_password(caplog: pytest.LogCaptureFixture) -> None:
    app = greeting_app()
    app.init(lambda: os.kill(os.getpid(), signal.SIGTERM))
    with caplog.at_level(logging.INFO, "greenroom"):
        await serve(app, port=0)
    assert re.search(r"Greeter is served at http://\S+ with its sessions in memory", caplog.text)
    for url in ("redis://ann:{}@host:1/0", "postgresql://host/db?user=ann&password={}&sslmode=require"):
        assert AgentApp(state=url.format("s3cret")).kept_in == url.format("***")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("::", "http://[::1]:1"),
        ("::1", "http://[::1]:1"),
        ("friday.example", "http://friday.example:1"),
    ],
)
def test_urls(host: str, url: str) -> None:
    assert url_of(host, 1) == url


def test_the_banner_can_be_followed() -> None:
    shown = banner("Friday", "http://127.0.0.1:8090")
    assert "greenroom chat http://127.0.0.1:8090\n" in shown
    assert "curl -N http://127.0.0.1:8090/process" in shown
    body = json.loads(shown.partition("-d '")[2].partition("'\n")[0])
    assert body["input"][0]["content"] == "Hello"


# -- logs --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    talkative = {name: logging.getLogger(name).level for name in TALKATIVE}
    yield root
    for name, before in talkative.items():
        logging.getLogger(name).setLevel(before)
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def logged(stream: io.StringIO, **options: str) -> str:
    configure_logging(stream=stream, **options)  # type: ignore[arg-type]
    try:
        raise ValueError("wrong \ud83d")
    except ValueError:
        logging.getLogger("greenroom.test").exception("it %s", "failed")
    logging.getLogger("greenroom.test").debug("quiet")
    return stream.getvalue()


def test_logs_are_readable(root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    plain = logged(io.StringIO())
    assert " ERROR   greenroom.test: it failed\nTraceback" in plain
    assert "\x1b" not in plain
    assert "quiet" not in plain
    assert "\x1b[31mERROR" in logged(Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in logged(Terminal(), level="debug")


def test_logs_as_json(root_logger: logging.Logger) -> None:
    entry = json.loads(logged(Terminal(), log_format="json"))
    assert (entry["level"], entry["logger"], entry["message"]) == ("error", "greenroom.test", "it failed")
    assert "ValueError: wrong" in entry["exception"]
    assert entry["time"].endswith("+00:00")


@pytest.mark.parametrize(
    ("level", "shown"), [("debug", [True, True]), ("info", [False, True]), ("error", [False, False])]
)
@pytest.mark.parametrize("name", ["httpx", "httpx2", "httpcore", "openai", "openai._base_client"])
def test_model_clients_do_not_tell_of_every_call(
    root_logger: logging.Logger, name: str, level: str, shown: list[bool]
) -> None:
    stream = io.StringIO()
    configure_logging(level, stream=stream)
    logger = logging.getLogger(name)
    logger.info("HTTP Request: POST")
    logger.warning("retrying")
    assert ["POST" in stream.getvalue(), "retrying" in stream.getvalue()] == shown


def test_a_server_may_have_as_many_open_files_as_the_system_lets_it() -> None:
    code = (
        "import resource as r; _, most = r.getrlimit(r.RLIMIT_NOFILE); r.setrlimit(r.RLIMIT_NOFILE, (256, most));"
        "from greenroom.open_files import ENOUGH, raise_open_files; raise_open_files();"
        "soft, hard = r.getrlimit(r.RLIMIT_NOFILE); assert hard == most;"
        "assert soft == (ENOUGH if most == r.RLIM_INFINITY else min(most, ENOUGH)), soft"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
