"""Turns by id, wherever they are: those at work or just ended have a log, those with `Turn.stored` are kept longer."""

from __future__ import annotations

from msgspec import structs

from greenroom.actors.errors import TurnNotFound
from greenroom.actors.events import ArgumentsDelta, TextDelta
from greenroom.actors.log import TurnLog
from greenroom.services.response_store import ResponseRecord
from greenroom.transports.transport import Host


async def find_kept(host: Host, turn_id: str, principal: str | None) -> TurnLog:
    """The turn's log, or what is kept of it as one. Raises `TurnNotFound`."""
    try:
        return await host.locate(turn_id, principal)
    except TurnNotFound:
        if host.state not in {"ready", "draining"}:  # its stores may not be open
            raise
        record = await host.responses.get(principal, turn_id)
        if record is None:
            raise
        return told_again(record)


def told_again(record: ResponseRecord) -> TurnLog:
    """A turn that was kept, as a log that has ended."""
    log = TurnLog(structs.replace(record.turn, key=record.key), taken_at=record.taken_at)
    for event in record.events:
        log.append(event)
    log.size = sum(
        len(event.text) for event in record.events if isinstance(event, TextDelta | ArgumentsDelta)
    )
    return log
