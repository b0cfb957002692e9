"""Conversations over HTTP: sessions by another name, with items that a client puts in and takes out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from greenroom import AgentApp, Limits
from greenroom.actors.errors import StoreUnavailable
from greenroom.actors.events import ItemDone, ItemStarted, PartDone, TextDelta
from greenroom.actors.messages import SessionKey, Text, ToolCall, ToolOutput
from greenroom.services.conversation_store import Change, Conversation, InMemoryConversations
from kits.memory_app import Memory
from kits.responses_http import Answer, ResponsesClient, responses_of

USER = {"role": "user", "content": "hello"}


async def created(client: ResponsesClient, **fields: Any) -> str:
    """A new conversation's id."""
    answer = await client.ask("POST", "/conversations", json=fields)
    assert answer.status == 200, answer
    conversation_id: str = answer["id"]
    return conversation_id


async def texts(client: ResponsesClient, conversation_id: str, **query: Any) -> list[str]:
    """What the items say, oldest first."""
    page = await client.get(f"/conversations/{conversation_id}/items", order="asc", limit=100, **query)
    return [item["content"][0]["text"] for item in page["data"]]


async def add(client: ResponsesClient, conversation_id: str, *items: Any) -> Answer:
    return await client.ask("POST", f"/conversations/{conversation_id}/items", json={"items": list(items)})


class Unsure(InMemoryConversations):
    """`fails`: the next change is done, and who asked for it is told that nobody knows."""

    fails = False

    async def change(self, key: SessionKey, change: Change) -> Conversation | None:
        made = await super().change(key, change)
        if self.fails:
            self.fails = False
            raise StoreUnavailable("the connection broke", maybe_done=True)
        return made


async def test_items_that_may_have_been_put_in_are_not_sent_again() -> None:
    conversations = Unsure()
    async with responses_of(Memory(conversations=conversations).app) as client:
        conversation_id = await created(client)
        conversations.fails = True
        answer = await add(client, conversation_id, USER)
        assert (answer.status, answer.headers.get("x-should-retry")) == (503, "false")
        assert await texts(client, conversation_id) == ["hello"]


# -- the conversation itself ---------------------------------------------------------------------------------------


async def test_a_conversation_from_its_creation_to_its_end() -> None:
    async with responses_of(Memory().app) as client:
        made = await client.ask("POST", "/conversations", json={"metadata": {"topic": "a"}})
        assert set(made.body) == {"id", "object", "created_at", "metadata"}
        assert (made["object"], made["metadata"]) == ("conversation", {"topic": "a"})
        assert made["id"].startswith("conv_")
        assert isinstance(made["created_at"], int)
        path = f"/conversations/{made['id']}"
        assert (await client.get(path)).body == made.body
        changed = await client.ask("POST", path, json={"metadata": {"topic": "b"}})
        assert changed["metadata"] == {"topic": "b"}
        assert (await client.get(path)).body == changed.body
        deleted = await client.ask("DELETE", path)
        assert deleted.body == {"id": made["id"], "object": "conversation.deleted", "deleted": True}
        assert (await client.get(path)).error["code"] == "conversation_not_found"


async def test_a_conversation_needs_nothing_to_begin_with() -> None:
    async with responses_of(Memory().app) as client:
        assert (await client.ask("POST", "/conversations")).status == 200
        conversation_id = await created(client)
        assert (await client.get(f"/conversations/{conversation_id}/items")).body == {
            "object": "list",
            "data": [],
            "first_id": "",
            "last_id": "",
            "has_more": False,
        }


async def test_a_response_that_goes_on_from_its_newest_is_one_of_it_and_says_so() -> None:
    async with responses_of(Memory().app) as client:
        conversation_id = await created(client)
        first = await client.create("one", conversation=conversation_id)
        second = await client.create("two", previous_response_id=first["id"])
        third = await client.create("three", previous_response_id=second["id"])
        assert await texts(client, conversation_id) == [
            "one",
            "one",
            "two",
            "one/two",
            "three",
            "one/two/three",
        ]
        for response in (first, second, third):
            assert response["conversation"] == {"id": conversation_id}
            found = await client.get(f"/responses/{response['id']}")
            assert found["conversation"] == {"id": conversation_id}


async def test_a_response_that_forks_from_it_is_none_of_it() -> None:
    async with responses_of(Memory().app) as client:
        conversation_id = await created(client)
        first = await client.create("one", conversation=conversation_id)
        await client.create("two", conversation=conversation_id)
        fork = await client.create("three", previous_response_id=first["id"])
        more = await client.create("four", previous_response_id=fork["id"])
        assert await texts(client, conversation_id) == ["one", "one", "two", "one/two"]
        for response in (fork, more):
            assert response["conversation"] is None
            found = await client.get(f"/responses/{response['id']}")
            assert found["conversation"] is None


