"""Items of stored responses by their ids alone, as `item_reference`s name them.

Some clients send, without naming a response, items that the server knows by nothing but their ids. Most send none, so
the items of a response are looked at when somebody asks for one that is not known yet, each response once.

An id that a client chose (`msg_1`) is one that others guess or choose too: by such an id alone nothing is found.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from greenroom.actors.log import TurnLog
from greenroom.transports.responses_errors import ResponseNotFound
from greenroom.transports.responses_listing import input_items
from greenroom.transports.responses_parts import Listed
from greenroom.transports.responses_whole import output_items

RESPONSES = 10_000
"""Responses whose items can be found: of more, the oldest are forgotten."""
ITEMS = 100_000

_UNGUESSABLE = re.compile(r"[a-z]+_[0-9a-f]{32}")

_Id: TypeAlias = tuple[str | None, str]
"""The principal, and the id of one of his responses or items."""


def said_in(log: TurnLog) -> list[Listed]:
    """A turn's input and output as items."""
    return [*input_items(log.turn), *output_items(log.turn, log.events())]


def _known_in(log: TurnLog) -> list[Listed]:
    """Those of the turn's items that are found by their ids alone. Those of the output have ids of our own."""
    asked = [item for item in input_items(log.turn) if _UNGUESSABLE.fullmatch(item["id"])]
    return [*asked, *output_items(log.turn, log.events())]


class KnownItems:
    """Finds items. `find`: gives a response's log, or raises `ResponseNotFound`."""

    def __init__(self, find: Callable[[str, str | None], Awaitable[TurnLog]]) -> None:
        self._find = find
        self._unread: OrderedDict[_Id, None] = OrderedDict()
        self._response_of: OrderedDict[_Id, str] = OrderedDict()

    def __repr__(self) -> str:
        return f"<KnownItems {len(self._response_of)} items, {len(self._unread)} responses not looked at>"

    def note(self, log: TurnLog) -> None:
        """There will be such a response."""
        turn = log.turn
        if turn.stored:
            self._unread[turn.principal, turn.id] = None
            if len(self._unread) > RESPONSES:
                self._unread.popitem(last=False)

    async def items(self, ids: Sequence[str], principal: str | None) -> list[Listed]:
        """Those of the items that are known."""
        wanted = set(ids)
        await self._look_for(wanted, principal)
        responses = {self._response_of.get((principal, item_id)) for item_id in ids}
        found: list[Listed] = []
        for response_id in responses - {None}:
            log = await self._log(response_id or "", principal)
            found += [item for item in _known_in(log) if item["id"] in wanted] if log is not None else []
        return found

    async def _look_for(self, wanted: set[str], principal: str | None) -> None:
        """Look at the principal's responses, the newest first, until all items are known."""
        for owner, response_id in list(reversed(self._unread)):
            if owner != principal:
                continue
            if all((principal, item_id) in self._response_of for item_id in wanted):
                break
            await asyncio.sleep(0)  # there may be many
            log = await self._log(response_id, principal)
            if log is not None and log.terminal is None:
                continue
            self._unread.pop((principal, response_id), None)
            for item in _known_in(log) if log is not None else ():
                self._response_of[principal, item["id"]] = response_id
        while len(self._response_of) > ITEMS:
            self._response_of.popitem(last=False)

    async def _log(self, response_id: str, principal: str | None) -> TurnLog | None:
        try:
            return await self._find(response_id, principal)
        except ResponseNotFound:
            return None
