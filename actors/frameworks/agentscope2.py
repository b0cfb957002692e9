"""AgentScope 2.x: `@app.query(framework="agentscope")` handlers that yield `Agent.reply_stream` events, and agents of
`@app.agent`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import msgspec
from agentscope.agent import Agent
from agentscope.message import Msg
from pydantic import BaseModel

from greenroom.actors.composer import Composer
from greenroom.actors.errors import HandlerError
from greenroom.actors.frameworks import (
    agentscope2_client_tools,
    agentscope2_options,
    agentscope2_pictures,
    agentscope2_schemas,
    agentscope2_tools,
    model_clients,
)
from greenroom.actors.frameworks.adapter import AgentDriver, ForeignState, Translator
from greenroom.actors.frameworks.agentscope2_input import msgs_of
from greenroom.actors.frameworks.agentscope2_options import begin_turn
from greenroom.actors.frameworks.agentscope2_translator import AgentScope2Translator
from greenroom.actors.messages import Message, TurnOptions


class AgentScope2Adapter:
    """`framework="agentscope2"`. Making one sees to it that tools inside turns stay off the loop, and that agents and
    models inside turns do what the request asks of them."""

    name = "agentscope2"
    honours: frozenset[str] = frozenset(TurnOptions.__struct_fields__)

    def __init__(self) -> None:
        agentscope2_tools.install()
        agentscope2_options.install()
        agentscope2_client_tools.install()
        agentscope2_schemas.install()
        agentscope2_pictures.install()
        model_clients.prepare()

    def messages(self, messages: Sequence[Message]) -> list[Msg]:
        """The turn's input as `Msg` objects. Raises `InvalidRequest` for what AgentScope 2.x has no place for."""
        return msgs_of(messages)

    def translator(self, composer: Composer) -> Translator:
        """A translator of `Agent.reply_stream` events, `Msg` objects and text."""
        return AgentScope2Translator(composer, begin_turn())

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
        go on with what was loaded. Raises `ForeignState` for one of which it has nothing."""
        present = self._agent.state
        saved = msgspec.json.decode(state)
        if saved and not saved.keys() & type(present).model_fields.keys():
            raise ForeignState(
                f"it has {', '.join(sorted(saved))}, of which an agent of AgentScope 2.x has nothing; AgentScope 1.x "
                "may have left it"
            )
        _take_over(present, type(present).model_validate_json(state))

    async def run(self, messages: Sequence[Message]) -> AsyncIterator[object]:
        """Answer with the agent's events."""
        async with aclosing(self._agent.reply_stream(msgs_of(messages))) as events:
            async for event in events:
                yield event

    def save(self) -> bytes:
        """The agent's state as JSON."""
        state: str = self._agent.state.model_dump_json()
        return state.encode()


def _take_over(present: BaseModel, loaded: BaseModel) -> None:
    """Give a model the values of another of its class, keeping the objects that others may hold on to."""
    for name in type(present).model_fields:
        before, after = getattr(present, name), getattr(loaded, name)
        if isinstance(before, BaseModel) and type(before) is type(after):
            _take_over(before, after)
        else:
            setattr(present, name, after)
