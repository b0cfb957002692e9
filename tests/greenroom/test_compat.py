"""Applications for AgentScope Runtime find Greenroom under its names."""

import importlib
import sys
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any, get_args

import pytest

import greenroom
import greenroom.sandbox
from greenroom import compat, compat_app, compat_schemas
from greenroom.actors.errors import ConfigurationError
from greenroom.actors.messages import Content, Image, Message, MessageType, Text

TUTORIAL = """
from agentscope_runtime.engine import AgentApp
from agentscope_runtime.engine.schemas.agent_schemas import AgentRequest
from agentscope_runtime.engine.services.agent_state import InMemoryStateService
from agentscope_runtime.engine.services.session_history import InMemorySessionHistoryService
from agentscope_runtime.engine.services.sandbox import SandboxService
from agentscope_runtime.sandbox import BrowserSandbox
"""
MEMORY = "from agentscope_runtime.adapters.agentscope.memory import AgentScopeSessionHistoryMemory"


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    compat.install()
    yield
    compat.uninstall()


def run(code: str) -> dict[str, object]:
    names: dict[str, object] = {}
    exec(code, names)
    return names


def test_the_tutorials_imports() -> None:
    names = run(TUTORIAL)
    assert names["AgentApp"] is compat_app.AgentApp
    assert issubclass(compat_app.AgentApp, greenroom.AgentApp)
    assert names["AgentRequest"] is greenroom.AgentRequest
    assert names["InMemoryStateService"] is greenroom.InMemoryStateService
    assert names["InMemorySessionHistoryService"] is greenroom.InMemorySessionHistoryService
    assert names["SandboxService"] is greenroom.SandboxService
    assert names["BrowserSandbox"] is greenroom.sandbox.BrowserSandbox


@pytest.mark.agentscope1
def test_the_tutorials_memory() -> None:
    assert run(MEMORY)["AgentScopeSessionHistoryMemory"] is greenroom.AgentScopeSessionHistoryMemory


@pytest.mark.agentscope2
def test_the_tutorials_memory_is_of_agentscope_1() -> None:
    with pytest.raises(ImportError, match=r"needs 1\.x: `pip install 'greenroom\[agentscope1\]'`"):
        run(MEMORY)


@pytest.mark.parametrize(
    "code",
    [
        "import agentscope_runtime.engine.app.agent_app as m; found = m.AgentApp",
        "import agentscope_runtime.engine; found = agentscope_runtime.engine.AgentApp",
        "from agentscope_runtime import engine; found = engine.AgentApp",
        "from agentscope_runtime.engine.app import agent_app; found = agent_app.AgentApp",
        "from agentscope_runtime.engine import *; found = AgentApp",
        "import agentscope_runtime as a; found = a.engine.app.AgentApp",
    ],
)
def test_every_way_to_import(code: str) -> None:
    assert run(code)["found"] is compat_app.AgentApp


@pytest.mark.parametrize("module", compat.PROVIDED)
def test_every_name_of_the_table_is_there(module: str) -> None:
    stand_in = importlib.import_module(f"{compat.PREDECESSOR}.{module}".rstrip("."))
    for name in compat.PROVIDED[module]:
        assert name in dir(stand_in)
        if name != "AgentScopeSessionHistoryMemory":
            assert getattr(stand_in, name) is not None


def test_parents_of_every_module_are_in_the_table() -> None:
    named = {*compat.PROVIDED, *compat.AREAS}
    assert {module.rpartition(".")[0] for module in named} <= set(compat.PROVIDED)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("from agentscope_runtime.engine import LocalDeployManager", "greenroom serve"),
        ("from agentscope_runtime.engine.deployers import LocalDeployManager", "greenroom serve"),
        (
            "from agentscope_runtime.engine.deployers.local_deployer import LocalDeployManager",
            "greenroom serve",
        ),
        (
            "from agentscope_runtime.engine.services.session_history import TablestoreSessionHistoryService",
            "PostgreSQL",
        ),
        ("import agentscope_runtime.engine.services.agent_state.state_service_factory", "SQLite file"),
        ("from agentscope_runtime.engine.services.memory import InMemoryMemoryService", "long-term memory"),
        ("from agentscope_runtime.engine.schemas.agent_schemas import BaseResponse", "events"),
        ("from agentscope_runtime.engine.deployers.adapter.a2a import A2AFastAPIDefaultAdapter", "protocols"),
        ("from agentscope_runtime.sandbox.enums import SandboxType", "SandboxSettings"),
        ("from agentscope_runtime.engine.services.sandbox import SandboxServiceFactory", "SandboxService()"),
        ("from agentscope_runtime.tools import ModelstudioSearchLite", "ready-made tools"),
        ("from agentscope_runtime.nowhere import nothing", "issue"),
        ("import agentscope_runtime; agentscope_runtime.nothing", "issue"),
    ],
)
def test_what_is_not_here_says_what_is_in_its_place(code: str, words: str) -> None:
    with pytest.raises(ImportError, match="Greenroom stands in for AgentScope Runtime and has no") as caught:
        run(code)
    assert words in str(caught.value)


