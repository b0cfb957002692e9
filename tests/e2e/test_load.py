"""Two hundred tutorial streams at once, on a model whose text takes a second: nobody waits for long, nobody is refused."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from kits.http_client import body
from kits.scripted_model_child import child_model
from kits.server_process import APPS, server
from kits.stage import check_log, for_installed_line

pytestmark = pytest.mark.slow

STREAMS = 200
DELTAS = 20
DELAY = 0.05
"""Seconds between two deltas: DELTAS of them make a text of a second."""
EXTRA_SECONDS = 1.0
"""What p99 of the first text may take beyond the model's own."""

EXAMPLES = Path(__file__).parents[2] / "examples"


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
    print(f"{name}: first text p50 {p50:.2f} s, p99 {p99:.2f} s; whole p99 {whole:.2f} s")
    return p99


@pytest.mark.parametrize("app", ["the tutorial's", "the example", "tutorial", "actor"])
async def test_two_hundred_streams_at_once(app: str) -> None:
    paths = {
        "the tutorial's": str(APPS / for_installed_line("friday_for_{}.py")),
        "the example": str(EXAMPLES / for_installed_line("friday_{}.py").replace("_1", "")),
    }
    path = paths.get(app) or for_installed_line("workshop_for_{}.py") + f":{app}"
    options = ("--script", "steady", "--deltas", str(DELTAS), "--chunk-size", "20", "--delay", str(DELAY))
    async with child_model(*options) as model, aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0)
    ) as http:
        prompt = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Go."}]}
        env = {"OPENAI_API_KEY": "any", "OPENAI_BASE_URL": model.base_url}
        async with server(path, env=env) as running:
            ours = f"{running.url}/process"
            await listen(http, ours, body("Warm up."), servers_text)
            direct = await crowd(
                lambda _: listen(http, f"{model.base_url}/chat/completions", prompt, models_text)
            )
            served = await crowd(
                lambda number: listen(http, ours, body("Go.", f"session {number}"), servers_text)
            )
            assert await running.stop() == 0
            check_log(running.log)
            blocked = running.log.count("has been blocked")
        async with http.get(f"{model.url}/stats") as response:
            stats = await response.json()
    own, measured = report("the model itself", direct), report(app, served)
    print(f"beyond the model's own p99: {measured - own:.2f} s; loop blocked {blocked} times")
    assert {one.text for one in served} == {direct[0].text}
    assert stats["completed"] == 2 * STREAMS + 1
    assert stats["aborted"] == 0
    assert measured - own < EXTRA_SECONDS
