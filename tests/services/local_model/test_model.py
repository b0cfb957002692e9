"""The local model, mostly with the real one: fetched when it is not there yet, so the first run takes a while."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import anyio
import httpx
import pytest
from anyio.to_thread import run_sync

from greenroom.actors.errors import ConfigurationError, MissingDependency
from greenroom.services.local_model.cache import fetch_model, installed_model
from greenroom.services.local_model.model import LocalModel, local_model_warning

QUESTION = "What is the capital of France?"
FRIDAY = "You're a helpful assistant named Friday. Keep answers short, correct and in English."


@pytest.fixture(scope="module")
def model_file() -> Path:
    return fetch_model()


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60) as client:
        yield client


def ask(client: httpx.Client, model: LocalModel, text: str, **more: object) -> httpx.Response:
    messages = [{"role": "system", "content": FRIDAY}, {"role": "user", "content": text}]
    return client.post(
        f"{model.base_url}/chat/completions",
        json={"model": model.model, "messages": messages, **more},
        headers={"Authorization": f"Bearer {model.api_key}"},
    )


class TestWithoutOne:
    async def test_no_address_before_the_start(self) -> None:
        model = LocalModel()
        assert repr(model) == "<LocalModel, stopped>"
        assert not await model.health()
        for name in ("base_url", "model", "api_key"):
            with pytest.raises(ConfigurationError, match="await its start\\(\\) first"):
                getattr(model, name)
        await model.stop()

    async def test_not_fetched(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GREENROOM_CACHE", str(tmp_path))
        with pytest.raises(ConfigurationError, match="run `greenroom model install`"):
            await LocalModel().start()

    async def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"no model file at .*mine\.gguf"):
            await LocalModel(tmp_path / "mine.gguf").start()

    async def test_no_xllamacpp(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "xllamacpp", None)
        (tmp_path / "mine.gguf").write_bytes(b"GGUF")
        with pytest.raises(MissingDependency, match=r"pip install 'greenroom\[local\]'"):
            await LocalModel(tmp_path / "mine.gguf").start()

    async def test_another_kind_of_file(self, tmp_path: Path) -> None:
        (tmp_path / "mine.bin").write_bytes(b"PK and so on")
        with pytest.raises(ConfigurationError, match=r"mine\.bin is no model .* a GGUF file"):
            await LocalModel(tmp_path / "mine.bin").start()

    async def test_broken_file(self, tmp_path: Path) -> None:
        (tmp_path / "mine.gguf").write_bytes(b"GGUF and nothing else")
        model = LocalModel(tmp_path / "mine.gguf")
        with pytest.raises(ConfigurationError, match=r"(?s)could not load .*mine\.gguf.*Is the file whole"):
            await model.start()
        assert not await model.health()


def test_warning_says_what_it_is_and_what_to_set() -> None:
    for word in ("tiny", "often wrong", "DASHSCOPE_API_KEY", "OPENAI_API_KEY"):
        assert word in local_model_warning()


@pytest.mark.slow
class TestRealModel:
    async def test_answers(self, model_file: Path, client: httpx.Client) -> None:
        async with LocalModel() as model:
            answer = await run_sync(ask, client, model, QUESTION)
            assert "Paris" in answer.json()["choices"][0]["message"]["content"]
            assert answer.json()["model"] == model.model == "SmolLM2-135M-Instruct.Q4_1"
            assert model.api_key not in repr(model)
            assert await model.health()
        assert not await model.health()

    async def test_own_file_by_its_path(self, model_file: Path, tmp_path: Path, client: httpx.Client) -> None:
        (tmp_path / "mine.gguf").symlink_to(model_file)
        async with LocalModel(str(tmp_path / "mine.gguf")) as model:
            assert model.model == "mine"
            assert (await run_sync(ask, client, model, QUESTION)).status_code == 200

    async def test_strangers_on_this_machine_are_kept_out(
        self, model_file: Path, client: httpx.Client
    ) -> None:
        async with LocalModel() as model:
            url = f"{model.base_url}/chat/completions"
            body = {"messages": [{"role": "user", "content": QUESTION}]}
            answer = await run_sync(
                partial(client.post, url, json=body, headers={"Origin": "http://evil.example"})
            )
            assert answer.status_code == 401
            assert answer.headers.get("access-control-allow-origin", "") != "*"

    async def test_answers_and_conversations_are_bounded(
        self, model_file: Path, client: httpx.Client
    ) -> None:
        async with LocalModel(context=256, max_tokens=8, slots=1) as model:
            story = (await run_sync(ask, client, model, "Tell me a very long story.")).json()
            assert story["usage"]["completion_tokens"] == 8
            too_long = await run_sync(ask, client, model, "rain " * 400)
            assert too_long.status_code == 400
            assert "context" in too_long.json()["error"]["message"]

    async def test_loop_goes_on_while_it_loads(self, model_file: Path) -> None:
        model = LocalModel()
        longest = 0.0

        async def watch() -> None:
            nonlocal longest
            before = time.perf_counter()
            while True:
                await asyncio.sleep(0)
                now = time.perf_counter()
                longest, before = max(longest, now - before), now

        began = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            await model.start()
            tasks.cancel_scope.cancel()
        took = time.perf_counter() - began
        await model.stop()
        assert longest < took / 2

    async def test_cancelled_start_leaves_no_process(self, model_file: Path) -> None:
        model = LocalModel()
        with anyio.move_on_after(0.2):
            await model.start()
        assert not await model.health()
        async with model:  # and can be started again
            assert await model.health()

    async def test_stops_while_it_answers_and_starts_again(self, model_file: Path) -> None:
        model = LocalModel()
        async with httpx.AsyncClient(timeout=60) as client:
            await model.start()
            first_url = model.base_url
            body = {"messages": [{"role": "user", "content": "Tell me a very long story."}], "stream": True}
            headers = {"Authorization": f"Bearer {model.api_key}"}
            async with client.stream(
                "POST", f"{first_url}/chat/completions", json=body, headers=headers
            ) as answer:
                lines = answer.aiter_lines()
                await anext(lines)
                await model.stop()
                with pytest.raises(httpx.HTTPError):
                    await _all_of(lines)
            with pytest.raises(httpx.ConnectError):
                await client.get(f"{first_url}/models")
            await model.start()
            await model.start()  # twice is fine
            headers = {"Authorization": f"Bearer {model.api_key}"}
            assert (await client.get(f"{model.base_url}/models", headers=headers)).status_code == 200
            await model.stop()
            await model.stop()

    async def test_started_again_after_its_process_died(self, model_file: Path) -> None:
        async with LocalModel() as model:
            running = model._running
            assert running is not None
            await run_sync(_kill, running.child)
            assert not await model.health()
            await model.start()
            assert await model.health()


async def _all_of(lines: AsyncIterator[str]) -> list[str]:
    return [line async for line in lines]


def _kill(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


PROGRAM = """
import asyncio, sys
from greenroom.services.local_model.model import LocalModel

