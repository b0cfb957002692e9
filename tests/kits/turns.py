"""Turns as applications make them, for tests of what reads events: a strategy, and the turn to go with it."""

from collections.abc import Callable
from itertools import count
from typing import Any

from hypothesis import strategies as st

from greenroom.actors.composer import Composer, Listener
from greenroom.actors.drafts import CallDraft, Draft, MessageDraft, OutputDraft
from greenroom.actors.events import (
    Event,
    Terminal,
    TurnAccepted,
    TurnCancelled,
    TurnCompleted,
    TurnFailed,
    TurnStarted,
)
from greenroom.actors.messages import (
    AgentRequest,
    Audio,
    Data,
    ErrorInfo,
    File,
    Image,
    Message,
    Refusal,
    SessionKey,
    Text,
    Turn,
    Usage,
    Video,
)

Deed = Callable[["Telling"], None]

BEGAN = 1795328012.25
ENDED = 1795328013.75


def a_turn(turn_id: str = "response_1", session_id: str = "s1") -> Turn:
    """A turn that asks for nothing in particular."""
    request = AgentRequest(input=(Message((Text("hi"),)),))
    return Turn(id=turn_id, key=SessionKey("u1", session_id), request=request, created_at=BEGAN)


class Telling:
    """A turn while it is told: its composer, the drafts that are open, the events so far."""

    def __init__(self) -> None:
        ids = count(1)
        self.events: list[Event] = [TurnAccepted("response_1", BEGAN)]
        self.composer = Composer(Listener(self.events.append), lambda: str(next(ids)))
        self.drafts: list[Draft] = []

    def start(self) -> None:
        self.events.append(TurnStarted())

    def an_open(self, kind: type[Any], number: int) -> Any:
        fit = [draft for draft in self.drafts if isinstance(draft, kind) and draft.open]
        return fit[number % len(fit)] if fit else None

    def complete(self) -> None:
        composer = self.composer
        composer.close()
        self.events.append(TurnCompleted(ENDED, tuple(composer.output), composer.usage))

    def fail(self, error: ErrorInfo) -> None:
        composer = self.composer
        composer.abandon()
        self.events.append(TurnFailed(ENDED, error, tuple(composer.output), composer.usage))

    def cancel(self, reason: str) -> None:
        composer = self.composer
        composer.abandon()
        self.events.append(TurnCancelled(ENDED, reason, tuple(composer.output), composer.usage))

    @property
    def ending(self) -> Terminal:
        last = self.events[-1]
        assert isinstance(last, Terminal)
        return last


texts = st.sampled_from(
    ["", "a", "Hello ", 'wörld "\\/\n', "😀", "\ud83d", "\ude00", "\0\x7f\u2028"]
) | st.text(max_size=30)
names = st.sampled_from(["", "call_1", "tööl", '"quoted"\n'])
labels = st.none() | names
data = st.dictionaries(
    texts, st.none() | st.floats() | st.lists(st.integers(), max_size=2) | texts, max_size=2
)
contents = st.one_of(
    st.builds(Text, texts),
    st.builds(Data, data),
    st.builds(Image, st.sampled_from(["https://x/y.png", "data:image/png;base64,QUJD", ""])),
    st.builds(Audio, texts, st.none() | st.sampled_from(["wav", "audio/mpeg"])),
    st.builds(Video, texts),
    st.builds(File, texts, st.none() | texts, st.none() | texts, st.none() | texts),
    st.builds(Refusal, texts),
)
outputs = st.lists(contents, max_size=3)
numbers = st.integers(0, 5)
usages = st.builds(Usage, numbers, numbers, numbers, numbers)


def _open(new: Callable[[Composer], Draft]) -> Deed:
    return lambda told: told.drafts.append(new(told.composer))


def _on(kind: type[Any], number: int, deed: Callable[[Any], None]) -> Deed:
    def do(told: Telling) -> None:
        draft = told.an_open(kind, number)
        if draft is not None:
            deed(draft)

    return do


def _describe(usage: Usage | None, metadata: dict[str, Any] | None) -> Callable[[Draft], None]:
    def describe(draft: Draft) -> None:
        draft.usage, draft.metadata = usage, metadata

    return describe


deeds: st.SearchStrategy[Deed] = st.one_of(
    st.builds(lambda text: lambda told: told.composer.say(text), texts),
    st.builds(lambda part: lambda told: told.composer.show(part), contents),
    st.builds(lambda usage: lambda told: told.composer.report_usage(usage), usages),
    st.sampled_from([_open(Composer.message), _open(Composer.reasoning)]),
    st.builds(lambda *call: _open(lambda composer: composer.call(*call)), names, names, labels),
    st.builds(lambda *call: _open(lambda composer: composer.output_of(*call)), names, names, labels),
    st.builds(lambda n, text: _on(MessageDraft, n, lambda draft: draft.text(text)), numbers, texts),
    st.builds(lambda n, text: _on(MessageDraft, n, lambda draft: draft.text_so_far(text)), numbers, texts),
    st.builds(lambda n, part: _on(MessageDraft, n, lambda draft: draft.content(part)), numbers, contents),
    st.builds(lambda n, text: _on(CallDraft, n, lambda draft: draft.arguments(text)), numbers, texts),
    st.builds(
        lambda n, whole: _on(CallDraft, n, lambda draft: draft.done(whole)), numbers, st.none() | texts
    ),
    st.builds(lambda n, parts: _on(OutputDraft, n, lambda draft: draft.progress(parts)), numbers, outputs),
    st.builds(lambda n, parts: _on(OutputDraft, n, lambda draft: draft.done(parts)), numbers, outputs),
    st.builds(
        lambda n, *said: _on(Draft, n, _describe(*said)), numbers, st.none() | usages, st.none() | data
    ),
    st.builds(lambda n: _on(Draft, n, lambda draft: draft.done()), numbers),
)
errors = st.builds(ErrorInfo, names, texts, st.none() | names)
endings: st.SearchStrategy[Deed] = st.one_of(
    st.just(Telling.complete),
    st.builds(lambda error: lambda told: told.fail(error), errors),
    st.builds(lambda reason: lambda told: told.cancel(reason), texts),
)


@st.composite
def told_turns(draw: st.DrawFn, most: int = 30) -> list[Event]:
    """The events of a whole turn."""
    told = Telling()
    if draw(st.integers(0, 9)):
        told.start()
        for deed in draw(st.lists(deeds, max_size=most)):
            deed(told)
        draw(endings)(told)
    else:
        told.cancel("waiting")
    return told.events
