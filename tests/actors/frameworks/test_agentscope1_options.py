"""AgentScope 1.x: what a turn may be asked for besides its input, with the real library on the scripted model."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from greenroom.actors.handler import AgentHandler, Handler, QueryHandler
from kits.agentscope_line import require_line
from kits.options_kit import Level, OptionsKit

require_line(1)

from agentscope.pipeline import stream_printing_messages
from agentscope.tool import ToolResponse

from greenroom.actors.frameworks.agentscope1 import AgentScope1Adapter
from kits.agentscope1_agents import a_model, an_agent, tool_says

pytestmark = pytest.mark.agentscope1


def weather(city: str) -> ToolResponse:
    """The weather.

    Args:
        city (str): where.
    """
    return tool_says(f"sunny in {city}")


def tutorial(base_url: str) -> Any:
    """A handler as the tutorial writes it: the agent is made, loaded and saved in each turn."""
    states: dict[str, Any] = {}

    async def answer(msgs: Any, request: Any) -> AsyncIterator[Any]:
        agent = an_agent(a_model(base_url), weather)
        if request.session_id in states:
            agent.load_state_dict(states[request.session_id])
        async for msg, last in stream_printing_messages([agent], agent(msgs)):
            yield msg, last
        states[request.session_id] = agent.state_dict()

    return answer


class TestOptions(OptionsKit):
    def handler(self, level: Level, base_url: str) -> Handler:
        if level == "query":
            return QueryHandler(tutorial(base_url), AgentScope1Adapter(), None)
        return AgentHandler(lambda: an_agent(a_model(base_url), weather), AgentScope1Adapter(), None)