async def main():
    model = LocalModel()
    await model.start()
    print(model.base_url, flush=True)
    if sys.argv[1] == "wait":
        await asyncio.Event().wait()
    if sys.argv[1] == "stop":
        await model.stop()

asyncio.run(main())
"""


@pytest.mark.slow
class TestProgramThatHasOne:
    """The model's process inherits standard error, which therefore ends only when both have ended."""

    @pytest.mark.parametrize("way", ["stop", "leave"])
    def test_ends_well(self, model_file: Path, way: str) -> None:
        with _program(way) as program:
            said, errors = program.communicate(timeout=60)
            assert program.returncode == 0
            assert said.startswith(b"http://127.0.0.1:")
            assert errors == b""

    def test_killed_takes_the_model_with_it(self, model_file: Path) -> None:
        with _program("wait") as program:
            assert program.stdout is not None
            assert program.stdout.readline().startswith(b"http://127.0.0.1:")
            program.send_signal(signal.SIGKILL)
            program.communicate(timeout=60)


def _program(way: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", PROGRAM, way]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


@pytest.mark.slow
@pytest.mark.agentscope1
async def test_react_agent_of_agentscope_1(model_file: Path) -> None:
    from agentscope.agent import ReActAgent
    from agentscope.formatter import OpenAIChatFormatter
    from agentscope.message import Msg
    from agentscope.model import OpenAIChatModel

    async with LocalModel() as local:
        model = OpenAIChatModel(
            local.model, api_key=local.api_key, client_kwargs={"base_url": local.base_url}
        )
        agent = ReActAgent("Friday", FRIDAY, model, OpenAIChatFormatter())
        agent.set_console_output_enabled(enabled=False)
        answer = await agent(Msg("user", QUESTION, "user"))
        await model.client.close()
    assert "Paris" in (answer.get_text_content() or "")


@pytest.mark.slow
@pytest.mark.agentscope2
async def test_agent_of_agentscope_2(model_file: Path) -> None:
    from agentscope.agent import Agent, InjectionConfig
    from agentscope.credential import OpenAICredential
    from agentscope.message import UserMsg
    from agentscope.model import OpenAIChatModel

    async with LocalModel() as local:
        credential = OpenAICredential(api_key=local.api_key, base_url=local.base_url)
        model = OpenAIChatModel(credential, local.model, context_size=local.context)
        agent = Agent("Friday", FRIDAY, model, injection_config=InjectionConfig(inject_runtime_state=False))
        answer = await agent.reply(UserMsg("user", QUESTION))
        await model.client.close()
    assert "Paris" in (answer.get_text_content() or "")


@pytest.mark.slow
def test_default_is_what_the_command_installs(model_file: Path) -> None:
    assert installed_model() == model_file
