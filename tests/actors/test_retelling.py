"""A composer that is brought to where another one was ends what that one had begun, as that one would have."""

from itertools import count

from hypothesis import given

from greenroom.actors.composer import Listener
from greenroom.actors.events import (
    Event,
    Item,
    ItemStarted,
    TurnAccepted,
    TurnCancelled,
    TurnCompleted,
    TurnStarted,
)
from greenroom.actors.retelling import retold
from kits.composing import Deed, Writer, deeds, written
from kits.grammar import check_events, check_items

BEGINNING: list[Event] = [TurnAccepted("t", 1.0), TurnStarted()]


def told(output: list[Item], begun: set[str]) -> dict[str, object]:
    """What there is of those items that had begun."""
    return {item.id: (item.kind, item.role, item.parts) for item in output if item.id in begun}


@given(deeds)
def test_it_gives_up_as_the_first_would_have(script: list[Deed]) -> None:
    first, more = written(script), list[Event]()
    said = list(first.events)
    other = retold([*BEGINNING, *said], Listener(more.append), map(str, count(1000)).__next__)
    assert not more, "what was said before is not said again"
    other.abandon()
    first.composer.abandon()
    begun = {event.item for event in said if isinstance(event, ItemStarted)}
    # Which of its messages were plain speech, that the outputs of broken calls end, is not in the events.
    assert told(other.output, begun) == told(first.composer.output, begun)
    assert len(other.output) == len(first.composer.output)
    check_events([*BEGINNING, *said, *more, TurnCancelled(2.0, "died", tuple(other.output))])


@given(deeds, deeds)
def test_another_attempt_goes_on_in_the_same_log(script: list[Deed], second: list[Deed]) -> None:
    first = written(script)
    writer = Writer()
    writer.events = list(first.events)
    writer.composer = retold(
        [*BEGINNING, *first.events], Listener(writer.events.append), map(str, count(1000)).__next__
    )
    writer.composer.close_broken()
    assert check_items(writer.events) == writer.composer.output, "all that was open is closed"
    writer.composer.sink = Listener(writer.events.append)
    for deed in second:
        deed(writer)
    writer.composer.close()
    output = tuple(writer.composer.output)
    check_events([*BEGINNING, *writer.events, TurnCompleted(2.0, output)])


@given(deeds)
def test_what_was_said_counts_against_the_bound(script: list[Deed]) -> None:
    first = written(script)
    other = retold(first.events, Listener(first.events.append), str)
    assert other.spent <= first.composer.spent
