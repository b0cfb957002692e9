"""Requests that name themselves, sent again to a server that was killed in between, and to two servers at once."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from greenroom.transports.idempotency import HEADER
from greenroom.transports.sse import SSEParser
from kits.http_client import body, http_client
from kits.server_process import ServerProcess, server

pytestmark = pytest.mark.slow

BASE = "/compatible-mode/v1"
REQUESTS = {
    "process": ("/process", body("hello there", "s")),
    "task": ("/process/task", body("hello there", "s")),
    "responses": (f"{BASE}/responses", {"input": "hello there", "stream": True, "session_id": "s"}),
    "responses, whole": (f"{BASE}/responses", {"input": "hello there"}),
    "chat": (
        f"{BASE}/chat/completions",
        {"messages": [{"role": "user", "content": "hello there"}], "session_id": "s"},
    ),
    "responses, not kept": (f"{BASE}/responses", {"input": "hello there", "store": False}),
    "chat, not kept": (
        f"{BASE}/chat/completions",
        {"messages": [{"role": "user", "content": "hello there"}], "stream": True},
    ),
}


def options(folder: Path) -> tuple[str, str]:
    return "--state", f"sqlite:///{folder}/sessions.db?lease_seconds=1"


def environment(folder: Path) -> dict[str, str]:
    return {"NOTES": str(folder / "notes")}


async def ask(running: ServerProcess, path: str, request: Any, **headers: str) -> tuple[int, bytes]:
    async with (
        http_client(running.url) as client,
        client.http.post(client.url + path, json=request, headers=headers) as response,
    ):
        return response.status, await response.read()


@pytest.mark.parametrize("request_", REQUESTS)
async def test_a_repeat_gets_the_same_answer_after_a_kill(request_: str, tmp_path: Path) -> None:
    path, request = REQUESTS[request_]
    async with server("plain.py", *options(tmp_path), env=environment(tmp_path)) as first:
        answers = await asyncio.gather(*(ask(first, path, request, **{HEADER: "k"}) for _ in range(5)))
        assert len(set(answers)) == 1
        assert answers[0][0] == 200
        await first.stop(signal.SIGKILL)
    async with server("plain.py", *options(tmp_path), env=environment(tmp_path)) as second:
        assert await ask(second, path, request, **{HEADER: "k"}) == answers[0]
        status, refused = await ask(second, path, {**request, "user": "another"}, **{HEADER: "k"})
        assert status == (409 if path.startswith("/process") else 400)
        assert b"idempotency_key_reused" in refused
        assert await second.stop() == 0, second.log


async def test_a_stream_goes_on_after_a_kill(tmp_path: Path) -> None:
    request = body("hello there", "s")
    async with server("plain.py", *options(tmp_path), env=environment(tmp_path)) as first:
        _, stream = await ask(first, "/process", request, **{HEADER: "k"})
        *events, _ = SSEParser().feed(stream)
        await first.stop(signal.SIGKILL)
    async with server("plain.py", *options(tmp_path), env=environment(tmp_path)) as second:
        for last in range(len(events) - 1):
            _, rest = await ask(second, "/process", request, **{HEADER: "k", "Last-Event-ID": str(last)})
            assert SSEParser().feed(rest)[:-1] == events[last + 1 :]


async def test_two_servers_that_are_asked_at_once_run_one_turn(tmp_path: Path) -> None:
    """Whoever is second waits for the turn of the first, and tells it as that one does."""
    async with (
        server("plain.py", *options(tmp_path), env=environment(tmp_path)) as one,
        server("plain.py", *options(tmp_path), env=environment(tmp_path)) as other,
    ):
        asked = [
            ask(
                running,
                "/process",
                body("slow 5", f"s{number}", id=f"turn{number}"),
                **{HEADER: f"k{number}"},
            )
            for number in range(3)
            for running in (one, other)
        ]
        answers = await asyncio.gather(*asked)
        for first, second in zip(answers[::2], answers[1::2], strict=True):
            assert first == second
            assert first[0] == 200, first
    assert (tmp_path / "notes").read_text().count("slow done") == 3


UNKEPT: dict[str, tuple[str, dict[str, Any]]] = {
    "responses": (f"{BASE}/responses", {"input": "slow 3", "store": False}),
    "chat": (f"{BASE}/chat/completions", {"messages": [{"role": "user", "content": "slow 3"}]}),
}


@pytest.mark.parametrize("protocol", UNKEPT)
async def test_two_servers_give_one_answer_of_which_nothing_is_kept(protocol: str, tmp_path: Path) -> None:
    """At the same time, one after the other, and when the one that gave it is gone."""
    path, request = UNKEPT[protocol]
    async with (
        server("plain.py", *options(tmp_path), env=environment(tmp_path)) as one,
        server("plain.py", *options(tmp_path), env=environment(tmp_path)) as other,
    ):
        first, *more = await asyncio.gather(
            *(ask(running, path, request, **{HEADER: "k"}) for running in (one, other, one, other))
        )
        assert first[0] == 200
        assert more == [first] * 3
        for running in (one, other):
            assert await ask(running, path, request, **{HEADER: "k"}) == first
            assert (await ask(running, path, {**request, "user": "x"}, **{HEADER: "k"}))[0] == 400
            assert await retrieved(running, json.loads(first[1])["id"]) == 404
        await one.stop(signal.SIGKILL)
        assert await ask(other, path, request, **{HEADER: "k"}) == first
        assert await other.stop() == 0, other.log
    async with server("plain.py", *options(tmp_path), env=environment(tmp_path)) as third:
        assert await ask(third, path, request, **{HEADER: "k"}) == first
    assert (tmp_path / "notes").read_text().count("slow done") == 1


async def retrieved(running: ServerProcess, response_id: str) -> int:
    async with (
        http_client(running.url) as client,
        client.http.get(f"{client.url}{BASE}/responses/{response_id}") as response,
    ):
        return response.status


async def test_one_whose_server_was_killed_amid_it_has_failed_for_repeats(tmp_path: Path) -> None:
    request = {"input": "stall", "store": False, "stream": True}
    async with (
        server("plain.py", *options(tmp_path), env=environment(tmp_path)) as one,
        server("plain.py", *options(tmp_path), env=environment(tmp_path)) as other,
        http_client(one.url) as client,
    ):
        async with client.http.post(
            f"{client.url}{BASE}/responses", json=request, headers={HEADER: "k"}
        ) as stream:
            await stream.content.readline()  # it runs
            repeat = asyncio.create_task(ask(other, f"{BASE}/responses", request, **{HEADER: "k"}))
            await one.stop(signal.SIGKILL)
        status, heard = await asyncio.wait_for(repeat, 60)
        assert status == 200
        assert b"turn_interrupted" in heard
        assert await ask(other, f"{BASE}/responses", request, **{HEADER: "k"}) == (status, heard)
