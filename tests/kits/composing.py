"""Whatever an adapter may write with a composer: random scripts of it, for property tests."""

from collections.abc import Callable
from itertools import count
from typing import Any

from hypothesis import strategies as st

from greenroom.actors.composer import Composer, Listener
from greenroom.actors.drafts import CallDraft, Draft, MessageDraft, OutputDraft
from greenroom.actors.events import Event
from greenroom.actors.messages import Image, Text

Deed = Callable[["Writer"], None]


class Writer:
    """A composer, what it wrote, and the drafts an adapter would hold."""

    def __init__(self, budget: int = 1 << 62) -> None:
        ids = count(1)
        self.events: list[Event] = []
        self.composer = Composer(Listener(self.events.append), lambda: str(next(ids)), budget)
        self.drafts: list[Draft] = []

    def a_draft(self, number: int, kind: type[Any]) -> Any:
        """An open draft of a kind, whichever the number picks."""
        fit = [draft for draft in self.drafts if isinstance(draft, kind) and draft.open]
        return fit[number % len(fit)] if fit else None


def on(kind: type[Any], number: int, deed: Callable[[Any], None]) -> Deed:
    def do(writer: Writer) -> None:
        draft = writer.a_draft(number, kind)
        if draft is not None:
            deed(draft)

    return do


def opening(new: Callable[[Composer], Draft]) -> Deed:
    return lambda writer: writer.drafts.append(new(writer.composer))


words = st.sampled_from(["", "a", "Hello ", "wörld", "😀", "\n"])
numbers = st.integers(0, 3)
calls = st.sampled_from(["call_1", "call_2", "call_3"])
content = st.sampled_from([Text("whole"), Image("https://example.org/cat.png")])

openings = st.one_of(
    st.sampled_from(["assistant", "user", "system"]).map(lambda role: opening(lambda c: c.message(role))),
    st.just(opening(lambda c: c.reasoning())),
    calls.map(lambda call: opening(lambda c: c.call(call, "search"))),
    calls.map(lambda call: opening(lambda c: c.output_of(call, "search", "a server"))),
)
deltas = st.one_of(
    words.map(lambda word: lambda writer: writer.composer.say(word)),
    content.map(lambda part: lambda writer: writer.composer.show(part)),
    st.builds(lambda n, word: on(MessageDraft, n, lambda draft: draft.text(word)), numbers, words),
    st.builds(lambda n, part: on(MessageDraft, n, lambda draft: draft.content(part)), numbers, content),
    st.builds(lambda n: on(MessageDraft, n, lambda draft: draft.end_text()), numbers),
    st.builds(lambda n, word: on(CallDraft, n, lambda draft: draft.arguments(word)), numbers, words),
    st.builds(lambda n, part: on(OutputDraft, n, lambda draft: draft.progress([part])), numbers, content),
)
endings = st.one_of(
    st.just(lambda writer: writer.composer.end_speech()),
    st.builds(lambda n: on(Draft, n, lambda draft: draft.done()), numbers),
    st.builds(lambda n, part: on(OutputDraft, n, lambda draft: draft.done([part])), numbers, content),
)
rewrites = st.one_of(
    st.builds(lambda n, word: on(MessageDraft, n, lambda draft: draft.text_so_far(word)), numbers, words),
    st.builds(lambda n, word: on(CallDraft, n, lambda draft: draft.arguments_so_far(word)), numbers, words),
    st.builds(lambda n, word: on(CallDraft, n, lambda draft: draft.done(word)), numbers, words),
)
deeds = st.lists(st.one_of(openings, deltas, endings), max_size=40)


def written(script: list[Deed]) -> Writer:
    """What comes of a script."""
    writer = Writer()
    for deed in script:
        deed(writer)
    return writer
