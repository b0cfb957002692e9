"""The grammar of a turn's events, as a checker: what `greenroom.actors.events` promises, whoever wrote the events.

`check_events` takes a turn's whole log, `check_items` what lies between its start and its ending. Both raise
`AssertionError` that names the event, and give back the finished items in the order they were finished.

Deltas must join to the completed text. Where an adapter was made to rewrite what it had said, which deltas cannot
express, the caller says `rewrites=True`.
"""

from collections.abc import Iterable, Sequence

from greenroom.actors.events import (
    TERMINAL,
    ArgumentsDelta,
    Event,
    Item,
    ItemDone,
    ItemStarted,
    Part,
    PartDone,
    Terminal,
    TextDelta,
    ToolProgress,
    TurnAccepted,
    TurnCompleted,
    TurnStarted,
)
from greenroom.actors.messages import Text, ToolCall, ToolOutput

TEXTUAL = ("message", "reasoning")


class OpenItem:
    """One item between its start and its end."""

    def __init__(self, start: ItemStarted, rewrites: bool) -> None:
        self.start = start
        self.parts: list[Part] = []
        self.said: list[str] = []
        self.rewrites = rewrites

    def hear(self, event: TextDelta | ArgumentsDelta | ToolProgress | PartDone) -> None:
        kind = self.start.kind
        if isinstance(event, TextDelta):
            assert kind in TEXTUAL, f"text for a {kind}"
            assert event.text, "an empty delta"
            assert event.part == len(self.parts), (
                f"text for part {event.part} while part {len(self.parts)} is open"
            )
            self.said.append(event.text)
        elif isinstance(event, ArgumentsDelta):
            assert kind == "tool_call", f"arguments for a {kind}"
            assert event.text, "an empty delta"
            assert not self.parts, "arguments after the call was complete"
            self.said.append(event.text)
        elif isinstance(event, ToolProgress):
            assert kind == "tool_output", f"tool progress for a {kind}"
            assert not self.parts, "progress after the output was complete"
        else:
            self._part_done(event)

    def _part_done(self, event: PartDone) -> None:
        kind, part = self.start.kind, event.content
        assert event.part == len(self.parts), f"part {event.part} done, {len(self.parts)} was next"
        said = "".join(self.said)
        if kind == "tool_call":
            assert isinstance(part, ToolCall), f"a tool call made of {part!r}"
            self._same_call(part)
            assert self.rewrites or not said or part.arguments == said, (
                f"the deltas say {said!r}, not {part!r}"
            )
        elif kind == "tool_output":
            assert isinstance(part, ToolOutput), f"a tool output made of {part!r}"
            self._same_call(part)
        elif isinstance(part, Text):
            assert self.rewrites or not said or part.text == said, (
                f"the deltas say {said!r}, not {part.text!r}"
            )
        else:
            assert not isinstance(part, ToolCall | ToolOutput), f"a {kind} with {part!r}"
            assert not said, f"text {said!r} was not complete before {part!r}"
        self.said = []
        self.parts.append(part)

    def _same_call(self, part: ToolCall | ToolOutput) -> None:
        assert not self.parts, f"a {self.start.kind} has one part"
        named = (self.start.call_id, self.start.name, self.start.server_label)
        assert (part.call_id, part.name, part.server_label) == named, f"{part!r} is not of the call {named}"

    def done(self, item: Item) -> None:
        assert (item.id, item.kind, item.role) == (self.start.item, self.start.kind, self.start.role), item
        assert item.complete, f"{item!r} is done and not complete"
        assert not self.said, f"the item was done before its text {''.join(self.said)!r} was complete"
        assert item.parts == tuple(self.parts), f"{item.parts!r} were not announced; {self.parts!r} were"
        if item.kind not in TEXTUAL:
            assert len(item.parts) == 1, f"a {item.kind} has one part, not {item.parts!r}"

    def check_partial(self, item: Item) -> None:
        """The item as an ending keeps it that came before the item was done."""
        assert (item.id, item.kind, item.role) == (self.start.item, self.start.kind, self.start.role), item
        assert not item.complete, f"{item!r} was never done and is said to be complete"
        assert item.parts[: len(self.parts)] == tuple(self.parts), f"{item!r} lost some of {self.parts!r}"
        said = "".join(self.said)
        if said and not self.rewrites:
            last = item.parts[-1]
            kept = (
                last.text
                if isinstance(last, Text)
                else last.arguments
                if isinstance(last, ToolCall)
                else None
            )
            assert kept == said, f"said {said!r}, kept {kept!r}"


