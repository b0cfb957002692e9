"""An application in a server process, the model it thinks with, and a client: what an end-to-end test plays on.

The model runs in the test's own loop, so a test can await what happens inside of a turn: `model.wait_at`,
`model.wait_aborted`. One stage serves many tests: `play` gives it the next script.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from kits.agentscope_line import LINES, installed_line
from kits.http_client import HttpClient, http_client
from kits.scripted_model import ScriptedModel
from kits.scripted_model_script import Reply, Request, Script, as_script, friday, user_texts
from kits.server_process import ServerProcess, server

STOP_SECONDS = 60.0
"""More than a server may take that drains for half as long; what does not stop is killed."""

FAULTS = (
    "was never awaited",
    "was never retrieved",
    "Task was destroyed",
    "defect of Greenroom",
    "did not stop within",
    "which does not stop when cancelled",
    "Exception in callback",
    "Error on transport creation",
    "Unhandled exception",
)
"""What the log of a server says when something went wrong that no answer shows."""


def for_installed_line(name: str) -> str:
    """`name` with the line of AgentScope that is installed: `friday_for_{}.py` becomes `friday_for_2.py`."""
    line = installed_line()
    if line not in LINES:
        pytest.skip("needs AgentScope")
    return name.format(line)


class Stage:
    """A served application, its model and a client."""

    def __init__(self, process: ServerProcess, model: ScriptedModel, client: HttpClient) -> None:
        self.process = process
        self.model = model
        self.client = client
        self._script: Script = friday()
        self._log_seen = 0

    def play(self, script: Script | Sequence[Reply]) -> None:
        """What the model says from now on."""
        self._script = as_script(script)

    def reply(self, request: Request) -> Reply:
        """What the model says: the script that is played decides."""
        return self._script(request)

    @property
    def prompts(self) -> list[list[str]]:
        """What the user had said by each of the model calls of this test."""
        return [user_texts(request) for request in self.model.requests]

    @property
    def log(self) -> str:
        """What the server has logged in this test."""
        return self.process.log[self._log_seen :]

    async def logged(self, text: str) -> None:
        """Wait until the server has logged this. The log comes by a pipe of its own, maybe after the answer."""
        async with asyncio.timeout(20):
            while text not in self.log:  # noqa: ASYNC110 - a test waits for whatever line it likes
                await asyncio.sleep(0)

    async def kept(self, session: str, user: str | None = None) -> dict[str, Any]:
        """What is kept of a session, as the application's `/kept` tells it."""
        params = {"user": user or session, "session": session}
        status, kept = await self.client.json("GET", "/kept", params=params)
        assert status == 200, kept
        return kept

    def begin(self) -> None:
        """A new test: forget what the model was asked before."""
        model = self.model
        self.play(friday())
        model.requests.clear()
        model.aborted = model.completed = 0
        model.script_error = None
        self._log_seen = len(self.process.log)

    async def end(self) -> None:
        """The test is over: no model call may be left, and the server must not have complained."""
        show(self.log)
        async with asyncio.timeout(20):
            await self.model.wait_idle()
        assert self.model.script_error is None
        check_log(self.log)


def show(text: str) -> None:
    """What is worth knowing: pytest shows it when a test fails, and with `-rP`."""
    sys.stdout.write(f"{text}\n")


def check_log(log: str) -> None:
    """Raise AssertionError when a server's log tells of a fault."""
    for fault in FAULTS:
        assert fault not in log, log


def stage_of(app: str, *options: str, **env: str) -> AbstractAsyncContextManager[Stage]:
    """Serve an application of tests/e2e/apps (or a path) in a process of its own. It must stop well at the end."""
    return _stage(app, options, env, by_itself=False)


def stage_of_program(app: str, **env: str) -> AbstractAsyncContextManager[Stage]:
    """The same with `python app.py`, which is to call `app.run`."""
    return _stage(app, (), env, by_itself=True)


@asynccontextmanager
async def _stage(
    app: str, options: Sequence[str], env: Mapping[str, str], *, by_itself: bool
) -> AsyncIterator[Stage]:
    stages: list[Stage] = []
    async with ScriptedModel(lambda request: stages[0].reply(request)) as model:  # noqa: PLW0108 - it is not there yet
        model_env = {"OPENAI_API_KEY": "any", "OPENAI_BASE_URL": model.base_url, **env}
        serving = server(app, *options, env=model_env, by_itself=by_itself)
        async with serving as process, http_client(process.url) as client:
            stages.append(Stage(process, model, client))
            yield stages[0]
            async with asyncio.timeout(STOP_SECONDS):
                if process.process.returncode is None:
                    assert await process.stop() == 0, process.log
            check_log(process.log)


class Door:
    """What a tool waits at: it connects to `address` and reads until somebody opens."""

    def __init__(self) -> None:
        self.address = ""
        self._waiting: list[asyncio.StreamWriter] = []
        self._knocked = asyncio.Condition()
        self.left = asyncio.Event()
        """Set when who waited has gone without waiting for an answer."""

    async def knocked(self, count: int = 1) -> None:
        """Wait until so many are waiting."""
        async with self._knocked:
            await self._knocked.wait_for(lambda: len(self._waiting) >= count)

    def open(self, words: str = "come in") -> None:
        """Answer those who wait."""
        for writer in self._waiting:
            writer.write(words.encode())
            writer.close()
        self._waiting.clear()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One who knocks."""
        async with self._knocked:
            self._waiting.append(writer)
            self._knocked.notify_all()
        await reader.read()
        if writer in self._waiting:
            self._waiting.remove(writer)
            writer.close()
            self.left.set()


@asynccontextmanager
async def a_door() -> AsyncIterator[Door]:
    """A door; at the end it opens, so that no thread is left waiting."""
    door = Door()
    listening = await asyncio.start_server(door.answer, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()
    door.address = f"{host}:{port}"
    try:
        yield door
    finally:
        door.open()
        listening.close()
        await listening.wait_closed()