async def test_a_session_that_was_named_otherwise_is_no_conversation_of_a_response() -> None:
    async with responses_of(Memory().app) as client:
        first = await client.create("one", session_id="s")
        second = await client.create("two", previous_response_id=first["id"])
        assert (first["conversation"], second["conversation"]) == (None, None)


async def test_turns_are_its_items_whatever_the_protocol_with_ids_that_stay() -> None:
    async with responses_of(Memory().app) as client:
        conversation_id = await created(client)
        await client.create("one", conversation=conversation_id)
        await (await client.plain.ask("two", conversation_id)).ending()
        assert await texts(client, conversation_id) == ["one", "one", "two", "one/two"]
        first = await client.get(f"/conversations/{conversation_id}/items")
        assert [item["role"] for item in first["data"]] == ["assistant", "user"] * 2
        assert (await client.get(f"/conversations/{conversation_id}/items")).body == first.body
        for item in first["data"]:
            shown = await client.get(f"/conversations/{conversation_id}/items/{item['id']}")
            assert shown.body == item


async def test_items_are_those_of_the_responses_with_their_ids() -> None:
    async with responses_of(Memory().app) as client:
        answer = await client.create("one", conversation="c")
        asked = await client.get(f"/responses/{answer['id']}/input_items")
        listed = await client.get("/conversations/c/items", order="asc")
        assert [item["id"] for item in listed["data"]] == [
            asked["data"][0]["id"],
            answer["output"][0]["id"],
        ]


async def test_a_session_of_process_is_a_conversation_of_its_user() -> None:
    async with responses_of(Memory().app) as client:
        exchange = await client.plain.ask("one", "s", user_id="ada")
        await exchange.ending()
        assert (await client.get("/conversations/s")).status == 404
        assert (await client.get("/conversations/s", user_id="ada"))["id"] == "s"
        assert await texts(client, "s", user_id="ada") == ["one", "one"]
        described = await client.ask(
            "POST", "/conversations/s", json={"metadata": {"a": "b"}, "user_id": "ada"}
        )
        assert described["metadata"] == {"a": "b"}
        assert (await client.create("two", conversation="s", user_id="ada")).text == "one/two"


async def test_a_conversation_is_there_from_its_first_turn_on() -> None:
    memory = Memory()
    async with responses_of(memory.app) as client:
        stream = await client.stream("wait", conversation="c")
        await stream.until("response.output_text.delta")
        assert (await client.get("/conversations/c"))["id"] == "c"
        memory.gate.set()
        await stream.rest()


async def test_turns_that_did_not_go_well_are_not_among_its_items() -> None:
    async with responses_of(Memory().app) as client:
        await client.create("good", conversation="c")
        await client.create("fail", conversation="c")
        assert await texts(client, "c") == ["good", "good"]


async def test_deleting_a_conversation_forgets_its_session_and_stops_what_runs() -> None:
    memory = Memory(limits=Limits(cancel_seconds=1))
    async with responses_of(memory.app) as client:
        await client.create("one", conversation="c")
        stream = await client.stream("wait", conversation="c")
        await stream.until("response.output_text.delta")
        assert (await client.ask("DELETE", "/conversations/c")).status == 200
        await stream.rest()
        assert (await client.get("/conversations/c")).status == 404
        assert (await client.create("anew", conversation="c")).text == "anew"


# -- its items -----------------------------------------------------------------------------------------------------


async def test_items_put_in_wait_for_the_next_turn_which_takes_them_to_the_agent_once() -> None:
    memory = Memory()
    async with responses_of(memory.app) as client:
        conversation_id = await created(client, items=[USER])
        added = await add(
            client, conversation_id, {"role": "assistant", "content": "hi"}, {"role": "user", "content": "so"}
        )
        assert (added["object"], len(added["data"]), added["has_more"]) == ("list", 2, False)
        assert (added["first_id"], added["last_id"]) == tuple(item["id"] for item in added["data"])
        assert await texts(client, conversation_id) == ["hello", "hi", "so"]
        answer = await client.create("one", conversation=conversation_id)
        assert answer.text == "hello+hi+so+one"
        assert (await client.create("two", conversation=conversation_id)).text == "hello+hi+so+one/two"
        assert (await texts(client, conversation_id))[:4] == ["hello", "hi", "so", "one"]
        shown = await client.get(f"/conversations/{conversation_id}/items/{added['first_id']}")
        assert shown["content"][0]["text"] == "hi"
        asked = await client.get(f"/responses/{answer['id']}/input_items")
        assert [item["content"][0]["text"] for item in asked["data"]] == ["one"]


