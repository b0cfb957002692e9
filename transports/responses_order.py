"""The order in which a Responses stream shows what a turn says.

Rule 1: no I/O, and nothing but the events so far decides.
Rule 2: one unit after the other, as clients expect that keep one item in hand. A unit is a text, or a tool's call with
its output. A call that begins while another unit is shown is held back until that is over. Text is never held back for
a call: should it begin while a tool runs, both are shown at once.
Rule 3: an answer that must be JSON is one message. A message that does not begin as JSON does is held back until it is
known to be the last one, and dropped if it is not.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeAlias

from greenroom.actors.events import Event, ItemDone, ItemStarted, TextDelta
from greenroom.transports.responses_open import OpenItem


class Unit:
    """What is shown as one. `held`: its events while it is held back. `wire`: its item, once it is shown."""

    __slots__ = ("awaits", "held", "open", "start", "undecided", "wire")

    def __init__(self, start: ItemStarted, awaits: bool = False) -> None:
        self.start = start
        self.held: list[Event] | None = None
        self.open = 1
        """How many of its items are open."""
        self.awaits = awaits
        """Whether an output must come before it is over."""
        self.undecided = False
        self.wire: OpenItem | None = None

    def __repr__(self) -> str:
        return f"<Unit {self.start.item} {'shown' if self.held is None else 'held back'}>"

    @property
    def over(self) -> bool:
        """Whether there is no more to come."""
        return not self.open and not self.awaits


Step: TypeAlias = tuple[Event | None, Unit]


class Order:
    """Puts one turn's item events in order. Each method gives the steps that it is time for: an event of a unit, to be
    shown, or none, when the unit is over.

    `clients`: the tools that the client runs, whose outputs are not the turn's to tell. `hidden`: whether those that
    the server runs are shown at all; `merged`: whether a call stays open until its output. `single`: rule 3.
    """

    __slots__ = (
        "_clients",
        "_hidden",
        "_merged",
        "_single",
        "_steps",
        "_undecided",
        "_units",
        "_waiting",
        "shown",
    )

    def __init__(self, clients: Collection[str], *, hidden: bool, merged: bool, single: bool) -> None:
        self._clients = clients
        self._hidden = hidden
        self._merged = merged
        self._single = single
        self._steps: list[Step] = []
        self._units: dict[str, Unit] = {}
        """By the ids of their open items. What is not shown has none."""
        self._waiting: list[Unit] = []
        self._undecided: Unit | None = None
        self.shown: list[Unit] = []
        """The units that are shown and not over."""

    def __repr__(self) -> str:
        return f"<Order {len(self.shown)} shown, {len(self._waiting)} waiting>"

    def adopt(self, event: ItemStarted, wire: OpenItem) -> None:
        """A text is shown already, the only unit so far."""
        unit = self._units[event.item] = Unit(event)
        unit.wire = wire
        self.shown.append(unit)

    @property
    def idle(self) -> bool:
        """Whether the next text would be shown at once and alone."""
        return not (self.shown or self._waiting or self._single)

    def start(self, event: ItemStarted) -> Sequence[Step]:
        """An item opens."""
        if event.kind == "tool_output":
            self._start_output(event)
        elif event.kind == "tool_call":
            self._start_call(event)
        else:
            self._start_text(event)
        return self._take()

    def tell(self, event: Event, item: str) -> Sequence[Step]:
        """Something about an open item."""
        unit = self._units.get(item)
        if unit is None:
            return ()
        if unit.held is None:
            return ((event, unit),)
        unit.held.append(event)
        if unit.undecided and type(event) is TextDelta and event.text.lstrip()[:1] in {"{", "["}:
            self._decide(unit)
        return self._take()

    def done(self, event: ItemDone) -> Sequence[Step]:
        """An item is complete."""
        unit = self._units.pop(event.item, None)
        if unit is None:
            return ()
        unit.open -= 1
        if unit.held is not None:
            unit.held.append(event)
            return ()
        self._steps.append((event, unit))
        self._look_at(unit)
        return self._take()

    def end(self) -> Sequence[Step]:
        """There is no more: show what was held back."""
        if self._undecided is not None:
            self._decide(self._undecided)
        self._show_waiting()
        return self._take()

    def _take(self) -> Sequence[Step]:
        steps = self._steps
        if steps:
            self._steps = []
        return steps

    # -- units ---------------------------------------------------------------------------------------------------------

    def _start_text(self, event: ItemStarted) -> None:
        unit = self._units[event.item] = Unit(event)
        if self._single and event.kind == "message":
            self._drop_undecided()
            unit.undecided = True
            unit.held = [event]
            self._undecided = unit
        else:
            self._show_waiting()
            self._show(unit, [event])

    def _start_call(self, event: ItemStarted) -> None:
        self._drop_undecided()
        clients = event.name in self._clients
        if self._hidden and not clients:
            return
        self._queue(Unit(event, awaits=self._merged and not clients), event)

    def _start_output(self, event: ItemStarted) -> None:
        if self._hidden or event.name in self._clients:
            return
        unit = self._called(event.call_id)
        if unit is None:
            self._queue(Unit(event), event)
            return
        self._units[event.item] = unit
        unit.awaits = False
        unit.open += 1
        if unit.held is None:
            self._steps.append((event, unit))
        else:
            unit.held.append(event)

    def _called(self, call_id: str | None) -> Unit | None:
        """The unit of a call that has no output yet."""
        for unit in (*self.shown, *self._waiting):
            if unit.awaits and unit.start.call_id == call_id:
                return unit
        return None

    def _queue(self, unit: Unit, event: ItemStarted) -> None:
        self._units[event.item] = unit
        if self.shown or self._waiting:
            unit.held = [event]
            self._waiting.append(unit)
        else:
            self._show(unit, [event])

    def _show(self, unit: Unit, events: list[Event]) -> None:
        unit.held = None
        self.shown.append(unit)
        self._steps += [(event, unit) for event in events]
        self._look_at(unit)

    def _show_waiting(self) -> None:
        while self._waiting:
            self._show_next()

    def _show_next(self) -> None:
        unit = self._waiting.pop(0)
        self._show(unit, unit.held or [])

    def _look_at(self, unit: Unit) -> None:
        """If it is over, go on to what waits."""
        if unit.over:
            self.shown.remove(unit)
            self._steps.append((None, unit))
            while self._waiting and not self.shown:
                self._show_next()

    # -- rule 3 --------------------------------------------------------------------------------------------------------

    def _decide(self, unit: Unit) -> None:
        """It is shown."""
        self._undecided = None
        unit.undecided = False
        self._show_waiting()
        self._show(unit, unit.held or [])

    def _drop_undecided(self) -> None:
        if self._undecided is not None:
            self._units.pop(self._undecided.start.item, None)
            self._undecided = None
