"""The checker of Responses streams finds what it is for: each rule, broken alone, is named."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import msgspec
import pydantic
import pytest

from greenroom.actors.messages import FunctionTool, Refusal, Text, TurnOptions
from greenroom.transports.responses_encode import ResponsesEncoder, event_json
from greenroom.transports.sse import DONE
from kits.responses_rules import Json, check_response, check_stream, validate_types
from kits.turns import Telling, a_turn

Break = Callable[[list[Json]], Any]


def a_stream() -> list[Json]:
    """A reasoning, a server's tool, a message of two parts, a client's tool."""
    told = Telling()
    told.start()
    thought = told.composer.reasoning()
    thought.text("hm")
    thought.done()
    told.composer.call("c1", "add").done("{}")
    told.composer.output_of("c1", "add").done([Text("3")])
    told.composer.say("Three, ")
    told.composer.say("no?")
    told.composer.show(Refusal("no"))
    told.composer.call("c2", "weather").done("{}")
    told.complete()
    options = TurnOptions(tools=(FunctionTool(name="weather"),))
    frames: list[bytes] = []
    ResponsesEncoder(msgspec.structs.replace(a_turn("resp_1"), options=options)).feed_all(told.events, frames)
    return [msgspec.json.decode(event_json(frame) or b"") for frame in frames if frame is not DONE]


def at(events: list[Json], name: str, nth: int = 0) -> int:
    places = [place for place, event in enumerate(events) if event["type"] == f"response.{name}"]
    return places[nth]


def renumber(events: list[Json]) -> None:
    for number, event in enumerate(events):
        event["sequence_number"] = number


def without(name: str, nth: int = 0) -> Break:
    def broken(events: list[Json]) -> None:
        del events[at(events, name, nth)]
        renumber(events)

    return broken


def twice(name: str) -> Break:
    def broken(events: list[Json]) -> None:
        place = at(events, name)
        events.insert(place, deepcopy(events[place]))
        renumber(events)

    return broken


def with_(name: str, nth: int = 0, **fields: Any) -> Break:
    return lambda events: events[at(events, name, nth)].update(fields)


def with_item(name: str, nth: int = 0, /, **fields: Any) -> Break:
    return lambda events: events[at(events, name, nth)]["item"].update(fields)


def with_response(name: str, **fields: Any) -> Break:
    return lambda events: events[at(events, name)]["response"].update(fields)


BROKEN: list[tuple[Break, str]] = [
    (lambda events: events.clear(), "without events"),
    (with_("output_text.delta", sequence_number=0), "sequence numbers"),
    (without("created"), "begins with"),
    (without("in_progress"), "begins with"),
    (without("completed"), "terminal events"),
    (twice("completed"), "terminal events"),
    (without("output_item.added"), "was not added|has the output_index"),
    (without("output_item.done", -1), "left open"),
    (without("content_part.added"), "whose state is 'open'"),
    (without("output_text.delta"), "the deltas say"),
    (without("output_text.done"), "whose state is 'text'"),
    (without("content_part.done"), "whose state is 'said'"),
    (without("reasoning_summary_part.added"), "whose state is 'open'"),
    (without("reasoning_summary_text.done"), "whose state is 'text'"),
    (without("mcp_call.in_progress"), "whose state is 'open'"),
    (without("mcp_call_arguments.delta"), "whose state is 'running'"),
    (without("mcp_call.completed"), "whose state is 'said'"),
    (without("function_call_arguments.done"), "whose state is 'arguments'"),
    (without("refusal.delta"), "whose state is 'part'"),
    (with_("output_text.delta", output_index=0), "whose state is 'over'"),
    (with_("output_text.delta", item_id="msg_x"), "became msg_x"),
    (with_("output_text.delta", content_index=1), "content_index 1 is out of order"),
    (with_("output_text.delta", logprobs=None), "logprobs"),
    (with_("output_text.done", text="else"), "the deltas say"),
    (with_("content_part.done", part={"type": "output_text", "text": "else"}), "the text became"),
    (with_item("output_item.added", 1, id="rs_1"), "the id of a mcp_call"),
    (with_item("output_item.added", status="completed"), "added with the status"),
    (with_item("output_item.added", 2, content=[{"type": "output_text", "text": "a"}]), "added with content"),
    (with_item("output_item.added", type="hologram"), "an item of the type"),
    (with_item("output_item.done", 0, id="rs_2"), "id became"),
    (with_item("output_item.done", 1, name="sub"), "name became"),
    (with_item("output_item.done", 1, status="failed"), "ended otherwise"),
    (with_item("output_item.done", 1, arguments="[]"), "the arguments became"),
    (with_item("output_item.done", 2, content=[]), "were not announced"),
    (with_item("output_item.done", 3, status="in_progress"), "done with"),
    (with_response("completed", output=[]), "the output is"),
    (with_response("completed", id="resp_2"), "id was"),
    (with_response("completed", status="incomplete"), "incomplete_details|the status"),
    (with_response("completed", usage=None), "usage is None"),
    (with_response("completed", completed_at=None), "completed_at"),
    (with_response("completed", user=None), "user is null"),
    (with_response("created", created_at=1.5), "created_at"),
    (with_response("created", temperature=None), "temperature"),
    (with_response("created", service_tier=None), "service_tier"),
    (with_response("created", shoe_size=43), "shoe_size"),
    (with_response("created", output=[{"id": "a", "status": "completed"}]), "output before any item"),
    (lambda events: events[0]["response"].pop("error"), "without .*error"),
]


def test_a_stream_that_keeps_the_rules() -> None:
    events = a_stream()
    assert check_stream(events)["status"] == "completed"
    validate_types(events)
    validate_types(events[-1]["response"])


@pytest.mark.parametrize(
    ("broken", "named"), BROKEN, ids=[f"{n}-{named}" for n, (_, named) in enumerate(BROKEN)]
)
def test_a_broken_rule_is_named(broken: Break, named: str) -> None:
    events = deepcopy(a_stream())
    broken(events)
    with pytest.raises(AssertionError, match=named):
        check_stream(events)


def test_types_that_no_client_knows() -> None:
    with pytest.raises(AssertionError, match="the SDK knows no event"):
        validate_types([{"type": "response.reasoning.delta"}])
    events = a_stream()
    del events[at(events, "output_text.delta")]["logprobs"]
    with pytest.raises(pydantic.ValidationError):
        validate_types(events)


def test_a_response_that_ends_without_usage() -> None:
    response = a_stream()[-1]["response"]
    check_response(response)
    with pytest.raises(AssertionError, match="usage"):
        check_response({**response, "usage": None})
