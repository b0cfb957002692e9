"""openai-python and the AI SDK try again on their own, twice: whatever goes wrong, the handler runs once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from kits.node_clients import Scripts
from kits.sdk_clients import Wire, sdk
from kits.stage import Stage, a_door

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(loop_scope="session")
async def counted(counting_server: Stage, wire: Wire) -> AsyncIterator[Any]:
    """A client of the handler that counts, which tries again as it comes."""
    async with sdk(counting_server.process.url, wire) as client:
        assert client.max_retries == 2
        yield client


async def runs(server: Stage, text: str) -> int:
    """How often the handler ran with this input."""
    _, told = await server.client.json("GET", "/runs", params={"text": text})
    count: int = told["runs"]
    return count


async def test_a_response_that_fails_after_it_began_ran_once(
    counting_server: Stage, counted: Any, wire: Wire
) -> None:
    response = await counted.responses.create(model="m", input="once fail")
    assert (response.status, response.error.code) == ("failed", "server_error")
    assert await runs(counting_server, "once fail") == 1
    assert len(wire.answers) == 1


async def test_a_stream_that_fails_ran_once(counting_server: Stage, counted: Any, wire: Wire) -> None:
    stream = await counted.responses.create(model="m", input="streamed fail", stream=True)
    assert [event.type async for event in stream][-1] == "response.failed"
    assert await runs(counting_server, "streamed fail") == 1
    assert len(wire.answers) == 1


async def test_a_background_response_that_fails_ran_once(counting_server: Stage, counted: Any) -> None:
    made = await counted.responses.create(model="m", input="behind fail", background=True)
    async for _ in await counted.responses.retrieve(made.id, stream=True):
        pass
    assert (await counted.responses.retrieve(made.id)).status == "failed"
    assert await runs(counting_server, "behind fail") == 1


async def test_an_answer_of_the_wrong_form_ran_once(counting_server: Stage, counted: Any, wire: Wire) -> None:
    response = await counted.responses.create(
        model="m", input="form", text={"format": {"type": "json_object"}}
    )
    assert response.status == "failed"
    assert await runs(counting_server, "form") == 1
    assert len(wire.answers) == 1


async def test_a_client_that_lost_patience_and_asks_again_gets_the_run_it_began(
    counting_server: Stage, counted: Any, wire: Wire
) -> None:
    async with a_door() as door:
        text = f"patience knock@{door.address}"
        impatient = counted.with_options(timeout=1.0)
        asking = asyncio.create_task(impatient.responses.create(model="m", input=text))
        await door.knocked()
        await wire.sent(2)
        door.open()
        response = await asking
    assert response.output_text.startswith("half ")
    assert await runs(counting_server, text) == 1


async def test_what_is_refused_did_not_run_and_is_asked_once(
    counting_server: Stage, counted: Any, wire: Wire
) -> None:
    with pytest.raises(openai.BadRequestError):
        await counted.responses.create(model="m", input="refused", temperature=9)
    assert await runs(counting_server, "refused") == 0
    assert len(wire.answers) == 1


async def test_cancelling_again_and_again_is_one_request_each(
    counting_server: Stage, counted: Any, wire: Wire
) -> None:
    async with a_door() as door:
        text = f"cancel knock@{door.address}"
        made = await counted.responses.create(model="m", input=text, background=True)
        await door.knocked()
        for _ in range(3):
            assert (await counted.responses.cancel(made.id)).id == made.id
    assert [answer.status for answer in wire.answers] == [200] * 4
    assert await runs(counting_server, text) == 1


async def test_a_full_session_says_when_to_come_again_and_runs_each_once(
    counting_server: Stage, counted: Any, wire: Wire
) -> None:
    """429 is told before anything ran: trying again is what a client should do then."""
    async with a_door() as door:
        texts = [f"full {number} knock@{door.address}" for number in range(2)]
        where = {"model": "m", "extra_body": {"session_id": "full"}}
        for text in texts:  # one runs, one waits: the session is full
            await counted.responses.create(input=text, background=True, **where)
        await door.knocked()
        with pytest.raises(openai.RateLimitError) as caught:
            await counted.with_options(max_retries=0).responses.create(input="full late", **where)
        assert caught.value.code == "rate_limit_exceeded"
        assert float(caught.value.response.headers["retry-after"]) > 0
        late = asyncio.create_task(counted.responses.create(input="full late", **where))
        door.open()
        await door.knocked()
        door.open()
        assert (await late).output_text == "half done: full late"
    assert [await runs(counting_server, text) for text in (*texts, "full late")] == [1, 1, 1]


@pytest.mark.parametrize("chat", [False, True], ids=["responses", "chat"])
@pytest.mark.parametrize("fails", ["fail", "fail silently"])
async def test_the_ai_sdk_runs_what_fails_once(
    counting_server: Stage, scripts: Scripts, wire: Wire, chat: bool, fails: str
) -> None:
    """It obeys no `x-should-retry`, and sends a stream's request again when it fails before anything is said."""
    text = f"ai sdk {chat} {fails}"
    url = counting_server.process.url
    printed = await scripts.run("ai_sdk.mjs", url=url, scenario="failing", prompt=text, chat=chat)
    wire.heard_elsewhere(printed["wire"])
    told = printed["result"]
    assert told["generate"]
    assert told["stream"] or told["finish"] != "stop"
    assert await runs(counting_server, text) == 2, "one for each that was asked for"
    assert len(wire.answers) == 2


@pytest.mark.parametrize("chat", [False, True], ids=["responses", "chat"])
async def test_the_ai_sdk_that_lost_patience_gets_the_run_it_began(
    counting_server: Stage, scripts: Scripts, wire: Wire, chat: bool
) -> None:
    async with a_door() as door:
        text = f"ai sdk patience {chat} knock@{door.address}"
        asking = asyncio.create_task(
            scripts.run(
                "ai_sdk.mjs",
                url=counting_server.process.url,
                scenario="impatient",
                prompt=text,
                chat=chat,
                door=door.address,
            )
        )
        await door.knocked(2)
        door.open()
        printed = await asking
    wire.heard_elsewhere(printed["wire"])
    assert printed["result"]["asked"] == 2
    assert printed["result"]["text"].startswith("half ")
    assert await runs(counting_server, text) == 1
