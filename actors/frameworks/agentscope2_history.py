"""Session history for AgentScope 2.x agents: what 1.x has a memory class for is a middleware here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from agentscope.agent import Agent
from agentscope.message import Msg, ToolCallBlock, ToolCallState, ToolResultBlock
from agentscope.middleware import MiddlewareBase

from greenroom.actors.frameworks.agentscope2_form import messages_of, msgs_of_history
from greenroom.actors.messages import Message
from greenroom.services.session_history import Session, SessionHistoryService


class AgentScopeSessionHistoryMiddleware(MiddlewareBase):  # type: ignore[misc]  # its types are not followed
    """Loads a session's history into `agent.state.context` before a reply, and appends to it what the reply added.

    ::

        Agent(..., middlewares=[AgentScopeSessionHistoryMiddleware(
            service=self.session_service, session_id=request.session_id, user_id=request.user_id)])

    It goes together with a saved and restored `agent.state`, which has the conversation too: the state then remembers
    how far it has read the history, and only what is newer is added. What AgentScope has compressed into the state's
    summary stays compressed; the history keeps all of it. A reply that raises leaves the history as it was.
    """

    def __init__(self, *, service: SessionHistoryService, session_id: str, user_id: str) -> None:
        self._service = service
        self._session_id = session_id
        self._user_id = user_id
        self._records: dict[int, _Record] = {}
        """What replies that run now have added, by the identity of their agent."""

    async def on_reply(
        self,
        agent: Agent,
        input_kwargs: dict[str, Any],
        next_handler: Callable[..., AsyncGenerator[Any, None]],
    ) -> AsyncGenerator[Any, None]:
        """Load before the reply, append after it."""
        session = await self._session()
        self._load(agent, session.messages)
        record = self._records[id(agent)] = _Record(agent.state.context)
        try:
            async with aclosing(next_handler(**input_kwargs)) as items:
                async for item in items:
                    yield item
        finally:
            del self._records[id(agent)]
        record.take(agent.state.context)
        added = record.messages()
        if added:
            await self._service.append_message(session, added)
            self._remember(agent, added)

    async def on_compress_context(
        self, agent: Agent, input_kwargs: dict[str, Any], next_handler: Callable[..., Awaitable[None]]
    ) -> None:
        """Take down what is new before it may be compressed away."""
        record = self._records.get(id(agent))
        if record is not None:
            record.take(agent.state.context)
        await next_handler(**input_kwargs)
        if record is not None:
            record.look_again(agent.state.context)

    async def _session(self) -> Session:
        session = await self._service.get_session(self._user_id, self._session_id)
        return session or await self._service.create_session(self._user_id, self._session_id)

    def _load(self, agent: Agent, messages: Sequence[Message]) -> None:
        if not messages:
            return
        seen = agent.state.middle_context.get(type(self).__name__) or {}
        last = seen.get("last") if seen.get("session") == [self._user_id, self._session_id] else None
        context = agent.state.context
        present = {msg.id for msg in context}
        unseen = _after(messages, last)
        context += [msg for msg in _sound(msgs_of_history(unseen)) if msg.id not in present]
        self._remember(agent, messages)

    def _remember(self, agent: Agent, messages: Sequence[Message]) -> None:
        """Where in the history the state has arrived; it is saved with the state."""
        agent.state.middle_context[type(self).__name__] = {
            "session": [self._user_id, self._session_id],
            "last": messages[-1].id,
        }


class _Added:
    """The blocks that one message gained, of which it had `start` before."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.blocks: list[Any] = []


class _Record:
    """What a reply adds to a context, however often the context is compressed meanwhile."""

    def __init__(self, context: Sequence[Msg]) -> None:
        self._known: dict[str, int] = {}
        self._added: dict[str, _Added] = {}
        self._msgs: dict[str, Msg] = {}
        self.look_again(context)

    def take(self, context: Sequence[Msg]) -> None:
        """Take down what is in the context now and was not before."""
        for msg in context:
            start = self._known.get(msg.id)
            if start is None or len(msg.content) > start:
                added = self._added.setdefault(msg.id, _Added(start or 0))
                added.blocks += msg.content[start or 0 :]
                self._msgs[msg.id] = msg
        self.look_again(context)

    def look_again(self, context: Sequence[Msg]) -> None:
        """All that is in the context now is known."""
        self._known = {msg.id: len(msg.content) for msg in context}

    def messages(self) -> list[Message]:
        """What was added, as the history keeps it."""
        return [
            message
            for msg_id, added in self._added.items()
            for message in messages_of(self._msgs[msg_id], added.blocks, added.start)
        ]


def _after(messages: Sequence[Message], last: str | None) -> Sequence[Message]:
    """The messages after the one with the id `last`; all, when it is not there (any longer)."""
    if last is not None:
        for number in range(len(messages), 0, -1):
            if messages[number - 1].id == last:
                return messages[number:]
    return messages


def _sound(msgs: list[Msg]) -> list[Msg]:
    """Messages that a model takes: no tool result without its call (the history may have dropped its oldest), and no
    call that waits although it has its result (written to the history before it was confirmed)."""
    calls: dict[str, ToolCallBlock] = {}
    for msg in msgs:
        kept: list[Any] = []
        for block in msg.content:
            if isinstance(block, ToolCallBlock):
                calls[block.id] = block
            elif isinstance(block, ToolResultBlock):
                if block.id not in calls:
                    continue
                calls[block.id].state = ToolCallState.FINISHED
            kept.append(block)
        msg.content = kept
    return msgs
