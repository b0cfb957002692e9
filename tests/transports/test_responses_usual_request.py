"""What nearly all requests for a response are is read typed, and the same as what reads everything reads it."""

from collections.abc import Callable
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from greenroom.actors.errors import GreenroomError
from greenroom.actors.ids import Sources
from greenroom.transports.json_checks import json_object
from greenroom.transports.responses_decode import (
    CreateRequest,
    Settings,
    decode_create,
    read_create,
    turn_of,
)
from greenroom.transports.responses_listing import input_items
from greenroom.transports.responses_usual_request import read_usual

SETTINGS = Settings(model="friday", label="friday")


def sources() -> Sources:
    numbers = count(1)
    return Sources(now=lambda: 1795328012.5, uuid=lambda: f"uuid-{next(numbers)}")


def said_by(create: CreateRequest) -> tuple[object, object]:
    """All a request says, whichever way it was read: its items are listed the same, whether that was done at once or
    is done when somebody asks."""
    turn = structs.replace(create.turn, echo=structs.replace(create.turn.echo, items=()))
    bare = structs.replace(create, read=None, turn=turn)
    return bare, msgspec.json.encode(input_items(turn_of(create)))


text = st.text(max_size=4) | st.none()
part: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"text": text, "type": st.sampled_from(["input_text", "output_text", "text", "refusal"])},
    optional={"annotations": st.just([])},
)
message = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system", "developer"]),
        "content": text | st.lists(part, max_size=2),
    },
    optional={
        "type": st.sampled_from(["message", "", None]),
        "id": text | st.just("x" * 101),
        "status": st.sampled_from(["completed", "incomplete", "", None]),
        "name": text,
    },
)
flag = st.booleans() | st.none() | st.just(1)
bodies = st.fixed_dictionaries(
    {"input": text | st.lists(message, max_size=3)},
    optional={
        "model": text | st.just("x" * 101),
        "stream": flag,
        "store": flag,
        "background": flag,
        "instructions": text,
        "previous_response_id": text,
        "session_id": text,
        "user_id": text | st.just("ada"),
        "conversation": text,
        "temperature": st.floats(0, 3) | st.none(),
    },
)


def outcome(read: Callable[[], CreateRequest]) -> object:
    try:
        return said_by(read())
    except GreenroomError as error:
        return type(error), error.message, error.field


@given(bodies, st.sampled_from([None, "ada"]))
def test_it_is_read_as_what_reads_everything_reads_it(body: dict[str, Any], principal: str | None) -> None:
    raw = msgspec.json.encode(body)

    def thorough() -> CreateRequest:
        fields = json_object(raw, "input")
        return read_create(fields, sources=sources(), settings=SETTINGS, principal=principal)

    assert outcome(thorough) == outcome(
        lambda: decode_create(raw, sources=sources(), settings=SETTINGS, principal=principal)
    )


USUAL: list[dict[str, Any]] = [
    {"model": "any", "input": "Hi", "stream": True},
    {"input": "Hi", "instructions": "Be brief", "previous_response_id": "resp_1", "store": False},
    {"input": [{"role": "user", "content": "Hi"}], "user_id": "u", "session_id": "s", "background": True},
    {"input": [{"role": "assistant", "type": "message", "content": [{"type": "output_text", "text": "Hi"}]}]},
]


@pytest.mark.parametrize("body", USUAL)
def test_usual_requests_are_read_so(body: dict[str, Any]) -> None:
    assert read_usual(msgspec.json.encode(body)) is not None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xef\xbb\xbf{}",
        b'{"input": "\xff"}',
        b'{"input": "Hi", "n": 1e999}',
        b"[" * 1000,
        b'{"input": [' * 99,
    ],
)
def test_what_is_no_usual_request_is_left_to_what_reads_everything(body: bytes) -> None:
    assert read_usual(body) is None


def test_requests_that_are_alike_share_what_their_responses_repeat() -> None:
    one, other = (
        decode_create(
            msgspec.json.encode({"model": "any", "input": said}), sources=sources(), settings=SETTINGS
        )
        for said in ("Hi", "Ho")
    )
    assert one.turn.echo is other.turn.echo
