"""Turns of real agents in a server process, at both levels of use: order, isolation, agreement, clients that go."""

from __future__ import annotations

import asyncio
import time

import pytest

from kits.http_client import HttpExchange
from kits.scripted_model_script import (
    Gate,
    Hang,
    Reply,
    Request,
    Say,
    Script,
    friday,
    last_user_text,
    user_texts,
)
from kits.stage import Stage
from kits.transport_kit import Refused
from kits.wire_grammar import check_stream, texts

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]


def numbered(request: Request) -> str:
    """Which question of the conversation it answers: shows lost, doubled and mixed-up history."""
    return f"{len(user_texts(request))}: {last_user_text(request)}"


def halting_at(*questions: str) -> Script:
    """Answers `numbered`; to the questions named it says half, waits at the gate of that name, and says the rest."""

    def script(request: Request) -> Reply:
        question = last_user_text(request)
        if question in questions:
            return [Say("half "), Gate(question), Say(numbered(request))]
        return Say(numbered(request))

    return script


def hanging_at(question: str) -> Script:
    """Answers `numbered`; to this question it says half and hangs."""

    def script(request: Request) -> Reply:
        if last_user_text(request) == question:
            return [Say("half "), Hang()]
        return Say(numbered(request))

    return script


async def answer(exchange: HttpExchange) -> str:
    """The text of a turn that went well, whose stream has the right form."""
    ending = check_stream(await exchange.rest())
    assert ending["status"] == "completed", ending["error"]
    return "".join(texts(ending))


async def ask(stage: Stage, question: str, session: str | None = None, **options: object) -> str:
    return await answer(await stage.client.ask(question, session, **options))


# -- order -------------------------------------------------------------------------------------------------------------


async def test_ten_turns_at_once_on_one_session_count_to_ten(stage: Stage) -> None:
    stage.play(lambda request: [Gate("ten"), Say(numbered(request))])
    questions = [f"question {number}" for number in range(10)]
    exchanges = await asyncio.gather(*(stage.client.ask(question, "ten") for question in questions))
    stage.model.open("ten")  # all ten are accepted by now
    answers = await asyncio.gather(*map(answer, exchanges))
    assert sorted(int(text.partition(":")[0]) for text in answers) == list(range(1, 11))
    assert [text.partition(": ")[2] for text in answers] == questions

    in_order = sorted(answers, key=lambda text: int(text.partition(":")[0]))
    kept = await stage.kept("ten")
    assert kept["turns"] == 10
    assert kept["said"] == [
        line for text in in_order for line in (["user", text.partition(": ")[2]], ["assistant", text])
    ]
    assert kept["log"] == [["completed", text.partition(": ")[2], text] for text in in_order]


async def test_many_turns_without_a_session_id_run_at_once(stage: Stage) -> None:
    stage.play(lambda request: [Gate("many"), Say(numbered(request))])
    asking = [asyncio.create_task(stage.client.ask(f"question {number}")) for number in range(25)]
    await stage.model.wait_open(25)
    stage.model.open("many")
    exchanges = await asyncio.gather(*asking)
    assert await asyncio.gather(*map(answer, exchanges)) == [f"1: question {number}" for number in range(25)]
    assert len({exchange.events[0]["session_id"] for exchange in exchanges}) == 25


async def test_ids_that_look_alike_when_joined_do_not_meet(stage: Stage) -> None:
    stage.play(friday())
    keys = [("a", "b_c"), ("a_b", "c"), ("a_b_c", "x"), ("x", "a_b_c"), ("b_c", "a"), ("c", "a_b")]
    names = ["Ada", "Ben", "Cleo", "Dan", "Eve", "Finn"]
    for (user, session), name in zip(keys, names, strict=True):
        assert name in await ask(stage, f"My name is {name}.", session, user_id=user)
    for (user, session), name in zip(keys, names, strict=True):
        assert await ask(stage, "What is my name?", session, user_id=user) == f"Your name is {name}."