async def test_items_of_a_turn_that_did_not_go_well_wait_for_the_next() -> None:
    async with responses_of(Memory().app) as client:
        conversation_id = await created(client, items=[USER])
        assert (await client.create("fail", conversation=conversation_id))["status"] == "failed"
        assert await texts(client, conversation_id) == ["hello"]
        assert (await client.create("one", conversation=conversation_id)).text == "hello+one"
        assert await texts(client, conversation_id) == ["hello", "one", "hello+one"]


async def test_items_on_their_way_are_taken_by_no_other_turn() -> None:
    memory = Memory()
    async with responses_of(memory.app) as client:
        conversation_id = await created(client, items=[USER])
        first = await client.stream("wait", conversation=conversation_id)
        await first.until("response.in_progress")
        second = await client.stream("two", conversation=conversation_id)
        assert await texts(client, conversation_id) == ["hello"]
        memory.gate.set()
        await first.rest()
        assert await second.text() == "hello+wait/two"


async def test_items_of_a_refused_turn_wait_for_the_next() -> None:
    memory = Memory(limits=Limits(waiting_turns=0))
    async with responses_of(memory.app) as client:
        stream = await client.stream("wait", conversation="c")
        await stream.until("response.in_progress")
        await add(client, "c", USER)
        assert (await client.create("refused", conversation="c")).status == 429
        memory.gate.set()
        await stream.rest()
        assert (await client.create("two", conversation="c")).text == "wait/hello+two"


async def test_an_item_that_waits_is_taken_out_and_never_seen() -> None:
    async with responses_of(Memory().app) as client:
        conversation_id = await created(client, items=[USER, {"role": "user", "content": "stays"}])
        page = await client.get(f"/conversations/{conversation_id}/items", order="asc")
        removed = await client.ask(
            "DELETE", f"/conversations/{conversation_id}/items/{page['data'][0]['id']}"
        )
        assert (removed["object"], removed["id"]) == ("conversation", conversation_id)
        assert await texts(client, conversation_id) == ["stays"]
        assert (await client.create("one", conversation=conversation_id)).text == "stays+one"


async def test_an_item_that_waits_again_is_taken_out_and_never_seen() -> None:
    async with responses_of(Memory().app) as client:
        conversation_id = await created(client, items=[USER])
        assert (await client.create("fail", conversation=conversation_id))["status"] == "failed"
        (item,) = (await client.get(f"/conversations/{conversation_id}/items"))["data"]
        await client.ask("DELETE", f"/conversations/{conversation_id}/items/{item['id']}")
        assert (await client.create("two", conversation=conversation_id)).text == "two"


async def test_items_that_cannot_be_taken_hold_nothing_up() -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "add", "arguments": "{}"}
    output = {"type": "function_call_output", "id": "fco_1", "call_id": "c1", "output": "3"}
    async with responses_of(Memory().app) as client:
        conversation_id = await created(client, items=[call, output, USER])
        path = f"/conversations/{conversation_id}/items"
        await client.ask("DELETE", f"{path}/fc_1")
        refused = await client.create("one", conversation=conversation_id)
        assert refused.error["param"] == "items[0].call_id"
        await client.ask("DELETE", f"{path}/fco_1")
        assert (await client.create("two", conversation=conversation_id)).text == "hello+two"


async def test_an_item_of_a_turn_is_hidden_and_its_agent_still_knows_it() -> None:
    async with responses_of(Memory().app) as client:
        await client.create("one", conversation="c")
        page = await client.get("/conversations/c/items", order="asc")
        path = f"/conversations/c/items/{page['data'][0]['id']}"
        assert (await client.ask("DELETE", path)).status == 200
        assert await texts(client, "c") == ["one"]
        for method in ("GET", "DELETE"):
            assert (await client.ask(method, path)).error["code"] == "item_not_found"
        assert (await client.create("two", conversation="c")).text == "one/two"


async def test_items_come_a_page_at_a_time() -> None:
    async with responses_of(Memory().app) as client:
        conversation_id = await created(
            client, items=[{"role": "user", "content": str(number)} for number in range(12)]
        )
        seen: list[str] = []
        after: dict[str, str] = {}
        while True:
            page = await client.get(f"/conversations/{conversation_id}/items", limit=5, **after)
            seen += [item["content"][0]["text"] for item in page["data"]]
            after = {"after": page["last_id"]}
            if not page["has_more"]:
                break
        assert seen == [str(number) for number in reversed(range(12))]


