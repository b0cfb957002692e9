"""Clients that come back with the number of the last event they had to a server that was killed meanwhile: they go on
exactly there, or are told that those events may be others, and read them again."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable
from typing import Any

import aiohttp
import openai
import pytest

from greenroom.transports.responses_encode import ResponsesEncoder
from greenroom.transports.sse import SSEParser
from kits.durable_servers import Site, free_port
from kits.http_client import body
from kits.recovery_kit import url_of
from kits.rejoining import Told
from kits.sdk_answers import check_wire
from kits.sdk_clients import CUT_OFF, Wire, sdk
from kits.server_process import ServerProcess

pytestmark = pytest.mark.slow

WORDS = [f"say:{word}" for word in "abcdefgh"]
TEXT = " ".join([*WORDS, "nap:1", "say:i"])
LAST = " h"
"""The last word before the nap, in which the server dies."""
SLOWLY = " ".join(["nap:0.1", *WORDS, "nap:0.3", "say:i"])
ROUNDS = 5

DEATHS = pytest.mark.parametrize("point", ["append.before", "append.written"])
"""A server kills itself as it is about to write down what was said, or just has."""
HANDLERS = pytest.mark.parametrize("handler", ["ordinary", "idempotent"])


def environment(handler: str) -> dict[str, str]:
    return {"DURABLE_IDEMPOTENT": "1"} if handler == "idempotent" else {}


async def killed(server: ServerProcess) -> None:
    assert await server.ended() == -signal.SIGKILL, server.log


# -- the Responses API, by openai-python -------------------------------------------------------------------------------


async def begin(client: Any) -> list[dict[str, Any]]:
    """The events of a new response until its server dies. The client hears of its last word before."""
    events: list[dict[str, Any]] = []
    asked = {"model": "m", "input": TEXT, "background": True, "extra_body": {"session_id": "s"}}
    stream = await client.responses.create(**asked, stream=True)
    with pytest.raises(CUT_OFF):
        await read(stream, events)
    assert events[-1].get("delta") == LAST
    return events


async def read(
    stream: Any, events: list[dict[str, Any]], count: int = 0, then: Callable[[], object] | None = None
) -> None:
    """Read to the end. `then`: called when there are so many."""
    async for event in stream:
        events.append(event.to_dict())
        if then is not None and len(events) == count:
            then()


async def rest(client: Any, identity: str, after: int | None = None) -> list[dict[str, Any]]:
    """The events after that number, or all."""
    cursor = {} if after is None else {"starting_after": after}
    stream = await client.responses.retrieve(identity, stream=True, **cursor)
    return [event.to_dict() async for event in stream]


async def in_the_log(site: Site, identity: str) -> list[dict[str, Any]]:
    entry = await site.entry(identity)
    frames = b"".join(ResponsesEncoder.whole(entry.turn, entry.events)).decode().splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in frames if line.startswith("data: {")]


@DEATHS
@HANDLERS
async def test_a_response_goes_on_after_its_last_event_or_is_read_again(
    handler: str, point: str, site: Site
) -> None:
    port, wire = free_port(), Wire()
    async with sdk(url_of(port), wire) as client:
        first = await site.server(port, DURABLE_AT=point, **environment(handler))
        events = await begin(client)
        await killed(first)
        second = await site.server(port, **environment(handler))
        identity, last = events[0]["response"]["id"], events[-1]["sequence_number"]
        if point == "append.written":
            events += await rest(client, identity, last)
        else:
            before = len(wire.answers)
            with pytest.raises(openai.APIStatusError) as refused:
                await rest(client, identity, last)
            assert len(wire.answers) == before + 1, "it was sent again"
            error = refused.value
            assert (type(error), error.status_code) == (openai.APIStatusError, 410)
            assert (error.code, error.type, error.param) == (
                "cursor_expired",
                "invalid_request_error",
                "starting_after",
            )
            assert "from the beginning, without starting_after" in error.message
            events = await rest(client, identity)
        status = "completed" if handler == "idempotent" else "failed"
        assert events[-1]["type"] == f"response.{status}"
        assert (await client.responses.retrieve(identity)).status == status
        assert await second.stop() == 0
    assert events == await in_the_log(site, identity)
    check_wire(wire)


async def come_back(client: Any, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All events of a response whose first ones were told before its server died."""
    identity = events[0]["response"]["id"]
    try:
        return [*events, *await rest(client, identity, events[-1]["sequence_number"])]
    except openai.APIStatusError as error:
        if error.code != "cursor_expired":
            raise
        return await rest(client, identity)


@HANDLERS
async def test_whenever_its_server_is_killed_a_client_has_in_the_end_what_the_log_has(
    handler: str, site: Site
) -> None:
    dice, port, wire = random.Random(7), free_port(), Wire()
    server = await site.server(port, **environment(handler))
    told = []
    async with sdk(url_of(port), wire) as client:
        for number in range(ROUNDS):
            stream = await client.responses.create(
                model="m", input=SLOWLY, stream=True, extra_body={"session_id": f"s{number}"}
            )
            events: list[dict[str, Any]] = []
            with pytest.raises(CUT_OFF):
                await read(stream, events, dice.randrange(1, 12), server.process.kill)
            await killed(server)
            server = await site.server(port, **environment(handler))
            told.append(await come_back(client, events))
        assert await server.stop() == 0
    for events in told:
        assert events == await in_the_log(site, events[0]["response"]["id"])
    check_wire(wire)


# -- /process, by a request that is sent again -------------------------------------------------------------------------


async def post(url: str, told: Told, *, cursor: bool = False) -> int:
    """Send the turn's request, maybe once more, and read what comes. Gives the status."""
    headers = {"Last-Event-ID": str(told.last["sequence_number"])} if cursor else {}
    parser = SSEParser()
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{url}/process", json=body(TEXT, told.session, id=told.id), headers=headers) as answer,
    ):
        if answer.status != 200:
            told.trouble.append(await answer.text())
            return answer.status
        try:
            async for piece in answer.content.iter_any():
                events = parser.feed(piece)
                told.frames += [json.loads(event.data) for event in events if event.data != "[DONE]"]
        except aiohttp.ClientPayloadError as error:
            told.trouble.append(str(error))
        return answer.status


@DEATHS
@HANDLERS
async def test_a_request_that_is_sent_again_goes_on_after_its_last_event_or_is_read_again(
    handler: str, point: str, site: Site
) -> None:
    port, told = free_port(), Told("turn_1", "s")
    url = url_of(port)
    first = await site.server(port, DURABLE_AT=point, **environment(handler))
    assert await post(url, told) == 200
    assert told.last["text"] == LAST
    await killed(first)
    second = await site.server(port, **environment(handler))
    if point == "append.written":
        assert await post(url, told, cursor=True) == 200
    else:
        assert await post(url, told, cursor=True) == 410
        error = json.loads(told.trouble[-1])["error"]
        assert (error["code"], error["field"]) == ("cursor_expired", "Last-Event-ID")
        assert "from the beginning, without Last-Event-ID" in error["message"]
        told.frames.clear()
        assert await post(url, told) == 200
    assert told.status == ("completed" if handler == "idempotent" else "failed")
    assert await second.stop() == 0
    await site.check([told], begun_once=handler == "ordinary")
