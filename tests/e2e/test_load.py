"""Two hundred tutorial streams at once, on a model whose text takes a second: nobody is refused or waits for long."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from kits.http_client import body
from kits.scripted_model_child import child_model
from kits.server_process import APPS, server
from kits.stage import check_log, for_installed_line, show

pytestmark = pytest.mark.slow

STREAMS = 200
DELTAS = 20
DELAY = 0.05
"""Seconds between two deltas: DELTAS of them make a text of a second."""
EXTRA_SECONDS = 1.0
"""What p99 of the first text may take beyond that of AgentScope alone, which includes the model's own."""
ROUNDS = 3

ROOT = Path(__file__).parents[2]


class Heard(NamedTuple):
    """One stream: seconds to its first text and to its end, and its text."""

    first: float
    whole: float
    text: str


async def listen(http: aiohttp.ClientSession, url: str, request: Any, text_in: Callable[[Any], str]) -> Heard:
    """Post a request and hear the stream. `text_in`: the new text in an event."""
    started = time.perf_counter()
    first = 0.0
    text = ""
    async with http.post(url, json=request) as response:
        assert response.status == 200, await response.text()
        done = False
        async for line in response.content:
            if line == b"data: [DONE]\n":
                done = True
            elif line.startswith(b"data: "):
                said = text_in(json.loads(line[6:]))
                if said and not first:
                    first = time.perf_counter() - started
                text += said
        assert done, "the stream ended without [DONE]"
    return Heard(first, time.perf_counter() - started, text)


def models_text(event: Any) -> str:
    choices = event["choices"]
    return (choices[0]["delta"].get("content") or "") if choices else ""


def servers_text(event: Any) -> str:
    if event["object"] == "response":
        assert event["status"] in ("created", "in_progress", "completed"), event["error"]
    return event["text"] if event["object"] == "content" and event["delta"] else ""


async def crowd(ask: Callable[[int], Awaitable[Heard]]) -> list[Heard]:
    return await asyncio.gather(*map(ask, range(STREAMS)))


def percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) * percent // 100, len(values) - 1)]


def report(name: str, heard: list[Heard]) -> float:
    """Print the figures; p99 of the first text."""
    first = [one.first for one in heard]
    p50, p99 = percentile(first, 50), percentile(first, 99)
    whole = percentile([one.whole for one in heard], 99)
    show(f"{name}: first text p50 {p50:.2f} s, p99 {p99:.2f} s; whole p99 {whole:.2f} s")
    return p99


async def agentscope_alone(env: Mapping[str, str]) -> float:
    """p99 of the first text of as many agents in a process without a server."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(APPS / "bare.py"),
        str(STREAMS),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **env, "PYTHONPATH": f"{APPS}{os.pathsep}{ROOT}"},
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    told = json.loads(printed)
    p99 = percentile(told["first"], 99)
    show(f"AgentScope alone: first text p99 {p99:.2f} s; CPU {told['cpu'] / STREAMS * 1000:.1f} ms a turn")
    return p99


async def test_two_hundred_tutorial_streams_at_once() -> None:
    """The first texts come within a second of the model's own and the time AgentScope itself takes for so many.

    On one core it takes 6 ms (1.x) and 10 ms (2.x) of CPU to a turn's first text: for 200 at once 1.3 s and 2 s,
    whoever serves them. The machine may have other things to do, so the best of some rounds counts.
    """
    options = ("--script", "steady", "--deltas", str(DELTAS), "--chunk-size", "20", "--delay", str(DELAY))
    beyond: list[float] = []
    async with (
        child_model(*options) as model,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
    ):
        prompt = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Go."}]}
        env = {"OPENAI_API_KEY": "any", "OPENAI_BASE_URL": model.base_url}
        async with server(for_installed_line("friday_for_{}.py"), env=env) as running:
            models, ours = f"{model.base_url}/chat/completions", f"{running.url}/process"
            await listen(http, ours, body("Warm up."), servers_text)
            while len(beyond) < ROUNDS and min(beyond, default=EXTRA_SECONDS) >= EXTRA_SECONDS:
                direct = await crowd(lambda _: listen(http, models, prompt, models_text))
                alone = await agentscope_alone(env)
                served = await crowd(
                    lambda number: listen(http, ours, body("Go.", f"s{number}"), servers_text)
                )
                assert {one.text for one in served} == {direct[0].text}
                own, measured = report("the model itself", direct), report("the tutorial", served)
                show(
                    f"beyond the model: {measured - own:.2f} s, of which AgentScope alone: {alone - own:.2f} s"
                )
                beyond.append(measured - alone)
            assert await running.stop() == 0
            check_log(running.log)
        async with http.get(f"{model.url}/stats") as response:
            assert (await response.json())["aborted"] == 0
    assert min(beyond) < EXTRA_SECONDS
