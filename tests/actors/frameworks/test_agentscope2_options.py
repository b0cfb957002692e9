"""What a turn is asked for, in AgentScope 2.x."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from kits.agentscope_line import require_line

require_line(2)

from agentscope.agent import Agent
from agentscope.message import Msg
from agentscope.state import AgentState

from greenroom.actors.frameworks.agentscope2 import AgentScope2Adapter
from greenroom.actors.handler import AgentHandler, Handler, QueryHandler
from kits.agentscope2_agents import a_model, agent
from kits.options_kit import Level, OptionsKit

pytestmark = pytest.mark.agentscope2


def weather(city: str) -> str:
    """Tell the weather.

    Args:
        city: where
    """
    return f"sunny in {city}"


def friday(base_url: str, **kwargs: Any) -> Agent:
    """The kit's agent."""
    return agent(a_model(base_url), weather, prompt="You help.", **kwargs)


def remade(base_url: str, **kwargs: Any) -> Any:
    """A handler as the tutorial has it: the agent is made, its state restored and kept, in each turn."""
    states: dict[str, str] = {}

    async def query(msgs: list[Msg], request: Any) -> AsyncIterator[Any]:
        kept = states.get(request.session_id)
        made = friday(base_url, state=AgentState.model_validate_json(kept) if kept else None, **kwargs)
        async for event in made.reply_stream(msgs):
            yield event
        states[request.session_id] = made.state.model_dump_json()

    return query


def handler_of(level: Level, base_url: str) -> Handler:
    """The kit's agent, served."""
    if level == "query":
        return QueryHandler(remade(base_url), AgentScope2Adapter(), None)
    return AgentHandler(lambda: friday(base_url), AgentScope2Adapter(), None)


class TestOptions(OptionsKit):
    def handler(self, level: Level, base_url: str) -> Handler:
        return handler_of(level, base_url)
