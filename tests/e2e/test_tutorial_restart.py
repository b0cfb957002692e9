"""The tutorial's application with services that outlive it: it remembers after its process was killed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from kits.http_client import body
from kits.redis_server import RedisServer
from kits.server_process import APPS
from kits.stage import Stage, for_installed_line, stage_of
from kits.wire_grammar import check_stream, texts

pytestmark = pytest.mark.slow

STATES: Final = "InMemoryStateService"
HISTORIES: Final = "InMemorySessionHistoryService"


def application(folder: Path, names: tuple[str, str], place: str) -> Path:
    """The tutorial's, for the line that is installed, with these services in the place of those in memory."""
    code = (APPS / for_installed_line("friday_for_{}.py")).read_text()
    for memory, name in zip((STATES, HISTORIES), names, strict=True):
        assert f"{memory}()" in code
        code = code.replace(f"{memory}()", f"{name}({place!r})").replace(memory, name)
    path = folder / "friday.py"
    path.write_text(code)
    return path


async def told(stage: Stage, text: str, session: str) -> list[str]:
    """What it answers."""
    exchange = await stage.client.post(body(text, session, user_id="alice"))
    return texts(check_stream(await exchange.rest()))


async def check_that_it_remembers(app: Path, *options: str) -> None:
    """Tell it a name, kill it, start it, and ask for the name."""
    async with stage_of(str(app), *options) as stage:
        assert await told(stage, "My name is Alice.", "s1") == ["Nice to meet you, Alice."]
        assert await told(stage, "My name is Bob.", "s2") == ["Nice to meet you, Bob."]
        stage.process.process.kill()
        await stage.process.ended()
    async with stage_of(str(app), *options) as stage:
        assert await told(stage, "What is my name?", "s1") == ["Your name is Alice."]
        assert await told(stage, "What is my name?", "s2") == ["Your name is Bob."]
        assert await told(stage, "What is my name?", "s3") == ["You have not told me your name."]


async def test_it_remembers_in_a_file(tmp_path: Path) -> None:
    names = "SqliteStateService", "SqliteSessionHistoryService"
    app = application(tmp_path, names, str(tmp_path / "friday.db"))
    text = app.read_text().replace("agentscope_runtime.engine.services.agent_state", "greenroom")
    app.write_text(text.replace("agentscope_runtime.engine.services.session_history", "greenroom"))
    await check_that_it_remembers(app)


async def test_it_remembers_in_the_file_that_has_its_sessions_too(tmp_path: Path) -> None:
    names = "SqliteStateService", "SqliteSessionHistoryService"
    app = application(tmp_path, names, str(tmp_path / "friday.db"))
    text = app.read_text().replace("agentscope_runtime.engine.services.agent_state", "greenroom")
    app.write_text(text.replace("agentscope_runtime.engine.services.session_history", "greenroom"))
    await check_that_it_remembers(app, "--state", f"sqlite:///{tmp_path}/friday.db")


async def test_it_remembers_on_redis(tmp_path: Path, redis_server: RedisServer) -> None:
    """The imports are AgentScope Runtime's where the application is."""
    names = "RedisStateService", "RedisSessionHistoryService"
    app = application(tmp_path, names, redis_server.url("?prefix=tutorial"))
    await check_that_it_remembers(app)
