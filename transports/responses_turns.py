"""From a request for a response to its turn, and from a response's id back to it: what HTTP and WebSocket share."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from functools import partial
from typing import Any

from msgspec import structs

from greenroom.actors.errors import ContinuationNotFound, GreenroomError, InvalidRequest, TurnNotFound
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import SessionKey, Turn
from greenroom.services.response_store import is_fed_by_turns
from greenroom.transports.conversations import Conversations
from greenroom.transports.kept_turns import told_again
from greenroom.transports.known_items import KnownItems, said_in
from greenroom.transports.responses_decode import CreateRequest, Settings, turn_of
from greenroom.transports.responses_echo import ResponseEcho, echo_of
from greenroom.transports.responses_errors import ResponseNotFound
from greenroom.transports.responses_items import Context
from greenroom.transports.session_items import session_items
from greenroom.transports.transport import Host

logger = logging.getLogger("greenroom.http")

DELETED = 10_000
"""Responses that were deleted and have not ended, whose ids are remembered."""


class ResponsesTurns:
    """The responses of an application. `principal`: who asks; only his are found."""

    def __init__(self, host: Host, settings: Settings, conversations: Conversations) -> None:
        self._host = host
        self._settings = settings
        self._conversations = conversations
        self._known = KnownItems(self.find)
        self._deleted: OrderedDict[tuple[str | None, str], None] = OrderedDict()
        """They still run."""
        self._deleting: set[asyncio.Task[None]] = set()
        self._submitting: set[asyncio.Task[TurnLog]] = set()

    # -- making one ------------------------------------------------------------------------------------------------

    async def begin(
        self, create: CreateRequest, near: TurnLog | None = None, own: set[SessionKey] | None = None
    ) -> TurnLog:
        """Submit the turn that a request asks for.

        `near`: a turn that may be continued although it is not stored. `own`: sessions that the caller forgets himself,
        or whoever finds that this process has gone without it; a new one that nothing would be kept of is kept, and
        added, until something in it is stored.

        Raises `ContinuationNotFound`, `InvalidRequest`, and what `Host.submit` raises.
        """
        asked = create.previous_response_id
        previous = None if asked is None else await self.previous(create, near)
        turn = turn_of(
            create,
            key=previous.turn.key if previous is not None else None,
            after=previous.id if previous is not None else None,
            context=await self.context(create, previous) if create.needs_context else None,
            conversation=echo_of(previous.turn).conversation if previous is not None else None,
        )
        if own is None and not create.addressed:  # as nearly all are
            log = await self._host.submit(turn)
        else:
            log = await self._submit(create, turn, previous, own)
        self._known.note(log)
        return log

    async def _submit(
        self, create: CreateRequest, turn: Turn, previous: TurnLog | None, own: set[SessionKey] | None
    ) -> TurnLog:
        if own is not None and turn.stored and turn.key in own:
            log = await self._host.submit(structs.replace(turn, passing=False))
            own.discard(turn.key)
            return log
        if own is not None and not turn.kept and (previous is None or turn.key in own):
            log = await self._host.submit(structs.replace(turn, kept=True, passing=True))
            own.add(log.turn.key)
            return log
        if create.conversation is not None:
            await self._conversations.noted(turn.key)
        if not create.addressed:
            return await self._host.submit(turn)
        taking = turn
        try:
            taking = await self._conversations.taking(turn)
        finally:
            if taking is turn:
                self._conversations.submitted(turn)
        return await (self._host.submit(turn) if taking is turn else self._submit_with_items(taking))

    async def _submit_with_items(self, turn: Turn) -> TurnLog:
        """Items that waited in the conversation are on their way until the turn is accepted or refused: when its client
        goes before that it is taken in all the same."""
        submitting = asyncio.get_running_loop().create_task(self._host.submit(turn))
        self._submitting.add(submitting)
        submitting.add_done_callback(self._submitting.discard)
        submitting.add_done_callback(lambda _: self._conversations.submitted(turn))
        return await (asyncio.shield(submitting) if turn.disconnect.policy == "continue" else submitting)

    async def context(self, create: CreateRequest, previous: TurnLog | None) -> Context:
        """What a request's input may refer to: what was said before it, and single items of other responses."""
        context = Context()
        context.add(await self.said_before(create, previous))
        named = [open_.item for open_ in (create.read.open if create.read else ()) if open_.item]
        unknown = [item_id for item_id in named if item_id not in context.items]
        for item in await self._known.items(unknown, create.turn.principal) if unknown else ():
            context.items[item["id"]] = item
        return context

    async def previous(self, create: CreateRequest, near: TurnLog | None = None) -> TurnLog | None:
        """The response that a request continues. Raises `ContinuationNotFound`."""
        asked = create.previous_response_id
        if asked is None or (near is not None and near.id == asked):
            return near if asked is not None else None
        try:
            return await self.find(asked, create.turn.principal)
        except ResponseNotFound as error:
            raise ContinuationNotFound(error.message, field="previous_response_id") from None

    async def said_before(self, create: CreateRequest, previous: TurnLog | None) -> list[dict[str, Any]]:
        """All items that go before a request's input. Waits for the end of the response it continues."""
        if previous is not None:
            await previous.ended()
            record = await self._host.session(previous.turn.key)
            turns = record.turns if record is not None else ()
            place = next((at for at, turn in enumerate(turns) if turn.turn_id == previous.id), len(turns))
            return [*session_items(turns[:place], self._settings), *said_in(previous)]
        if create.addressed:
            return await self._conversations.items_if_any(create.turn.key, create.turn.principal)
        return []

    # -- finding one -----------------------------------------------------------------------------------------------

    async def find(self, response_id: str, principal: str | None) -> TurnLog:
        """The response's log, which may run or have ended long ago. Raises `ResponseNotFound`."""
        try:
            log: TurnLog | None = self._host.find(response_id, principal)
        except TurnNotFound:
            log = None
        if (principal, response_id) in self._deleted or (log is not None and not _is_response(log.turn)):
            raise _unknown(response_id)
        if log is not None and log.terminal is None:
            return log
        record = await self._host.responses.get(principal, response_id)
        if record is not None and _is_response(record.turn):
            return told_again(record)
        if log is None:
            return await self._find_elsewhere(response_id, principal)
        if log.expired or is_fed_by_turns(self._host.responses):  # another process has deleted it
            raise _unknown(response_id)
        return log  # it has ended just now, and is being stored

    async def _find_elsewhere(self, response_id: str, principal: str | None) -> TurnLog:
        """One that another process works on."""
        try:
            log = await self._host.locate(response_id, principal)
        except TurnNotFound:
            raise _unknown(response_id) from None
        if not _is_response(log.turn):
            raise _unknown(response_id)
        return log

    async def cancel(self, response_id: str, principal: str | None) -> TurnLog:
        """Stop it, if it runs in the background and has not ended; gives it as it is then.

        Raises `ResponseNotFound`, and `InvalidRequest` for one that does not run in the background.
        """
        log = await self.find(response_id, principal)
        if not log.turn.background:
            raise InvalidRequest(
                f"response {response_id!r} was not created with `background: true`, and only such can be cancelled; "
                "one in the foreground is stopped on POST /process/{id}/cancel",
                field="response_id",
            )
        if log.terminal is None:
            log = await self._host.cancel(response_id, principal)
            await log.ended()
        return log

    async def delete(self, response_id: str, principal: str | None) -> None:
        """Keep it no longer; if it runs, it runs on. Raises `ResponseNotFound`, and `StoreUnavailable`."""
        log = await self.find(response_id, principal)
        if log.terminal is None and is_fed_by_turns(self._host.responses):
            await self._host.responses.delete(principal, response_id)
        if log.terminal is not None:
            await self._host.forget_turn(response_id, principal)
            return
        self._deleted[principal, response_id] = None
        while len(self._deleted) > DELETED:
            self._deleted.popitem(last=False)
        log.watch(partial(self._delete_ended, log))

    def _delete_ended(self, log: TurnLog) -> None:
        if log.terminal is not None:
            task = asyncio.get_running_loop().create_task(self._forget(log.id, log.turn.principal))
            self._deleting.add(task)
            task.add_done_callback(self._deleting.discard)

    async def _forget(self, response_id: str, principal: str | None) -> None:
        """Until it is gone nobody finds it; where that cannot be, whoever deleted it can do so again."""
        try:
            await self._host.forget_turn(response_id, principal)
        except GreenroomError:
            logger.exception("response %s, deleted while it ran, is still kept", response_id)
        finally:
            self._deleted.pop((principal, response_id), None)


def _is_response(turn: Turn) -> bool:
    """Whether it was asked for as a response, and as one that can be found."""
    return turn.stored and isinstance(turn.echo, ResponseEcho)


def _unknown(response_id: str) -> ResponseNotFound:
    return ResponseNotFound(
        f"there is no response {response_id!r}: it never was, is somebody else's, was deleted, was created with "
        "`store: false`, or is older than this server keeps responses",
        field="response_id",
    )
