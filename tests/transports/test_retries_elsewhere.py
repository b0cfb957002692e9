"""Clients that go, and SDKs that send their request again, while their turn waits for a session that another process
works on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kits.app_pair import Side, app_pair
from kits.responses_http import BASE_PATH
from kits.until import until

RESPONSES, CHAT = f"{BASE_PATH}/responses", f"{BASE_PATH}/chat/completions"
WORDS = [{"role": "user", "content": "hi"}]
REQUESTS = [
    pytest.param(RESPONSES, {"input": "hi", "conversation": "s"}, id="response"),
    pytest.param(RESPONSES, {"input": "hi", "conversation": "s", "stream": True}, id="streamed response"),
    pytest.param(RESPONSES, {"input": "hi", "session_id": "s", "store": False}, id="response not stored"),
    pytest.param(RESPONSES, {"input": "hi", "session_id": "s", "disconnect": "grace"}, id="with a grace"),
    pytest.param(CHAT, {"messages": WORDS, "session_id": "s"}, id="completion"),
    pytest.param(CHAT, {"messages": WORDS, "session_id": "s", "stream": True}, id="streamed completion"),
]


def count(number: int) -> dict[str, str]:
    return {"x-stainless-retry-count": str(number)}


def runs(*sides: Side) -> Counter[str]:
    return sum((side.memory.runs for side in sides), Counter[str]())


@pytest.mark.parametrize(("path", "asked"), REQUESTS)
async def test_who_asks_again_while_his_turn_waits_for_another_process_joins_it(
    path: str, asked: dict[str, Any], tmp_path: Path
) -> None:
    async with app_pair(tmp_path) as (here, there):
        running = await here.client.plain.ask("wait", "s")
        for number in range(3):
            await there.leave(await there.begin_to_ask(path, json=asked, headers=count(number)))
        last = await there.begin_to_ask(path, json=asked, headers=count(3))
        here.memory.gate.set()
        assert await running.ending() == ("completed", "…wait")
        assert (await last).status == 200
        assert runs(here, there) == {"wait": 1, "hi": 1}


async def test_one_whose_turn_was_cancelled_as_he_left_begins_it(tmp_path: Path) -> None:
    asked = {"input": "hi", "conversation": "s", "disconnect": "cancel"}
    async with app_pair(tmp_path) as (here, there):
        running = await here.client.plain.ask("wait", "s")
        asking = await there.begin_to_ask(RESPONSES, json=asked, headers=count(0))
        await until(lambda: bool(there.followed))
        (log,) = there.followed
        await there.leave(asking)
        await until(lambda: log.terminal is not None)
        again = await there.begin_to_ask(RESPONSES, json=asked, headers=count(1))
        here.memory.gate.set()
        await running.ending()
        assert (await again).text == "wait/hi"
        assert runs(here, there) == {"wait": 1, "hi": 1}


async def test_two_that_ask_the_same_have_a_turn_each(tmp_path: Path) -> None:
    asked = {"input": "hi", "conversation": "s"}
    async with app_pair(tmp_path) as (here, there):
        running = await here.client.plain.ask("wait", "s")
        for _ in range(2):
            await there.leave(await there.begin_to_ask(RESPONSES, json=asked, headers=count(0)))
        again = [await there.begin_to_ask(RESPONSES, json=asked, headers=count(1)) for _ in range(2)]
        here.memory.gate.set()
        await running.ending()
        assert len({(await asking)["id"] for asking in again}) == 2
        assert runs(here, there) == {"wait": 1, "hi": 2}


async def test_what_waited_in_the_conversation_goes_to_the_turn_whose_client_went(tmp_path: Path) -> None:
    async with app_pair(tmp_path) as (here, there):
        made = await there.ask(
            f"{BASE_PATH}/conversations", json={"items": [{"role": "user", "content": "item"}]}
        )
        conversation = made["id"]
        running = await here.ask(
            RESPONSES, json={"input": "wait", "conversation": conversation, "background": True}
        )
        assert running.status == 200
        items = {"items": [{"role": "user", "content": "more"}]}
        assert (await there.ask(f"{BASE_PATH}/conversations/{conversation}/items", json=items)).status == 200
        first, second = ({"input": text, "conversation": conversation} for text in ("one", "two"))
        await there.leave(await there.begin_to_ask(RESPONSES, json=first))
        asking = await there.begin_to_ask(RESPONSES, json=second)
        here.memory.gate.set()
        assert (await asking).status == 200
        assert runs(here, there) == {"item+wait": 1, "more+one": 1, "two": 1}