async def test_created_at_is_the_requests_own_time(stage: Stage) -> None:
    stage.play(lambda request: [Gate("time"), Say("done")])
    before = int(time.time())
    exchange = await stage.client.ask("When?")
    accepted = time.time()
    stage.model.open("time")
    await answer(exchange)
    ending = exchange.events[-1]
    assert before <= ending["created_at"] <= accepted
    assert ending["created_at"] <= ending["completed_at"] <= time.time()


# -- clients that go ---------------------------------------------------------------------------------------------------


async def test_a_client_that_drops_stops_nothing_and_state_and_history_agree(stage: Stage) -> None:
    stage.play(halting_at("two"))
    assert await ask(stage, "one", "drop") == "1: one"
    exchange = await stage.client.ask("two", "drop")
    assert await exchange.next_text() == "half "
    await exchange.leave()
    third = await stage.client.ask("three", "drop")  # waits for the one that nobody follows
    stage.model.open("two")
    assert await answer(third) == "3: three"
    assert stage.prompts[-1] == ["one", "two", "three"]
    assert stage.model.aborted == 0
    rejoined = await stage.client.rejoin(exchange.id)
    assert await rejoined.ending() == ("completed", "half 2: two")
    kept = await stage.kept("drop")
    assert kept["turns"] == 3
    assert [text for _, text in kept["said"]] == ["one", "1: one", "two", "half 2: two", "three", "3: three"]
    assert [status for status, _, _ in kept["log"]] == ["completed"] * 3


@pytest.mark.parametrize("policy", ["cancel", "grace=0.1"])
async def test_a_client_that_asked_for_it_takes_its_turn_with_it(stage: Stage, policy: str) -> None:
    session = f"leave {policy}"
    stage.play(hanging_at("two"))
    await ask(stage, "one", session)
    exchange = await stage.client.ask("two", session, disconnect=policy)
    assert await exchange.next_text() == "half "
    await exchange.leave()
    await stage.model.wait_aborted()
    rejoined = await stage.client.rejoin(exchange.id)
    assert await rejoined.ending() == ("cancelled", "half ")
    await assert_goes_on_from_the_last_good_state(stage, session)


async def test_a_client_that_waits_for_one_object_may_take_its_turn_with_it(stage: Stage) -> None:
    stage.play(hanging_at("two"))
    await ask(stage, "one", "object")
    request = {"input": [{"content": "two"}], "session_id": "object", "stream": False, "disconnect": "cancel"}
    waiting = asyncio.create_task(stage.client.json("POST", "/process", json=request))
    await stage.model.wait_at()
    waiting.cancel()
    await stage.model.wait_aborted()
    # The model has said half; whether the server had read it when the client went, nobody can know.
    await assert_goes_on_from_the_last_good_state(stage, "object", half=("", "half "))


async def test_a_client_that_comes_back_within_the_grace_keeps_its_turn(stage: Stage) -> None:
    stage.play(halting_at("grace"))
    exchange = await stage.client.ask("grace", "grace", disconnect="grace=60")
    assert await exchange.next_text() == "half "
    await exchange.leave()
    rejoined = await stage.client.rejoin(exchange.id)
    stage.model.open("grace")
    assert await rejoined.ending() == ("completed", "half 1: grace")


async def test_a_live_stream_is_rejoined_after_the_last_event_seen(stage: Stage) -> None:
    stage.play(lambda request: ["one two ", Gate("rejoin"), "three four"])
    exchange = await stage.client.ask("count", "rejoin")
    assert [await exchange.next_text() for _ in range(2)] == ["one ", "two "]
    seen = exchange.events[-1]["sequence_number"]
    await exchange.leave()
    rejoined = await stage.client.rejoin(exchange.id, str(seen - 1))
    assert rejoined.events[0] == exchange.events[-1]  # type: ignore[attr-defined]
    stage.model.open("rejoin")
    rest = await rejoined.rest()  # type: ignore[attr-defined]
    check_stream(rest, first=seen)
    assert check_stream([*exchange.events[:-1], *rest])["status"] == "completed"
    assert texts(rest[-1]) == ["one two three four"]


