"""Items by their ids alone: found among what was stored, for those whose they are, and within bounds."""

from __future__ import annotations

import pytest
from msgspec import structs

from greenroom.actors.log import TurnLog
from greenroom.actors.messages import Turn
from greenroom.transports import known_items
from greenroom.transports.known_items import KnownItems, said_in
from greenroom.transports.responses_echo import ResponseEcho
from greenroom.transports.responses_errors import ResponseNotFound
from kits.turns import Telling, a_turn


class Shelf:
    """Logs by principal and id."""

    def __init__(self) -> None:
        self.logs: dict[tuple[str | None, str], TurnLog] = {}
        self.looked_at: list[str] = []
        self.known = KnownItems(self.find)

    async def find(self, response_id: str, principal: str | None) -> TurnLog:
        self.looked_at.append(response_id)
        if (principal, response_id) not in self.logs:
            raise ResponseNotFound(response_id)
        return self.logs[principal, response_id]

    def put(
        self, number: int, principal: str | None = None, *, ended: bool = True, echo: object = None
    ) -> TurnLog:
        """A response that says its number."""
        turn: Turn = structs.replace(a_turn(f"resp_{number}"), principal=principal, stored=True, echo=echo)
        told = Telling()
        told.start()
        told.composer.say(str(number))
        if ended:
            told.complete()
        log = TurnLog(turn)
        for event in told.events:
            log.append(event)
        self.logs[principal, turn.id] = log
        self.known.note(log)
        return log


def asked(log: TurnLog) -> str:
    """The id of a response's question, which no other's has."""
    item_id: str = said_in(log)[0]["id"]
    return item_id


async def test_items_are_found_and_responses_looked_at_once_the_newest_first() -> None:
    shelf = Shelf()
    logs = [shelf.put(number) for number in range(4)]
    (item,) = await shelf.known.items([asked(logs[2])], None)
    assert item == said_in(logs[2])[0]
    assert shelf.looked_at == ["resp_3", "resp_2", "resp_2"]
    shelf.looked_at.clear()
    assert await shelf.known.items([asked(logs[3])], None)
    assert shelf.looked_at == ["resp_3"]


async def test_items_of_others_and_of_nobody_are_not_found() -> None:
    shelf = Shelf()
    log = shelf.put(1, "alice")
    assert await shelf.known.items([asked(log), "msg_unknown"], "bob") == []
    assert len(await shelf.known.items([asked(log), "msg_unknown"], "alice")) == 1
    del shelf.logs["alice", log.id]
    assert await shelf.known.items([asked(log)], "alice") == []


async def test_what_has_an_id_that_a_client_chose_is_not_found_by_it() -> None:
    """Without authentication all are one principal, and many a client calls its messages alike."""
    shelf = Shelf()
    echo = ResponseEcho(model="m", items=({"id": "msg_mine", "type": "message", "status": "completed"},))
    log = shelf.put(1, echo=echo)
    assert said_in(log)[0]["id"] == "msg_mine"
    assert await shelf.known.items(["msg_mine"], None) == []


async def test_a_response_that_runs_is_looked_at_again() -> None:
    shelf = Shelf()
    running = shelf.put(1, ended=False)
    assert await shelf.known.items([asked(running)], None) == []
    ended = shelf.put(1)
    assert len(await shelf.known.items([asked(ended)], None)) == 1


async def test_so_many_are_known_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_items, "RESPONSES", 3)
    monkeypatch.setattr(known_items, "ITEMS", 4)
    shelf = Shelf()
    logs = [shelf.put(number) for number in range(6)]
    assert await shelf.known.items([asked(logs[2])], None) == []
    assert repr(shelf.known) == "<KnownItems 4 items, 0 responses not looked at>"
