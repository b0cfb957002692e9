"""The framework adapter for AgentScope 1.x. Importing it imports AgentScope."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from agentscope.agent import AgentBase
from agentscope.message import Msg
from agentscope.pipeline import stream_printing_messages

from greenroom.actors.composer import Composer
from greenroom.actors.errors import HandlerError
from greenroom.actors.frameworks import (
    agentscope1_pictures,
    agentscope1_tools,
    agentscope1_turns,
    model_clients,
)
from greenroom.actors.frameworks.adapter import ForeignState
from greenroom.actors.frameworks.agentscope1_blocks import to_msgs
from greenroom.actors.frameworks.agentscope1_options import HONOURED, begin_turn
from greenroom.actors.frameworks.agentscope1_translator import AgentScope1Translator
from greenroom.actors.messages import Message


class AgentScope1Adapter:
    """Serves agents of AgentScope 1.x.

    Making one sees to it that, inside turns, synchronous tools run in worker threads, agents end with their turn, and
    models' usage is counted. Outside of turns AgentScope behaves as ever.
    """

    name = "agentscope1"
    honours: frozenset[str] = HONOURED

    def __init__(self) -> None:
        agentscope1_tools.install()
        agentscope1_turns.install()
        agentscope1_pictures.install()
        model_clients.prepare()

    def __repr__(self) -> str:
        return "<AgentScope1Adapter>"

    def messages(self, messages: Sequence[Message]) -> list[Msg]:
        """A turn's input as `Msg` objects. Raises `InvalidRequest` for a tool message without its call."""
        return to_msgs(messages)

    def translator(self, composer: Composer) -> AgentScope1Translator:
        """A translator for one turn."""
        return AgentScope1Translator(composer, begin_turn())

    def driver(self, agent: object) -> AgentScope1Driver:
        """Drive an agent. Raises `HandlerError` for what is no agent of AgentScope 1.x."""
        return AgentScope1Driver(agent)


class AgentScope1Driver:
    """One session's agent. It is always called with a list of `Msg`, as `reply` of AgentScope's agents takes it."""

    __slots__ = ("_agent",)

    def __init__(self, agent: Any) -> None:
        if not isinstance(agent, AgentBase):
            raise HandlerError(
                f"the factory of @app.agent returned a {type(agent).__name__}, not an AgentScope 1.x agent; return "
                "an instance of agentscope.agent.AgentBase, for example ReActAgent(...)"
            )
        agent.set_console_output_enabled(False)
        self._agent: Any = agent

    def __repr__(self) -> str:
        return f"<AgentScope1Driver of {type(self._agent).__name__} {getattr(self._agent, 'name', self._agent.id)!r}>"

    def restore(self, state: bytes) -> None:
        """Load what `save` gave. What the agent has learnt to keep since then stays as it is in a new one.

        Raises `ForeignState` for one of which it keeps nothing.
        """
        saved = msgspec.json.decode(state)
        if saved and not saved.keys() & self._agent.state_dict().keys():
            raise ForeignState(
                f"it has {', '.join(sorted(saved))}, of which an agent of AgentScope 1.x keeps nothing; AgentScope 2.x "
                "may have left it"
            )
        self._agent.load_state_dict(saved, strict=False)

    async def run(self, messages: Sequence[Message]) -> AsyncIterator[Any]:
        """Answer, and yield what the agent prints."""
        agent = self._agent
        speaks = getattr(agent, "tts_model", None) is not None
        stream = stream_printing_messages([agent], agent(to_msgs(messages)), yield_speech=speaks)
        async with aclosing(stream):
            async for printed in stream:
                yield printed

    def save(self) -> bytes:
        """The agent's state. Raises `HandlerError` for a state that JSON has no form for."""
        try:
            return msgspec.json.encode(self._agent.state_dict(), enc_hook=_state_of)
        except (TypeError, ValueError) as error:
            raise HandlerError(
                f"the state of agent {getattr(self._agent, 'name', self._agent.id)!r} cannot be saved as JSON: "
                f"{error}; give register_state() a custom_to_json for what is not plain data"
            ) from error


def _state_of(value: Any) -> object:
    if isinstance(value, Msg):
        return value.to_dict()
    raise TypeError(f"it holds a {type(value).__name__}")
