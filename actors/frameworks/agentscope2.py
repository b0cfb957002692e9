"""AgentScope 2.x: `@app.query(framework="agentscope")` handlers that yield `Agent.reply_stream` events, and agents of
`@app.agent`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from agentscope.agent import Agent
from agentscope.event import UserInterruptEvent
from agentscope.message import Msg
from pydantic import BaseModel

from greenroom.actors.composer import Composer
from greenroom.actors.errors import HandlerError
from greenroom.actors.frameworks import model_clients
from greenroom.actors.frameworks.adapter import AgentDriver, Translator
from greenroom.actors.frameworks.agentscope2_input import is_history, msgs_of
from greenroom.actors.frameworks.agentscope2_tools import install
from greenroom.actors.frameworks.agentscope2_translator import AgentScope2Translator
from greenroom.actors.messages import Message


class AgentScope2Adapter:
    """`framework="agentscope2"`. Making one sees to it that tools inside turns stay off the loop."""

    name = "agentscope2"
    honours: frozenset[str] = frozenset()

    def __init__(self) -> None:
        install()
        model_clients.prepare()

    def messages(self, messages: Sequence[Message]) -> list[Msg]:
        """The turn's input as `Msg` objects. Raises `InvalidRequest` for what AgentScope 2.x has no place for."""
        return msgs_of(messages)

    def translator(self, composer: Composer) -> Translator:
        """A translator of `Agent.reply_stream` events, `Msg` objects and text."""
        return AgentScope2Translator(composer)

    def driver(self, agent: object) -> AgentDriver:
        """Drive an `agentscope.agent.Agent`. Raises `HandlerError` for anything else."""
        if not isinstance(agent, Agent):
            raise HandlerError(
                f"the agent factory returned a {type(agent).__name__}; with AgentScope 2.x it returns an "
                "agentscope.agent.Agent"
            )
        return AgentScope2Driver(agent)


class AgentScope2Driver:
    """Drives an `Agent`; what is restored and saved is its `state`."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def restore(self, state: bytes) -> None:
        """Load a saved state, in place: the agent's permission engine, and tools that were given a part of the state,
        go on with what was loaded."""
        present = self._agent.state
        _take_over(present, type(present).model_validate_json(state))

    async def run(self, messages: Sequence[Message]) -> AsyncIterator[object]:
        """Answer with the agent's events."""
        msgs = msgs_of(messages)
        await self._let_go_of_parked_calls()
        # A caller that sends a whole conversation: the agent takes only what is new as its input.
        new = next((number for number in range(len(msgs), 0, -1) if is_history(msgs[number - 1])), 0)
        self._agent.state.context.extend(msgs[:new])
        async with aclosing(self._agent.reply_stream(msgs[new:])) as events:
            async for event in events:
                yield event

    def save(self) -> bytes:
        """The agent's state as JSON."""
        state: str = self._agent.state.model_dump_json()
        return state.encode()

    async def _let_go_of_parked_calls(self) -> None:
        """Who writes on instead of confirming a tool call has not confirmed it. AgentScope would refuse the message as
        long as the call waits, so the call is closed as interrupted."""
        state = self._agent.state
        if state.has_awaiting_tool_calls(self._agent.name):
            async with aclosing(
                self._agent.reply_stream(UserInterruptEvent(reply_id=state.reply_id))
            ) as events:
                async for _ in events:
                    pass  # it tells of a call of an earlier turn, which has been answered


def _take_over(present: BaseModel, loaded: BaseModel) -> None:
    """Give a model the values of another of its class, keeping the objects that others may hold on to."""
    for name in type(present).model_fields:
        before, after = getattr(present, name), getattr(loaded, name)
        if isinstance(before, BaseModel) and type(before) is type(after):
            _take_over(before, after)
        else:
            setattr(present, name, after)
