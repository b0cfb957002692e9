"""A turn that has ended and was like nearly all is written at once, as it would be event by event."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.events import Event
from greenroom.actors.messages import AnswerFormat, Turn, TurnOptions, Usage
from greenroom.transports.responses_echo import ResponseEcho
from greenroom.transports.responses_encode import ResponsesEncoder
from greenroom.transports.responses_object import ResponseShape
from greenroom.transports.responses_usual_frames import usual_frames
from kits.turns import Telling, a_turn, told_turns

SURROGATE = "half a pair \ud83d"
JSON = TurnOptions(answer=AnswerFormat(kind="json_object"))


def one_text(*deltas: str, reasoning: bool = False, usage: Usage | None = None) -> list[Event]:
    told = Telling()
    told.start()
    draft = told.composer.reasoning() if reasoning else told.composer.message()
    for delta in deltas:
        draft.text(delta)
    draft.usage = usage
    told.complete()
    return told.events


def asked(background: bool = False, options: TurnOptions | None = None) -> Turn:
    echo = ResponseEcho(model="100%b of 50%", background=background)
    return msgspec.structs.replace(a_turn("resp_%d"), echo=echo, options=options)


one_texts = st.lists(st.text(max_size=5) | st.just(SURROGATE), max_size=5).map(lambda said: one_text(*said))


@given(told_turns() | one_texts, st.booleans(), st.sampled_from([None, JSON, TurnOptions(instructions="Hi")]))
def test_it_has_the_frames_it_has_event_by_event(
    events: list[Event], background: bool, options: TurnOptions | None
) -> None:
    turn = asked(background, options)
    each = ResponsesEncoder(turn)
    expected: list[bytes] = []
    for event in events:
        each.feed(event, expected)
    assert ResponsesEncoder.whole(turn, events) == expected


@pytest.mark.parametrize(
    ("events", "background", "is_usual"),
    [
        (one_text("Hello", " you"), False, True),
        (one_text("Hello"), True, False),
        (one_text(), False, False),
        (one_text("Hello", reasoning=True), False, False),
        (one_text("Hello", usage=Usage(1, 2)), False, False),
        (one_text(SURROGATE), False, False),
        (one_text("Hello")[:-1], False, False),
        ([], False, False),
    ],
)
def test_which_turns_are_usual(events: list[Event], background: bool, is_usual: bool) -> None:
    assert (usual_frames(ResponseShape(asked(background)), events) is not None) == is_usual


def test_the_template_of_an_echo_is_made_once_if_it_is_small() -> None:
    small, large = ResponseEcho(model="friday"), ResponseEcho(model="friday", instructions="x" * 5_000)
    turns = [msgspec.structs.replace(asked(), echo=echo) for echo in (small, large)]
    one, other, again = (ResponseShape(turns[at])._template for at in (0, 1, 0))
    assert one is again
    assert ResponseShape(turns[1])._template is not other
