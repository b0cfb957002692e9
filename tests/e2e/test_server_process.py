"""A server process from the outside: curl, signals, exit codes."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from pathlib import Path

import pytest

from kits.http_client import http_client
from kits.server_process import server, start

pytestmark = pytest.mark.slow


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "notes"
    monkeypatch.setenv("NOTES", str(path))
    return path


def lines(notes: Path) -> list[str]:
    """What the application's hooks have noted."""
    return notes.read_text().splitlines()


async def curl(*arguments: str) -> str:
    """Run curl; what it printed."""
    program = shutil.which("curl")
    assert program, "curl is needed: apt-get install curl"
    process = await asyncio.create_subprocess_exec(program, "-sN", *arguments, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode()


async def test_the_tutorials_curl_works(notes: Path) -> None:
    question = """{
        "input": [
          {
            "role": "user",
            "content": [
              { "type": "text", "text": "What is the capital of France?" }
            ]
          }
        ]
      }"""
    async with server("plain.py") as running:
        printed = await curl(
            "-X", "POST", f"{running.url}/process", "-H", "Content-Type: application/json", "-d", question
        )
    events = [line.removeprefix("data: ") for line in printed.splitlines() if line]
    assert events[-1] == "[DONE]"
    last = json.loads(events[-2])
    assert (last["object"], last["status"]) == ("response", "completed")
    assert last["output"][0]["content"][0]["text"] == "What is the capital of France?"


async def test_health_ready_routes_and_endpoints(notes: Path) -> None:
    async with server("plain.py") as running:
        assert json.loads(await curl(f"{running.url}/health"))["status"] == "healthy"
        assert json.loads(await curl(f"{running.url}/ready"))["status"] == "ready"
        assert json.loads(await curl(f"{running.url}/"))["name"] == "Plain"
        assert json.loads(await curl(f"{running.url}/double?number=21")) == {"double": 42}
        header = ("-H", "Content-Type: application/json")
        stream = await curl("-X", "POST", f"{running.url}/count", *header, "-d", '{"to": 2}')
        assert [json.loads(line[6:]) for line in stream.splitlines() if line] == [
            {"number": 0},
            {"number": 1},
        ]


async def test_sigterm_lets_running_turns_end_runs_the_hooks_and_exits_0(notes: Path) -> None:
    async with server("plain.py") as running, http_client(running.url) as client:
        exchange = await client.ask("slow 10", "s")
        await exchange.next_text()
        stopping = asyncio.create_task(running.stop())
        assert (await exchange.ending()) == ("completed", "." * 10 + "done")
        assert await stopping == 0
    assert lines(notes) == ["init", "slow done", "shutdown"]


async def test_sigterm_ends_what_stalls_by_the_deadline(notes: Path) -> None:
    async with server("plain.py", "--drain-seconds", "0.3") as running, http_client(running.url) as client:
        exchange = await client.ask("stall", "s")
        await exchange.next_text()
        async with asyncio.timeout(20):
            stopping = asyncio.create_task(running.stop())
            assert (await exchange.ending()) == ("cancelled", "stalling")
            assert await stopping == 0
    assert lines(notes) == ["init", "cancelled", "shutdown"]


async def test_while_draining_it_is_not_ready_and_takes_nothing(notes: Path) -> None:
    async with server("plain.py") as running, http_client(running.url) as client:
        exchange = await client.ask("slow 8", "s")
        await exchange.next_text()
        running.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            while (await client.json("GET", "/ready"))[0] == 200:
                pass
        status, error = await client.json("POST", "/process", json={"input": [{"content": "late"}]})
        assert (status, error["error"]["code"]) == (503, "not_serving")
        assert (await exchange.ending())[0] == "completed"
        assert await running.ended() == 0


async def test_sigint_stops_it_too(notes: Path) -> None:
    async with server("plain.py") as running:
        assert await running.stop(signal.SIGINT) == 0
    assert lines(notes) == ["init", "shutdown"]


async def test_a_second_signal_does_not_wait(notes: Path) -> None:
    async with server("plain.py") as running, http_client(running.url) as client:
        exchange = await client.ask("stall", "s")
        await exchange.next_text()
        running.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            while (await client.json("GET", "/ready"))[0] == 200:
                pass
            assert await running.stop() == -signal.SIGTERM


async def test_a_failed_init_hook_exits_1_in_words_after_the_shutdown_hook(notes: Path) -> None:
    running = await start("plain.py", env={"FAIL_INIT": "1"})
    assert await running.ended() == 1
    assert "the database is not there" in running.log
    assert lines(notes) == ["shutdown"]


async def test_a_taken_port_exits_1_in_words(notes: Path) -> None:
    async with server("plain.py") as running:
        second = await start("plain.py", "--port", running.url.rsplit(":", 1)[1])
        assert await second.ended() == 1
        assert "--port" in second.log
        assert "Traceback" not in second.log


async def test_the_log_names_who_blocked_the_loop(notes: Path) -> None:
    async with server("plain.py") as running, http_client(running.url) as client:
        assert await (await client.ask("block", "the-session")).ending() == ("completed", "blocked")
        await running.stop()
        assert "the event loop has been blocked" in running.log
        assert "the-session" in running.log
        assert "time.sleep(0.6)" in running.log


async def test_no_route_stops_the_server(notes: Path) -> None:
    async with server("plain.py") as running, http_client(running.url) as client:
        for path in ("/shutdown", "/stop", "/admin/shutdown", "/process/shutdown"):
            for method in ("GET", "POST", "DELETE"):
                status, _ = await client.json(method, path)
                assert status in (404, 405, 415)
        assert (await client.json("GET", "/ready"))[0] == 200
