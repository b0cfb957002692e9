"""SIGTERM while real agents are at work: the process ends by the deadline, well, with everything in agreement."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from kits.scripted_model_script import CallTool, Gate, Hang, Say, rules
from kits.stage import Stage, a_door, for_installed_line, stage_of, stage_of_program
from kits.wire_grammar import check_stream, texts

pytestmark = pytest.mark.slow

PATIENCE = 25.0
"""Seconds a stopping server may take on a busy machine; the predecessor took 30, and a SIGKILL."""


def workshop(level: str) -> str:
    return for_installed_line("workshop_for_{}.py") + f":{level}"


async def assert_stops(stage: Stage) -> None:
    async with asyncio.timeout(PATIENCE):
        assert await stage.process.ended() == 0, stage.process.log


@pytest.mark.parametrize("level", ["tutorial", "actor"])
async def test_a_stalled_model_does_not_keep_the_server_from_stopping(level: str, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    async with stage_of(workshop(level), "--drain-seconds", "0.3", NOTES=str(notes)) as stage:
        stage.play(lambda request: [Say("half "), Hang()])
        exchanges = [await stage.client.ask("hello", session) for session in "abc"]
        waiting = await stage.client.ask("and then?", "a")
        for exchange in exchanges:
            assert await exchange.next_text() == "half "
        stage.process.process.send_signal(signal.SIGTERM)
        for exchange in exchanges:
            ending = check_stream(await exchange.rest())
            assert (ending["status"], texts(ending)) == ("canceled", ["half "])
        assert (await waiting.ending())[0] == "cancelled"
        await assert_stops(stage)
        await stage.model.wait_aborted(3)
    assert notes.read_text().split() == ["init", "shutdown"]


async def test_a_turn_that_ends_in_time_is_completed(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    async with stage_of(workshop("actor"), NOTES=str(notes)) as stage:
        stage.play(lambda request: [Say("half "), Gate("go"), Say("and whole.")])
        exchange = await stage.client.ask("hello", "s")
        assert await exchange.next_text() == "half "
        stage.process.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            while (await stage.client.json("GET", "/ready"))[0] == 200:
                pass
        stage.model.open("go")
        assert await exchange.ending() == ("completed", "half and whole.")
        await assert_stops(stage)
    assert notes.read_text().split() == ["init", "shutdown"]


@pytest.mark.parametrize("by_itself", [False, True], ids=["greenroom serve", "app.run"])
async def test_a_tool_that_blocks_its_thread_does_not_keep_the_server_from_stopping(
    by_itself: bool, tmp_path: Path
) -> None:
    """What `python app.py` does after `app.run` it does all the same."""
    notes = tmp_path / "notes"
    if by_itself:
        staged = stage_of_program(for_installed_line("workshop_for_{}.py"), NOTES=str(notes))
    else:
        staged = stage_of(workshop("tutorial"), "--drain-seconds", "0.3", NOTES=str(notes))
    async with a_door() as door, staged as stage:
        stage.play(rules({"knock": CallTool("wait_at_door", {"door": door.address})}))
        exchange = await stage.client.ask("knock", "s")
        await door.knocked()
        stage.process.process.send_signal(signal.SIGTERM)
        assert (await exchange.ending())[0] == "cancelled"
        await assert_stops(stage)
    assert notes.read_text().split() == ["init", "shutdown", *(["returned"] if by_itself else [])]
