"""openai-python: which conversation a response belongs to, and how one is continued and forked."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from kits.scripted_model_script import Fail, Gate, Reply, Request, Say, last_user_text, text_of, user_texts
from kits.stage import Stage
from kits.wire_grammar import check_stream, texts

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]


def heard(request: Request) -> Reply:
    """All that the user said so far: shows what a conversation remembers."""
    return Say(", ".join(user_texts(request)))


async def say(client: Any, text: str, **options: Any) -> Any:
    """A response that went well."""
    response = await client.responses.create(model="m", input=text, **options)
    assert response.status == "completed", response.error
    return response


async def ask_process(stage: Stage, text: str, session: str, **options: Any) -> str:
    """What `/process` answers in this session."""
    ending = check_stream(await (await stage.client.ask(text, session, **options)).rest())
    assert ending["status"] == "completed"
    return "".join(texts(ending))


# -- previous_response_id ----------------------------------------------------------------------------------------------


async def test_the_newest_response_is_continued(stage: Stage, client: Any) -> None:
    stage.play(heard)
    first = await say(client, "one")
    second = await say(client, "two", previous_response_id=first.id)
    third = await say(client, "three", previous_response_id=second.id)
    assert (second.previous_response_id, third.previous_response_id) == (first.id, second.id)
    assert [second.output_text, third.output_text] == ["one, two", "one, two, three"]


async def test_two_responses_without_a_conversation_know_nothing_of_each_other(
    stage: Stage, client: Any
) -> None:
    stage.play(heard)
    assert [(await say(client, text)).output_text for text in ("one", "two")] == ["one", "two"]


async def test_an_older_response_is_forked_and_no_branch_sees_the_other(stage: Stage, client: Any) -> None:
    stage.play(heard)
    root = await say(client, "root")
    left = await say(client, "left", previous_response_id=root.id)
    right = await say(client, "right", previous_response_id=root.id)
    assert [left.output_text, right.output_text] == ["root, left", "root, right"]
    left = await say(client, "left 2", previous_response_id=left.id)
    right = await say(client, "right 2", previous_response_id=right.id)
    assert [left.output_text, right.output_text] == ["root, left, left 2", "root, right, right 2"]
    third = await say(client, "third", previous_response_id=root.id)
    assert third.output_text == "root, third"


async def test_a_fork_leaves_the_session_it_came_from_as_it_was(stage: Stage, client: Any) -> None:
    stage.play(heard)
    one = await say(client, "one", extra_body={"session_id": "original", "user_id": "ada"})
    await say(client, "two", previous_response_id=one.id)
    before = await stage.kept("original", "ada")
    assert [text for role, text in before["said"] if role == "user"] == ["one", "two"]
    await say(client, "other", previous_response_id=one.id)
    assert await stage.kept("original", "ada") == before
    assert await ask_process(stage, "three", "original", user_id="ada") == "one, two, three"


async def test_two_forks_at_once(stage: Stage, client: Any) -> None:
    stage.play(heard)
    root = await say(client, "root")
    await say(client, "newest", previous_response_id=root.id)
    branches = [f"branch {number}" for number in range(4)]
    answers = await asyncio.gather(*(say(client, text, previous_response_id=root.id) for text in branches))
    assert [answer.output_text for answer in answers] == [f"root, {text}" for text in branches]


async def test_two_continuations_of_the_newest_at_once_do_not_see_each_other(
    stage: Stage, client: Any
) -> None:
    def script(request: Request) -> Reply:
        told = ", ".join(user_texts(request))
        return told if last_user_text(request) == "root" else [Gate("both"), told]

    stage.play(script)
    root = await say(client, "root")
    asked = [
        asyncio.create_task(say(client, text, previous_response_id=root.id)) for text in ("left", "right")
    ]
    async with asyncio.timeout(20):
        await stage.model.wait_at("both", 2)
    stage.model.open("both")
    assert {(await task).output_text for task in asked} == {"root, left", "root, right"}


async def test_instructions_are_for_one_response(stage: Stage, client: Any) -> None:
    stage.play(heard)
    first = await say(client, "one", instructions="Speak like a pirate.")
    assert first.instructions == "Speak like a pirate."
    assert "pirate" in spoken_to_the_model(stage)
    second = await say(client, "two", previous_response_id=first.id)
    assert second.instructions is None
    assert "pirate" not in spoken_to_the_model(stage)
    assert second.output_text == "one, two"
    await say(client, "three", previous_response_id=second.id, instructions="Speak like a judge.")
    assert "judge" in spoken_to_the_model(stage)
    assert "pirate" not in spoken_to_the_model(stage)


def spoken_to_the_model(stage: Stage) -> str:
    """All text of the newest model call."""
    return "\n".join(text_of(message) for message in stage.model.requests[-1]["messages"])


async def test_an_unknown_previous_response_is_named(stage: Stage, client: Any) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        await say(client, "one", previous_response_id="resp_unknown")
    assert caught.value.status_code in (400, 404)
    assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")


async def test_a_failed_response_is_continued_from_the_last_good_state(stage: Stage, client: Any) -> None:
    stage.play(lambda request: Fail(400, "no") if last_user_text(request) == "two" else heard(request))
    first = await say(client, "one")
    failed = await client.responses.create(model="m", input="two", previous_response_id=first.id)
    assert failed.status == "failed"
    third = await say(client, "three", previous_response_id=first.id)
    assert third.output_text == "one, three"


# -- conversations -----------------------------------------------------------------------------------------------------


async def test_a_conversation_remembers(stage: Stage, client: Any) -> None:
    stage.play(heard)
    conversation = await client.conversations.create(metadata={"topic": "names"})
    assert conversation.id.startswith("conv_")
    first = await say(client, "one", conversation=conversation.id)
    assert first.conversation.id == conversation.id
    second = await say(client, "two", conversation={"id": conversation.id})
    assert second.output_text == "one, two"
    found = await client.conversations.retrieve(conversation.id)
    assert found.metadata == {"topic": "names"}
    updated = await client.conversations.update(conversation.id, metadata={"topic": "numbers"})
    assert updated.metadata == {"topic": "numbers"}


async def test_a_conversation_is_a_session_of_process_too(stage: Stage, client: Any) -> None:
    stage.play(heard)
    conversation = (await client.conversations.create()).id
    assert (await say(client, "one", conversation=conversation)).output_text == "one"
    assert await ask_process(stage, "two", conversation) == "one, two"
    assert (await say(client, "three", conversation=conversation)).output_text == "one, two, three"
    kept = await stage.kept(conversation)
    assert kept["turns"] == 3
    assert [asked for _, asked, _ in kept["log"]] == ["one", "two", "three"]


async def test_a_session_id_in_the_body_addresses_the_session(stage: Stage, client: Any) -> None:
    stage.play(heard)
    ids = {"session_id": "by id", "user_id": "ada"}
    assert await ask_process(stage, "one", session="by id", user_id="ada") == "one"
    assert (await say(client, "two", extra_body=ids)).output_text == "one, two"
    other = await say(client, "two", extra_body={"session_id": "by id", "user_id": "ben"})
    assert other.output_text == "two"


async def test_a_response_is_a_turn_that_process_finds(stage: Stage, client: Any) -> None:
    stage.play(["Here."])
    made = await say(client, "Where?")
    rejoined = await stage.client.rejoin(made.id)
    assert await rejoined.ending() == ("completed", "Here.")


async def test_the_items_of_a_conversation(stage: Stage, client: Any) -> None:
    stage.play(heard)
    given = [{"type": "message", "role": "user", "content": "zero"}]
    conversation = (await client.conversations.create(items=given)).id
    await say(client, "one", conversation=conversation)
    items = [item async for item in client.conversations.items.list(conversation, order="asc", limit=1)]
    assert [(item.role, item.content[0].text) for item in items] == [
        ("user", "zero"),
        ("user", "one"),
        ("assistant", "zero, one"),
    ]
    newest = await client.conversations.items.list(conversation, limit=1)
    assert newest.data[0].id == items[-1].id
    found = await client.conversations.items.retrieve(items[1].id, conversation_id=conversation)
    assert found.content[0].text == "one"
    added = await client.conversations.items.create(
        conversation, items=[{"type": "message", "role": "user", "content": "between"}]
    )
    assert added.data[0].content[0].text == "between"
    kept = await client.conversations.items.delete(added.data[0].id, conversation_id=conversation)
    assert kept.id == conversation


async def test_a_conversation_is_deleted(stage: Stage, client: Any) -> None:
    conversation = (await client.conversations.create()).id
    deleted = await client.conversations.delete(conversation)
    assert (deleted.id, deleted.object, deleted.deleted) == (conversation, "conversation.deleted", True)
    with pytest.raises(openai.NotFoundError):
        await client.conversations.retrieve(conversation)


async def test_a_conversation_and_a_previous_response_are_too_much(stage: Stage, client: Any) -> None:
    first = await say(client, "one")
    with pytest.raises(openai.BadRequestError):
        await say(client, "two", previous_response_id=first.id, conversation="conv_1")
