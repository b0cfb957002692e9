"""The tutorial's application, idle for some seconds before each answer: what a test of speed must notice."""

import asyncio
from importlib import import_module
from importlib.metadata import version

from greenroom import AgentApp

LATE_SECONDS = 3.0

friday = import_module(f"friday_for_{version('agentscope').partition('.')[0]}")
agent_app = AgentApp(app_name="Late Friday")
agent_app.init(friday.init_func)
agent_app.shutdown(friday.shutdown_func)


@agent_app.query(framework="agentscope")
async def query_func(self, msgs, request=None, **kwargs):
    await asyncio.sleep(LATE_SECONDS)
    async for item in friday.query_func(self, msgs, request):
        yield item
