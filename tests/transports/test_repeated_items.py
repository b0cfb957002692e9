"""Lists of items, when a client says once more what it was told, with the ids that it was told: each item is listed,
each has an id of its own, and reading page by page comes to an end."""

from __future__ import annotations

from typing import Any

import pytest

from greenroom.actors.drafts import NOT_CALLED
from greenroom.actors.messages import Message, Text
from greenroom.services.store import TurnRecord
from greenroom.transports.responses_decode import Settings
from greenroom.transports.session_items import session_items
from kits.memory_app import Memory
from kits.responses_http import ResponsesClient, responses_of
from kits.turns import Telling

MORE = {"role": "user", "content": "two"}
TWICE = [{**MORE, "id": "msg_1"}, {"role": "assistant", "content": "one", "id": "msg_1"}, MORE]


async def page_by_page(client: ResponsesClient, path: str, **query: Any) -> list[dict[str, Any]]:
    """All items of a list, read one at a time; no more are read than there can be."""
    items: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    for _ in range(20):
        page = await client.get(path, limit=1, **query, **after)
        items += page["data"]
        if not page["has_more"]:
            return items
        after = {"after": page["last_id"]}
    raise AssertionError(f"the list has no end: {[item['id'] for item in items]}")


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_a_conversation_that_was_told_what_it_had_said(order: str) -> None:
    async with responses_of(Memory().app) as client:
        first = await client.create("one", conversation="c")
        await client.create([{"role": "user", "content": "one"}, *first["output"], MORE], conversation="c")
        whole = await client.get("/conversations/c/items", order=order)
        assert len(whole["data"]) == 6
        assert await page_by_page(client, "/conversations/c/items", order=order) == whole["data"]
        assert (await client.get("/conversations/c/items", order=order)).body == whole.body


async def test_the_one_that_was_said_first_keeps_its_id_and_either_is_found_and_deleted_alone() -> None:
    async with responses_of(Memory().app) as client:
        first = await client.create("one", conversation="c")
        await client.create([*first["output"], MORE], conversation="c")
        said = (await client.get("/conversations/c/items", order="asc"))["data"]
        ids = [item["id"] for item in said]
        assert ids[1] == first["output"][0]["id"]
        assert said[2] == {**said[1], "id": ids[2]}
        assert (await client.get(f"/conversations/c/items/{ids[2]}")).body == said[2]
        referred = [{"type": "item_reference", "id": ids[2]}, MORE]
        assert (await client.create(referred, conversation="c")).status == 200
        assert (await client.ask("DELETE", f"/conversations/c/items/{ids[1]}")).status == 200
        left = (await client.get("/conversations/c/items", order="asc"))["data"]
        assert [item["id"] for item in left][:4] == [ids[0], *ids[2:5]]


async def test_a_request_that_says_an_id_twice() -> None:
    async with responses_of(Memory().app) as client:
        answer = await client.create(TWICE, conversation="c")
        path = f"/responses/{answer['id']}/input_items"
        items = await page_by_page(client, path, order="asc")
        assert [item["content"][0]["text"] for item in items] == ["two", "one", "two"]
        assert items[0]["id"] == "msg_1"
        listed = await page_by_page(client, "/conversations/c/items", order="asc")
        assert listed[:3] == items


def test_a_turn_of_another_protocol_that_repeats_an_id() -> None:
    message = Message((Text("hi"),), id="m")
    records = [TurnRecord(f"turn-{number}", "completed", 0.0, (message, message)) for number in range(2)]
    items = session_items(records, Settings(model="m", label="m"))
    assert len({item["id"] for item in items}) == 4
    assert items == session_items(records, Settings(model="m", label="m"))


@pytest.mark.parametrize("display", ["function_call", "mcp_call"])
def test_a_call_that_was_broken_off_is_listed_once_with_what_became_of_it(display: Any) -> None:
    told = Telling()
    told.start()
    told.composer.call("c1", "search").arguments('{"q')
    told.composer.close_broken()  # as when its turn is begun once more
    told.complete()
    record = TurnRecord("t", "completed", 1.0, (Message((Text("one"),)),), told.ending.output)
    _, *said = session_items([record], Settings(model="m", label="m", display=display))
    if display == "mcp_call":
        assert [(item["type"], item["output"]) for item in said] == [("mcp_call", NOT_CALLED)]
    else:
        assert [item["type"] for item in said] == ["function_call", "function_call_output"]
        assert {item["call_id"] for item in said} == {"c1"}
