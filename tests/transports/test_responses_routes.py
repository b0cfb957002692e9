"""The Responses API over HTTP: every endpoint, through real sockets, with handlers of no framework."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from greenroom import AgentApp, Disconnect
from greenroom.actors.events import ItemDone, ItemStarted, PartDone, TextDelta
from greenroom.actors.messages import Text, ToolCall, ToolOutput
from kits.memory_app import Memory
from kits.responses_http import ResponsesClient, output_text, responses_of
from kits.responses_rules import check_response, check_stream
from kits.transport_kit import Script

# -- create --------------------------------------------------------------------------------------------------------


async def test_a_response_is_whole_and_by_the_rules() -> None:
    async with responses_of(Script().app) as client:
        answer = await client.create("one two", metadata={"a": "b"}, model="any-name")
    check_response(answer.body)
    assert (answer["status"], answer.text, answer["model"]) == ("completed", "onetwo", "any-name")
    assert answer["metadata"] == {"a": "b"}
    assert answer["response"]["output"][0]["content"][0]["text"] == "onetwo"


async def test_the_form_of_the_answer_is_what_the_body_says() -> None:
    async with responses_of(Script().app) as client:
        headers = {"Accept": "text/event-stream"}
        answer = await client.ask("POST", "/responses", json={"input": "x"}, headers=headers)
        assert answer.text == "x"
        async with client.http.post(
            f"{client.url}/responses",
            json={"input": "x", "stream": True},
            headers={"Accept": "application/json"},
        ) as response:
            assert response.content_type == "text/event-stream"
            assert response.headers["Cache-Control"] == "no-cache"
            assert response.headers["X-Accel-Buffering"] == "no"


async def test_a_stream_is_by_the_rules_and_ends_as_the_response_is() -> None:
    async with responses_of(Script().app) as client:
        stream = await client.stream("one two three")
        check_stream(await stream.rest())
        found = await client.get(f"/responses/{stream.id}")
    assert found.body == stream.events[-1]["response"]


async def test_the_key_of_the_tutorial_can_be_left_out() -> None:
    async with responses_of(Script().app, tutorial_key=False) as client:
        assert "response" not in (await client.create("x")).body


async def showing() -> AsyncIterator[object]:
    """Thinks, looks something up, says two things."""
    yield ItemStarted("r", "reasoning")
    yield TextDelta("Let me see.", "r")
    yield ItemDone("r")
    yield ItemStarted("c", "tool_call", call_id="call-1", name="look_up")
    yield PartDone(ToolCall("call-1", "look_up", '{"word": "sun"}'), "c")
    yield ItemStarted("o", "tool_output", call_id="call-1", name="look_up")
    yield PartDone(ToolOutput("call-1", "look_up", (Text("It shines."),)), "o")
    yield TextDelta("The sun shines.")


@pytest.mark.parametrize(
    ("display", "kinds"),
    [
        ("mcp_call", ["reasoning", "mcp_call", "message"]),
        ("function_call", ["reasoning", "function_call", "function_call_output", "message"]),
        ("hidden", ["reasoning", "message"]),
    ],
)
async def test_tools_are_shown_as_the_setting_says_and_taken_back_as_they_were_shown(
    display: Any, kinds: list[str]
) -> None:
    app = AgentApp("Show")
    app.query(framework="events")(showing)
    async with responses_of(app, tool_display=display) as client:
        stream = await client.stream("x")
        check_stream(await stream.rest())
        output = stream.events[-1]["response"]["output"]
        assert [item["type"] for item in output] == kinds
        again = await client.create([*output, {"role": "user", "content": "and now?"}])
        assert [item["type"] for item in again["output"]] == kinds
        assert again["response"]["output"][0]["content"][0]["text"] == "The sun shines."


async def test_a_failure_before_the_first_byte_is_json_also_for_a_stream() -> None:
    async with responses_of(Script().app) as client:
        for fields in ({"previous_response_id": "resp_unknown"}, {"temperature": 9}, {"input": None}):
            answer = await client.create(**({"input": "x", "stream": True} | fields))
            assert answer.status == 400
            assert answer.error["type"] == "invalid_request_error"


async def test_a_failed_run_ends_its_stream_by_the_rules() -> None:
    async with responses_of(Script().app) as client:
        stream = await client.stream("fail")
        check_stream(await stream.rest())
        last = stream.events[-1]
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
    assert "internal matter" not in repr(stream.events)


async def test_silence_is_broken_by_comments() -> None:
    script = Script()
    async with (
        responses_of(script.app, keepalive_seconds=0.02) as client,
        client.http.post(f"{client.url}/responses", json={"input": "wait", "stream": True}) as response,
    ):
        chunks: list[bytes] = []
        while sum(chunk.startswith(b":") for chunk in chunks) < 2:
            chunks.append((await response.content.readchunk())[0])
        script.gate.set()
        while chunk := (await response.content.readchunk())[0]:
            chunks.append(chunk)
    events = [json.loads(chunk.split(b"\n")[1][6:]) for chunk in chunks if chunk.startswith(b"event:")]
    check_stream(events)


async def test_an_option_that_the_agent_does_not_do_is_refused_by_its_name() -> None:
    script = Script()
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}}
    async with responses_of(script.app) as client:
        answer = await client.create("x", tools=[tool])
    assert (answer.status, answer.error["param"]) == (400, "tools")
    assert script.asked == []


# -- sessions ------------------------------------------------------------------------------------------------------


async def test_a_response_continues_the_one_it_names() -> None:
    async with responses_of(Memory().app) as client:
        first = await client.create("one")
        second = await client.create("two", previous_response_id=first["id"])
        third = await client.stream("three", previous_response_id=second["id"])
        assert await third.text() == "one/two/three"
        assert second["previous_response_id"] == first["id"]
        assert (await client.create("alone")).text == "alone"


async def test_an_older_response_is_forked_and_the_branches_never_see_each_other() -> None:
    async with responses_of(Memory().app) as client:
        root = await client.create("root")
        left = await client.create("left", previous_response_id=root["id"])
        right = await client.create("right", previous_response_id=root["id"])
        assert (left.text, right.text) == ("root/left", "root/right")
        again = await client.create("on", previous_response_id=left["id"])
        other = await client.create("on", previous_response_id=right["id"])
        assert (again.text, other.text) == ("root/left/on", "root/right/on")


async def test_two_that_continue_the_same_response_at_once_both_do_and_each_alone() -> None:
    async with responses_of(Memory().app) as client:
        root = await client.create("root")
        answers = await asyncio.gather(
            *(client.create(str(number), previous_response_id=root["id"]) for number in range(8))
        )
        assert [answer.text for answer in answers] == [f"root/{number}" for number in range(8)]


async def test_a_response_that_still_runs_can_be_continued() -> None:
    memory = Memory()
    async with responses_of(memory.app) as client:
        running = await client.create("wait", background=True)
        await memory.began.wait()
        queued = await client.stream("after", previous_response_id=running["id"])
        memory.gate.set()
        assert await queued.text() == "wait/after"


async def test_a_conversation_is_a_session_and_shared_with_process() -> None:
    async with responses_of(Memory().app) as client:
        await (await client.plain.ask("by process", "s")).ending()
        answer = await client.create("by conversation", conversation="s")
        assert answer.text == "by process/by conversation"
        assert answer["conversation"] == {"id": "s"}
        by_fields = await client.create("by fields", session_id="s", user_id="s")
        assert by_fields.text == "by process/by conversation/by fields"
        exchange = await client.plain.ask("again", "s")
        assert (await exchange.ending())[1].endswith("by fields/again")


async def test_a_response_is_a_turn_of_process_as_well() -> None:
    async with responses_of(Memory().app) as client:
        answer = await client.create("x")
        status, turn = await client.plain.json("GET", f"/process/{answer['id']}")
    assert (status, turn["status"]) == (200, "completed")


async def test_instructions_are_for_one_response() -> None:
    said: list[list[Any]] = []

    async def listening(msgs: Any) -> str:
        said.append(list(msgs))
        return "yes"

    app = AgentApp()
    app.query()(listening)
    async with responses_of(app) as client:
        first = await client.create("x", instructions="Be brief.")
        await client.create("y", previous_response_id=first["id"])
    assert "Be brief." in repr(said[0])
    assert "Be brief." not in repr(said[1])


async def test_what_is_not_to_be_stored_is_not_found_and_leaves_nothing() -> None:
    async with responses_of(Memory().app) as client:
        made = await client.create("x", store=False)
        assert (made.text, made["store"]) == ("x", False)
        assert (await client.get(f"/responses/{made['id']}")).error["code"] == "response_not_found"
        answer = await client.create("y", previous_response_id=made["id"])
        assert (answer.status, answer.error["code"]) == (400, "previous_response_not_found")
        assert answer.error["param"] == "previous_response_id"
        assert (await client.ask("DELETE", f"/responses/{made['id']}")).status == 404
        root = await client.create("root")
        branch = await client.create("not kept", previous_response_id=root["id"], store=False)
        assert branch.text == "root/not kept"
        assert (await client.create("kept", previous_response_id=root["id"])).text == "root/kept"


async def test_with_authentication_nobody_reaches_what_is_not_his() -> None:
    async def by_token(headers: Any) -> str | None:
        return headers.get("Authorization", "").removeprefix("Bearer ") or None

    alice, bob = ({"Authorization": f"Bearer {name}"} for name in ("alice", "bob"))
    async with responses_of(Memory(authenticate=by_token).app) as client:
        mine = await client.ask("POST", "/responses", json={"input": "secret"}, headers=alice)
        path = f"/responses/{mine['id']}"
        for method, where in (
            ("GET", path),
            ("DELETE", path),
            ("POST", f"{path}/cancel"),
            ("GET", f"{path}/input_items"),
        ):
            assert (await client.ask(method, where, headers=bob)).error["code"] == "response_not_found"
        body = {"input": "x", "previous_response_id": mine["id"]}
        stolen = await client.ask("POST", "/responses", json=body, headers=bob)
        assert stolen.error["code"] == "previous_response_not_found"
        assert (await client.ask("GET", path, headers=alice)).text == "secret"


# -- what was said before, by its ids ------------------------------------------------------------------------------


async def test_items_of_earlier_responses_are_known_by_their_ids_alone() -> None:
    async with responses_of(Memory().app) as client:
        first = await client.create("one")
        asked = (await client.get(f"/responses/{first['id']}/input_items"))["data"]
        named = [{"type": "item_reference", "id": item["id"]} for item in [*asked, *first["output"]]]
        answer = await client.create([*named, {"role": "user", "content": "two"}])
        assert answer.text == "one+one+two"
        listed = await client.get(f"/responses/{answer['id']}/input_items", order="asc")
        assert [item["content"][0]["text"] for item in listed["data"]] == ["one", "one", "two"]
        unknown = await client.create([{"type": "item_reference", "id": "msg_unknown"}])
        assert (unknown.status, unknown.error["param"]) == (400, "input[0]")


async def test_an_output_of_no_call_in_the_context_is_refused() -> None:
    output = {"type": "function_call_output", "call_id": "call_1", "output": "42"}
    async with responses_of(Memory().app) as client:
        for more in ({}, {"previous_response_id": (await client.create("x"))["id"]}, {"conversation": "c"}):
            answer = await client.create([output], **more)
            assert (answer.status, answer.error["param"]) == (400, "input[0].call_id")


async def calling(request: Any) -> AsyncIterator[object]:
    """Leaves a call to the client, and says what came back."""
    outputs = [message for message in request.input if message.type.endswith("call_output")]
    if outputs:
        yield TextDelta(f"it said {outputs[0].content[0].data['output']}")
    else:
        yield ItemStarted("c", "tool_call", call_id="call_1", name="weather")
        yield PartDone(ToolCall("call_1", "weather", '{"city": "Rome"}'), "c")


async def test_the_client_s_own_tools_are_left_to_him_and_go_on_with_his_output() -> None:
    app = AgentApp("Calls")
    app.query(framework="events", honours={"tools"})(calling)
    tool = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
    output = {"type": "function_call_output", "call_id": "call_1", "output": "sunny"}
    async with responses_of(app) as client:
        first = await client.create("How is it?", tools=[tool], conversation="c")
        assert (first["status"], first["output"][0]["type"]) == ("completed", "function_call")
        for where in ({"previous_response_id": first["id"]}, {"conversation": "c"}):
            assert (await client.create([output], tools=[tool], **where)).text == "it said sunny"


# -- retrieve ------------------------------------------------------------------------------------------------------


async def test_a_response_can_be_read_while_it_runs_and_after() -> None:
    script = Script()
    async with responses_of(script.app) as client:
        stream = await client.stream("wait")
        await stream.until("response.output_text.delta")
        running = await client.get(f"/responses/{stream.id}")
        check_response(running.body)
        assert running["status"] == "in_progress"
        script.gate.set()
        await stream.rest()
        assert (await client.get(f"/responses/{stream.id}")).text == "waiting no more"


async def test_a_stream_is_rejoined_after_any_event_and_is_the_same() -> None:
    async with responses_of(Script().app) as client:
        events = await (await client.stream("one two three")).rest()
        response_id = events[0]["response"]["id"]
        assert await (await client.rejoin(response_id)).rest() == events
        for event in events:
            number = event["sequence_number"]
            again = await client.rejoin(response_id, starting_after=number)
            assert await again.rest() == events[number + 1 :]


async def test_a_dropped_background_stream_goes_on_and_is_resumed_where_it_was() -> None:
    script = Script()
    async with responses_of(script.app, responses_disconnect=Disconnect("cancel")) as client:
        stream = await client.stream("wait", background=True)
        await stream.until("response.output_text.delta")
        stream.leave()
        rest = await client.rejoin(stream.id, starting_after=len(stream.events) - 1)
        script.gate.set()
        check_stream(stream.events + await rest.rest())
        assert rest.events[-1]["response"]["status"] == "completed"
        assert script.asked == ["wait"]


async def test_what_becomes_of_a_foreground_run_without_its_client_is_a_setting() -> None:
    script = Script()
    async with responses_of(script.app, responses_disconnect=Disconnect("cancel")) as client:
        stream = await client.stream("wait")
        await stream.until("response.output_text.delta")
        stream.leave()
        await script.ended.wait()
        assert (await client.get(f"/responses/{stream.id}"))["status"] == "cancelled"
    script = Script()
    async with responses_of(script.app) as client:
        stream = await client.stream("wait")
        await stream.until("response.output_text.delta")
        stream.leave()
        script.gate.set()
        again = await client.rejoin(stream.id)
        assert await again.text() == "waiting no more"


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "99999", "9" * 30, "٣"])
async def test_a_cursor_that_names_no_event_is_refused(after: str) -> None:
    async with responses_of(Script().app) as client:
        answer = await client.create("x")
        refused = await client.get(f"/responses/{answer['id']}", stream="true", starting_after=after)
    assert (refused.status, refused.error["param"]) == (400, "starting_after")


# -- background, cancel, delete ------------------------------------------------------------------------------------


async def test_a_background_response_is_polled_to_its_end() -> None:
    script = Script()
    async with responses_of(script.app) as client:
        answer = await client.create("wait", background=True)
        check_response(answer.body)
        assert answer["status"] in ("queued", "in_progress")
        assert answer["background"] is True
        script.gate.set()
        again = await client.rejoin(answer["id"])
        await again.rest()
        assert (await client.get(f"/responses/{answer['id']}")).text == "waiting no more"


async def test_a_background_response_is_cancelled_once_and_for_all() -> None:
    script = Script()
    async with responses_of(script.app) as client:
        stream = await client.stream("wait", background=True)
        await stream.until("response.output_text.delta")
        for _ in range(2):
            answer = await client.ask("POST", f"/responses/{stream.id}/cancel")
            check_response(answer.body)
            assert (answer.status, answer["status"]) == (200, "cancelled")
        await stream.rest()
        assert not stream.events[-1]["type"].endswith(("completed", "failed", "incomplete"))
        assert stream.done
        assert (await client.get(f"/responses/{stream.id}"))["status"] == "cancelled"


async def test_a_background_response_that_has_ended_is_not_changed_by_cancelling() -> None:
    async with responses_of(Script().app) as client:
        stream = await client.stream("x", background=True)
        await stream.rest()
        answer = await client.ask("POST", f"/responses/{stream.id}/cancel")
        assert (answer.status, answer["status"]) == (200, "completed")


async def test_a_queued_background_response_is_cancelled_and_never_runs() -> None:
    script = Script()
    async with responses_of(script.app) as client:
        first = await client.stream("wait", conversation="c")
        await first.until("response.output_text.delta")
        queued = await client.create("never", conversation="c", background=True)
        assert queued["status"] == "queued"
        answer = await client.ask("POST", f"/responses/{queued['id']}/cancel")
        assert answer["status"] == "cancelled"
        script.gate.set()
        await first.rest()
    assert script.asked == ["wait"]


async def test_only_a_background_response_is_cancelled() -> None:
    async with responses_of(Script().app) as client:
        answer = await client.create("x")
        refused = await client.ask("POST", f"/responses/{answer['id']}/cancel")
    assert (refused.status, refused.error["type"]) == (400, "invalid_request_error")


async def test_a_deleted_response_is_gone() -> None:
    async with responses_of(Memory().app) as client:
        made = await client.create("x")
        path = f"/responses/{made['id']}"
        deleted = await client.ask("DELETE", path)
        assert deleted.body == {"id": made["id"], "object": "response", "deleted": True}
        for method, where in (
            ("GET", path),
            ("DELETE", path),
            ("POST", f"{path}/cancel"),
            ("GET", f"{path}/input_items"),
        ):
            assert (await client.ask(method, where)).status == 404
        answer = await client.create("y", previous_response_id=made["id"])
        assert answer.error["code"] == "previous_response_not_found"


async def test_a_response_deleted_while_it_runs_runs_on_and_is_gone() -> None:
    memory = Memory()
    async with responses_of(memory.app) as client:
        stream = await client.stream("wait", conversation="c", background=True)
        await stream.until("response.output_text.delta")
        assert (await client.ask("DELETE", f"/responses/{stream.id}")).status == 200
        assert (await client.get(f"/responses/{stream.id}")).status == 404
        memory.gate.set()
        await stream.rest()
        assert (await client.get(f"/responses/{stream.id}")).status == 404
        assert (await client.create("and", conversation="c")).text == "wait/and"


# -- input items ---------------------------------------------------------------------------------------------------


async def test_input_items_come_a_page_at_a_time_newest_first() -> None:
    items = [{"role": "user", "content": f"number {number}"} for number in range(25)]
    async with responses_of(Memory().app) as client:
        answer = await client.create(items)
        path = f"/responses/{answer['id']}/input_items"
        first = await client.get(path)
        assert (first["object"], len(first["data"]), first["has_more"]) == ("list", 20, True)
        assert first["data"][0]["content"] == [{"type": "input_text", "text": "number 24"}]
        assert all(item["id"] and item["status"] == "completed" for item in first["data"])
        assert (first["first_id"], first["last_id"]) == (first["data"][0]["id"], first["data"][-1]["id"])
        rest = await client.get(path, after=first["last_id"])
        assert (len(rest["data"]), rest["has_more"]) == (5, False)
        oldest = await client.get(path, order="asc", limit=1)
        assert oldest["data"][0]["id"] == rest["data"][-1]["id"]
        end = await client.get(path, after=rest["last_id"])
        assert (end["data"], end["has_more"]) == ([], False)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"order": "up"}, "order"),
        ({"after": "msg_unknown"}, "after"),
    ],
)
async def test_a_page_that_is_none_is_refused(query: dict[str, str], param: str) -> None:
    async with responses_of(Memory().app) as client:
        answer = await client.create("x")
        refused = await client.get(f"/responses/{answer['id']}/input_items", **query)
    assert (refused.status, refused.error["param"]) == (400, param)


# -- compact and count ---------------------------------------------------------------------------------------------


async def test_what_is_compacted_is_taken_back_and_holds_everything() -> None:
    async with responses_of(Memory().app) as client:
        made = await client.create("one")
        body = {"model": "m", "previous_response_id": made["id"], "input": "two"}
        compacted = await client.ask("POST", "/responses/compact", json=body)
        assert (compacted.status, compacted["object"]) == (200, "response.compaction")
        (item,) = compacted["output"]
        assert item["type"] == "compaction"
        answer = await client.create([*compacted["output"], {"role": "user", "content": "three"}])
        assert answer.text == "one+one+two+three"
        twice = await client.ask("POST", "/responses/compact", json={"model": "m", "input": [item]})
        assert (await client.create(twice["output"])).text == "one+one+two"


@pytest.mark.parametrize(
    ("body", "param"),
    [({"input": "x"}, "model"), ({"model": "m"}, "input"), ({"model": "m", "input": 3}, "input")],
)
async def test_what_cannot_be_compacted(body: dict[str, Any], param: str) -> None:
    async with responses_of(Memory().app) as client:
        answer = await client.ask("POST", "/responses/compact", json=body)
    assert (answer.status, answer.error["param"]) == (400, param)


async def test_input_tokens_grow_with_what_the_model_would_read() -> None:
    async with responses_of(Memory().app) as client:
        made = await client.create("a word or two of context")
        counts = [
            (await client.ask("POST", "/responses/input_tokens", json=body))["input_tokens"]
            for body in (
                {"input": "Hello"},
                {"input": "Hello", "instructions": "Be brief and clear."},
                {"input": "Hello", "previous_response_id": made["id"]},
                {"input": "Hello " * 1_000},
                {"input": "你" * 1_500},
            )
        ]
    assert counts[0] == 6
    assert counts[1] > counts[0] < counts[2]
    assert counts[3] == 4 + 1_500 == counts[4]


# -- requests sent again -------------------------------------------------------------------------------------------


async def test_a_request_sent_again_joins_the_run_it_began() -> None:
    memory = Memory()
    async with responses_of(memory.app) as client:
        for count in range(2):
            gives_up = asyncio.create_task(ask_again(client, count))
            await memory.began.wait()
            await client.get("/models")
            gives_up.cancel()
            await asyncio.wait([gives_up])
        memory.gate.set()
        answer = await ask_again(client, 2)
        assert output_text(answer) == "…wait"
        assert memory.runs == {"wait": 1}


async def ask_again(client: ResponsesClient, count: int) -> dict[str, Any]:
    """As SDKs do, which count how often they send a request again."""
    headers = {"x-stainless-retry-count": str(count)}
    async with client.http.post(
        f"{client.url}/responses", json={"input": "wait"}, headers=headers
    ) as response:
        answer: dict[str, Any] = await response.json()
        return answer


async def test_a_request_of_its_own_joins_nothing() -> None:
    memory = Memory()
    async with responses_of(memory.app) as client:
        first = asyncio.create_task(ask_again(client, 0))
        await memory.began.wait()
        memory.began.clear()
        second = asyncio.create_task(ask_again(client, 1))  # while the first still waits
        await memory.began.wait()
        memory.gate.set()
        answers = await asyncio.gather(first, second)
        assert answers[0]["id"] != answers[1]["id"]
        assert memory.runs == {"wait": 2}
        assert (await ask_again(client, 1))["id"] not in {answer["id"] for answer in answers}


# -- models --------------------------------------------------------------------------------------------------------


async def test_the_application_is_the_one_model() -> None:
    async with responses_of(Script().app) as client:
        models = await client.get("/models")
        (model,) = models["data"]
        assert (models["object"], model["id"], model["object"]) == ("list", "Script", "model")
        assert isinstance(model["created"], int)
        assert (await client.get("/models/Script")).body == model


async def test_the_routes_are_named() -> None:
    async with responses_of(Script().app) as client:
        _, about = await client.plain.json("GET", "/")
    paths = {(route["method"], route["path"]) for route in about["routes"]}
    assert {
        ("POST", "/compatible-mode/v1/responses"),
        ("GET", "/compatible-mode/v1/conversations/{id}/items"),
    } <= paths
    assert not [path for method, path in paths if method == "*" or "rest" in path]