# -- stopping ----------------------------------------------------------------------------------------------------------


async def assert_goes_on_from_the_last_good_state(
    stage: Stage, session: str, half: tuple[str, ...] = ("half ",)
) -> None:
    """After "one" went well and "two" was stopped: the model hears nothing of "two", and all that is kept agrees.

    `half`: what "two" may have said when it was stopped.
    """
    assert await ask(stage, "three", session) == "2: three"
    assert stage.prompts[-1] == ["one", "three"]
    kept = await stage.kept(session)
    assert kept["turns"] == 2
    assert [text for _, text in kept["said"]] == ["one", "1: one", "three", "2: three"]
    one, two, three = kept["log"]
    assert (one, three) == (["completed", "one", "1: one"], ["completed", "three", "2: three"])
    assert two in [["cancelled", "two", said] for said in half]


async def test_cancelling_by_id_aborts_the_model_call(stage: Stage) -> None:
    stage.play(hanging_at("two"))
    await ask(stage, "one", "cancel")
    exchange = await stage.client.ask("two", "cancel")
    assert await exchange.next_text() == "half "
    await stage.client.cancel(exchange.id)
    ending = check_stream(await exchange.rest())
    assert (ending["status"], texts(ending)) == ("canceled", ["half "])
    await stage.model.wait_aborted()
    await stage.client.cancel(exchange.id)  # twice is fine, and stops nobody else
    await assert_goes_on_from_the_last_good_state(stage, "cancel")


async def test_a_turn_is_cancelled_before_the_models_first_word(stage: Stage) -> None:
    stage.play(lambda request: Hang() if last_user_text(request) == "two" else Say(numbered(request)))
    await ask(stage, "one", "early")
    exchange = await stage.client.ask("two", "early")
    await stage.model.wait_at()
    await stage.client.cancel(exchange.id)
    assert check_stream(await exchange.rest())["status"] == "canceled"
    await stage.model.wait_aborted()
    assert await ask(stage, "three", "early") == "2: three"
    assert stage.prompts[-1] == ["one", "three"]


async def test_a_waiting_turn_is_cancelled_and_never_runs(stage: Stage) -> None:
    stage.play(halting_at("one"))
    first = await stage.client.ask("one", "waiting")
    second = await stage.client.ask("two", "waiting")
    await stage.client.cancel(second.id)
    assert check_stream_of_the_unbegun(await second.rest()) == "canceled"
    stage.model.open("one")
    assert await answer(first) == "half 1: one"
    assert await ask(stage, "three", "waiting") == "2: three"
    assert stage.prompts == [["one"], ["one", "three"]]


def check_stream_of_the_unbegun(events: list[dict[str, object]]) -> object:
    """The status of a turn that ended before it began: created, then its ending."""
    assert [event["status"] for event in events[:-1]] in (["created"], ["created", "in_progress"])
    return events[-1]["status"]


async def test_an_interruption_aborts_the_model_call_and_runs(stage: Stage) -> None:
    stage.play(hanging_at("two"))
    await ask(stage, "one", "interrupt")
    first = await stage.client.ask("two", "interrupt")
    assert await first.next_text() == "half "
    assert await ask(stage, "three", "interrupt", overlap="interrupt") == "2: three"
    assert await first.ending() == ("cancelled", "half ")
    await stage.model.wait_aborted()
    assert stage.prompts[-1] == ["one", "three"]


async def test_a_busy_session_refuses_who_will_not_wait(stage: Stage) -> None:
    stage.play(halting_at("busy"))
    first = await stage.client.ask("busy", "busy")
    assert await first.next_text() == "half "
    with pytest.raises(Refused, match="session_busy"):
        await stage.client.ask("now", "busy", overlap="reject")
    stage.model.open("busy")
    assert await answer(first) == "half 1: busy"
    assert await ask(stage, "now", "busy", overlap="reject") == "2: now"