async def test_a_call_and_its_output_are_put_in_and_an_output_alone_is_not() -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c1", "output": "42"}
    async with responses_of(Memory().app) as client:
        conversation_id = await created(client)
        alone = await add(client, conversation_id, output)
        assert (alone.status, alone.error["param"]) == (400, "items[0].call_id")
        assert (await add(client, conversation_id, call)).status == 200
        assert (await add(client, conversation_id, output)).status == 200
        page = await client.get(f"/conversations/{conversation_id}/items", order="asc")
        assert [item["type"] for item in page["data"]] == ["function_call", "function_call_output"]
        assert (await client.create("go", conversation=conversation_id)).status == 200


async def using_tools(request: Any) -> AsyncIterator[object]:
    """Thinks, looks something up, says it, and leaves a call to the client when asked to."""
    yield ItemStarted("r", "reasoning")
    yield TextDelta("Let me see.", "r")
    yield ItemDone("r")
    yield ItemStarted("c", "tool_call", call_id="call-1", name="look_up")
    yield PartDone(ToolCall("call-1", "look_up", "{}"), "c")
    yield ItemStarted("o", "tool_output", call_id="call-1", name="look_up")
    yield PartDone(ToolOutput("call-1", "look_up", (Text("It shines."),)), "o")
    yield TextDelta("The sun shines.")
    if request.tools:
        yield ItemStarted("d", "tool_call", call_id="call-2", name="weather")
        yield PartDone(ToolCall("call-2", "weather", "{}"), "d")


@pytest.mark.parametrize("display", ["mcp_call", "function_call", "hidden"])
@pytest.mark.parametrize("tools", [[], [{"type": "function", "name": "weather", "parameters": {}}]])
async def test_items_of_all_kinds_are_those_of_the_response(display: str, tools: list[Any]) -> None:
    app = AgentApp("Show")
    app.query(framework="events", honours={"tools"})(using_tools)
    async with responses_of(app, tool_display=display) as client:
        answer = await client.create("x", conversation="c", tools=tools)
        page = await client.get("/conversations/c/items", order="asc")
        assert page["data"][1:] == answer["output"]
        assert ("weather" in repr(answer["output"])) is bool(tools)


# -- what is wrong with a request ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"metadata": "x"}, "metadata"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {"a" * 65: "x"}}, "metadata"),
        ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
        ({"items": "x"}, "items"),
        ({"items": [3]}, "items[0]"),
        ({"items": [{"type": "smell"}]}, "items[0]"),
        ({"items": [USER] * 21}, "items"),
        ({"user_id": 3}, "user_id"),
    ],
)
async def test_what_cannot_be_created(body: dict[str, Any], param: str) -> None:
    async with responses_of(Memory().app) as client:
        answer = await client.ask("POST", "/conversations", json=body)
    assert answer.status == 400, answer
    assert answer.error["param"] in (param, f"{param}.type")


async def test_what_cannot_be_changed() -> None:
    async with responses_of(Memory().app) as client:
        conversation_id = await created(client, items=[{**USER, "id": "msg_1"}])
        path = f"/conversations/{conversation_id}"
        assert (await client.ask("POST", path, json={})).error["param"] == "metadata"
        assert (await client.ask("POST", path, json={"metadata": None}))["metadata"] == {}
        assert (await client.ask("POST", f"{path}/items", json={})).error["param"] == "items"
        twice = await add(client, conversation_id, {**USER, "id": "msg_1"})
        assert (twice.status, twice.error["param"]) == (400, "items[0].id")
        assert (await client.get(f"{path}/items/msg_2")).error["code"] == "item_not_found"


async def test_a_conversation_holds_so_much_and_no_more() -> None:
    memory = Memory(conversations=InMemoryConversations(conversation_bytes=2_000))
    async with responses_of(memory.app) as client:
        conversation_id = await created(client)
        answer = await add(client, conversation_id, {"role": "user", "content": "x" * 3_000})
        assert (answer.status, answer.error["param"]) == (400, "items")
        assert await texts(client, conversation_id) == []


async def test_with_authentication_a_conversation_is_its_owner_s_alone() -> None:
    async def by_token(headers: Any) -> str | None:
        return headers.get("Authorization", "").removeprefix("Bearer ") or None

    alice, bob = ({"Authorization": f"Bearer {name}"} for name in ("alice", "bob"))
    app: AgentApp = Memory(authenticate=by_token).app
    async with responses_of(app) as client:
        made = await client.ask("POST", "/conversations", json={"items": [USER]}, headers=alice)
        path = f"/conversations/{made['id']}"
        for method, where in (("GET", path), ("DELETE", path), ("GET", f"{path}/items")):
            assert (await client.ask(method, where, headers=bob)).error["code"] == "conversation_not_found"
        stolen = await client.ask("GET", path, params={"user_id": "alice"}, headers=bob)
        assert (stolen.status, stolen.error["code"]) == (403, "forbidden")
        assert (await client.ask("GET", path, headers=alice)).status == 200