def test_looking_at_a_stand_in_is_harmless() -> None:
    engine = importlib.import_module("agentscope_runtime.engine")
    assert not hasattr(engine, "__wrapped__")
    assert engine.__name__ == "agentscope_runtime.engine"
    assert importlib.import_module("agentscope_runtime").__version__.startswith("1.0")


def test_it_goes_as_it_came() -> None:
    before = list(sys.meta_path)
    compat.install()
    assert sys.meta_path == before
    run(TUTORIAL)
    compat.uninstall()
    compat.uninstall()
    assert not any(name.startswith("agentscope_runtime") for name in sys.modules)
    with pytest.raises(ModuleNotFoundError, match="No module named 'agentscope_runtime'"):
        run(TUTORIAL)


def test_an_installed_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "agentscope_runtime" / "engine").mkdir(parents=True)
    (tmp_path / "agentscope_runtime" / "__init__.py").write_text("")
    (tmp_path / "agentscope_runtime" / "engine" / "__init__.py").write_text("AgentApp = 'the real one'")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert run("from agentscope_runtime.engine import AgentApp")["AgentApp"] == "the real one"
        with pytest.raises(ModuleNotFoundError, match=r"No module named 'agentscope_runtime\.sandbox'"):
            run("import agentscope_runtime.sandbox")
    finally:
        for name in [name for name in sys.modules if name.startswith("agentscope_runtime")]:
            del sys.modules[name]


old: Any = compat_schemas  # its classes make others, which type checkers do not see

# -- schemas -----------------------------------------------------------------------------------------------------------


def test_messages_made_by_the_old_names_are_ours() -> None:
    message = old.Message(
        role=old.Role.USER,
        type=old.MessageType.MESSAGE,
        status=old.RunStatus.Created,
        content=[
            old.TextContent(type=old.ContentType.TEXT, text="hi", delta=False),
            old.ImageContent(image_url="http://x/y.png"),
        ],
    )
    assert message == Message((Text("hi"), Image("http://x/y.png")))


def test_the_old_names_recognise_ours() -> None:
    assert isinstance(Text("hi"), old.TextContent)
    assert not isinstance(Text("hi"), old.ImageContent)
    assert isinstance(Message(), old.Message)


def test_wrong_fields_are_refused() -> None:
    with pytest.raises(TypeError):
        old.TextContent(txt="hi")
    with pytest.raises(TypeError, match="'text'"):
        old.TextContent(type="image", text="hi")


@pytest.mark.parametrize("name", ["AgentResponse", "Event"])
def test_what_greenroom_writes_can_be_named_but_not_made(name: str) -> None:
    names = run(f"from agentscope_runtime.engine.schemas.agent_schemas import {name} as found")
    with pytest.raises(ConfigurationError, match=f"no {name} to make: .*events"):
        names["found"](object="response")  # type: ignore[operator]


def test_a_request_as_known_there() -> None:
    plain = Message((Image("http://x/y.png"), Text("hi"), Text("there")), id="m1")
    request = compat_schemas.as_known_there(
        greenroom.AgentRequest(input=(plain, Message()), session_id="s", extra={"colour": "red"})
    )
    assert isinstance(request, greenroom.AgentRequest)
    assert (request.session_id, request.colour) == ("s", "red")
    first, empty = request.input
    assert isinstance(request.input, list)
    assert isinstance(first, Message)
    assert (first.id, [part.type for part in first.content]) == ("m1", ["image", "text", "text"])
    assert isinstance(first.content, list)
    assert isinstance(first, compat_schemas.InputMessage)
    assert first.get_text_content() == "hi"
    assert first.get_image_content() == ["http://x/y.png"]
    assert isinstance(empty, compat_schemas.InputMessage)
    assert (empty.get_text_content(), empty.get_image_content()) == (None, [])


def test_the_type_of_a_part_is_its_tag_on_the_wire() -> None:
    for part in get_args(Content):
        assert part.type == part.__struct_config__.tag


def test_message_types_are_those_of_messages() -> None:
    assert set(old.MessageType.all_values()) == set(get_args(MessageType))


def test_services_on_redis_take_the_arguments_they_took() -> None:
    names = run("""
from agentscope_runtime.engine.services.agent_state import RedisStateService
from agentscope_runtime.engine.services.agent_state.redis_state_service import RedisStateService as same
from agentscope_runtime.engine.services.session_history import RedisSessionHistoryService
""")
    assert names["RedisStateService"] is names["same"] is greenroom.RedisStateService
    assert names["RedisSessionHistoryService"] is greenroom.RedisSessionHistoryService
    connection = ["redis_url", "redis_client", "socket_timeout", "socket_connect_timeout", "max_connections"]
    connection += ["retry_on_timeout", "ttl_seconds"]
    last = ["health_check_interval", "socket_keepalive"]
    states = list(signature(greenroom.RedisStateService).parameters)
    assert states[:9] == [*connection, *last]
    histories = list(signature(greenroom.RedisSessionHistoryService).parameters)
    assert histories[:10] == [*connection, "max_messages_per_session", *last]
