"""openai-python: responses that run on without anybody listening, and clients that come back."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from kits.scripted_model_script import Gate, Hang, Say, user_texts
from kits.sdk_clients import Wire, sdk
from kits.stage import Stage

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]


async def until_text(stream: Any) -> list[dict[str, Any]]:
    """Read a stream up to its first text; what was read."""
    seen = []
    async for event in stream:
        seen.append(event.to_dict())
        if event.type == "response.output_text.delta":
            return seen
    raise AssertionError("there was no text")


async def ended(client: Any, identity: str) -> Any:
    """A response once it has ended, which the end of its stream tells."""
    async for _ in await client.responses.retrieve(identity, stream=True):
        pass
    return await client.responses.retrieve(identity)


async def test_a_background_response_is_fetched_when_it_is_done(stage: Stage, client: Any) -> None:
    stage.play([["half ", Gate("background"), "whole"]])
    made = await client.responses.create(model="m", input="go", background=True)
    assert made.status in ("queued", "in_progress")
    assert (made.background, made.output, made.usage) == (True, [], None)
    await stage.model.wait_at("background")
    running = await client.responses.retrieve(made.id)
    assert running.status == "in_progress"
    stage.model.open("background")
    done = await ended(client, made.id)
    assert (done.status, done.output_text, done.background) == ("completed", "half whole", True)
    assert done.usage.total_tokens > 0


async def test_a_background_stream_is_resumed_after_the_connection_dropped(
    stage: Stage, client: Any, wire: Wire
) -> None:
    stage.play([["half ", Gate("dropped"), "whole"]])
    async with sdk(stage.process.url, wire) as dropping:
        stream = await dropping.responses.create(model="m", input="go", background=True, stream=True)
        seen = await until_text(stream)
        await stream.close()
    identity = seen[0]["response"]["id"]
    resumed = await client.responses.retrieve(
        identity, stream=True, starting_after=seen[-1]["sequence_number"]
    )
    stage.model.open("dropped")
    rest = [event.to_dict() async for event in resumed]
    assert stage.model.aborted == 0
    numbers = [event["sequence_number"] for event in seen + rest]
    assert numbers == list(range(len(numbers)))
    assert rest[-1]["type"] == "response.completed"
    whole = [event.to_dict() async for event in await client.responses.retrieve(identity, stream=True)]
    assert whole == seen + rest
    async with client.responses.stream(
        response_id=identity, starting_after=seen[-1]["sequence_number"]
    ) as helper:
        helped = [
            event.sequence_number async for event in helper if event.type != "response.output_text.done"
        ]
    assert min(helped) > seen[-1]["sequence_number"]


async def test_two_clients_follow_one_response(stage: Stage, client: Any) -> None:
    stage.play([["half ", Gate("two followers"), "whole"]])
    first = await client.responses.create(model="m", input="go", background=True, stream=True)
    seen = await until_text(first)
    second = await client.responses.retrieve(seen[0]["response"]["id"], stream=True)
    assert await until_text(second) == seen
    stage.model.open("two followers")
    assert [event.to_dict() async for event in first] == [event.to_dict() async for event in second]


async def test_a_background_response_is_cancelled(stage: Stage, client: Any) -> None:
    stage.play([["half ", Hang()]])
    stream = await client.responses.create(model="m", input="go", background=True, stream=True)
    seen = await until_text(stream)
    identity = seen[0]["response"]["id"]
    cancelled = await client.responses.cancel(identity)
    assert cancelled.id == identity
    rest = [event.to_dict() async for event in stream]  # it ends, with no event that the API does not have
    assert not [event for event in rest if event["type"] in ("response.completed", "response.failed")]
    await stage.model.wait_aborted()
    found = await client.responses.retrieve(identity)
    assert (found.status, found.output_text) == ("cancelled", "half ")
    assert [item.status for item in found.output] == ["incomplete"], "what it had said is kept and marked"
    again = await client.responses.cancel(identity)
    assert again.status == "cancelled"


async def test_cancelling_what_is_done_changes_nothing(stage: Stage, client: Any) -> None:
    stage.play(["Done."])
    made = await client.responses.create(model="m", input="go", background=True)
    await ended(client, made.id)
    assert (await client.responses.cancel(made.id)).status == "completed"


async def test_only_background_responses_are_cancelled(stage: Stage, client: Any) -> None:
    made = await client.responses.create(model="m", input="go")
    with pytest.raises(openai.BadRequestError):
        await client.responses.cancel(made.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.cancel("resp_unknown")


async def test_a_foreground_stream_that_is_left_runs_on_and_is_found(stage: Stage, client: Any) -> None:
    stage.play([["half ", Gate("left"), "whole"]])
    stream = await client.responses.create(model="m", input="go", stream=True)
    seen = await until_text(stream)
    await stream.close()
    stage.model.open("left")
    done = await ended(client, seen[0]["response"]["id"])
    assert (done.status, done.output_text) == ("completed", "half whole")
    assert stage.model.aborted == 0


async def test_a_background_response_is_continued_before_it_is_done(stage: Stage, client: Any) -> None:
    stage.play(lambda request: [Gate("queue"), Say(", ".join(user_texts(request)))])
    first = await client.responses.create(model="m", input="one", background=True)
    second = await client.responses.create(
        model="m", input="two", background=True, previous_response_id=first.id
    )
    stage.model.open("queue")
    assert (await ended(client, second.id)).output_text == "one, two"
    assert (await ended(client, first.id)).output_text == "one"