class Items:
    """The items of a turn so far."""

    def __init__(self, rewrites: bool) -> None:
        self.open: dict[str, OpenItem] = {}
        self.done: list[Item] = []
        self._seen: set[str] = set()
        self._rewrites = rewrites

    def hear(self, event: Event) -> None:
        if isinstance(event, ItemStarted):
            assert event.item, "an item without an id"
            assert event.item not in self._seen, f"item {event.item} opened twice"
            tool = event.kind not in TEXTUAL
            assert tool == (event.call_id is not None and event.name is not None), (
                f"{event!r}: tool items name a call"
            )
            self._seen.add(event.item)
            self.open[event.item] = OpenItem(event, self._rewrites)
        elif isinstance(event, ItemDone):
            assert event.done is not None, f"{event!r} without its item"
            self._of(event.item, event).done(event.done)
            del self.open[event.item]
            self.done.append(event.done)
        else:
            assert isinstance(event, TextDelta | ArgumentsDelta | ToolProgress | PartDone), (
                f"{event!r} among items"
            )
            self._of(event.item, event).hear(event)

    def _of(self, item: str, event: Event) -> OpenItem:
        assert item in self.open, f"{event!r} for an item that is not open"
        return self.open[item]

    def check_output(self, ending: Terminal) -> None:
        """What the ending carries is what was said: the finished items in their order, and those it cut off."""
        finished = [item for item in ending.output if item.id not in self.open]
        cut = [item for item in ending.output if item.id in self.open]
        assert finished == self.done, f"the ending carries {finished!r}, {self.done!r} were done"
        assert {item.id for item in cut} == set(self.open), (
            f"open at the end: {list(self.open)}, kept: {cut!r}"
        )
        assert len(cut) == len(self.open), f"one is kept twice: {cut!r}"
        for item in cut:
            self.open[item.id].check_partial(item)


def check_items(events: Iterable[Event], *, closed: bool = True, rewrites: bool = False) -> list[Item]:
    """Check events of items. `closed`: every item must be done by the end."""
    items = Items(rewrites)
    for number, event in enumerate(events):
        _hear(items, number, event)
    assert not closed or not items.open, f"left open: {[open_.start for open_ in items.open.values()]}"
    return items.done


def check_events(events: Sequence[Event], *, rewrites: bool = False) -> list[Item]:
    """Check the events of a turn that has ended."""
    assert events, "a turn has events"
    assert isinstance(events[0], TurnAccepted), f"a turn begins with {events[0]!r}"
    ending = events[-1]
    assert isinstance(ending, TERMINAL), f"a turn ends with {ending!r}"
    inside = events[1:-1]
    items = Items(rewrites)
    if inside:
        assert isinstance(inside[0], TurnStarted), f"{inside[0]!r} before the turn was started"
        for number, event in enumerate(inside[1:], 2):
            _hear(items, number, event)
    if isinstance(ending, TurnCompleted):
        assert inside, "completed without having been started"
        assert not items.open, f"completed with open items: {list(items.open)}"
    items.check_output(ending)
    return items.done


def _hear(items: Items, number: int, event: Event) -> None:
    try:
        items.hear(event)
    except AssertionError as broken:
        raise AssertionError(f"event {number}, {event!r}: {broken}") from broken


def texts(items: Iterable[Item], kind: str = "message") -> list[str]:
    """The text parts of the items of one kind."""
    return [part.text for item in items if item.kind == kind for part in item.parts if isinstance(part, Text)]
