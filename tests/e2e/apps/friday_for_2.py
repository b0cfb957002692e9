"""The tutorial's application as somebody writes it for AgentScope 2.x, with a model that OPENAI_BASE_URL names.

The model's client waits longer than the usual 5 seconds for a connection, as a machine that runs tests may be busy.
"""

import os
import subprocess
import sys

from agentscope.agent import Agent
from agentscope.credential import OpenAICredential
from agentscope.model import OpenAIChatModel
from agentscope.permission import PermissionBehavior, PermissionDecision
from agentscope.state import AgentState
from agentscope.tool import FunctionTool, Toolkit

from greenroom import (
    AgentApp,
    AgentRequest,
    AgentScopeSessionHistoryMiddleware,
    InMemorySessionHistoryService,
    InMemoryStateService,
)

agent_app = AgentApp(
    app_name="Friday",
    app_description="A helpful assistant",
)


def execute_python_code(code: str) -> str:
    """Run Python code and return what it prints.

    Args:
        code (str): The code.
    """
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout


@agent_app.init
async def init_func(self):
    self.state_service = InMemoryStateService()
    self.session_service = InMemorySessionHistoryService()

    await self.state_service.start()
    await self.session_service.start()


@agent_app.shutdown
async def shutdown_func(self):
    await self.state_service.stop()
    await self.session_service.stop()


@agent_app.query(framework="agentscope")
async def query_func(self, msgs, request: AgentRequest = None, **kwargs):
    session_id = request.session_id
    user_id = request.user_id

    state = await self.state_service.export_state(
        session_id=session_id,
        user_id=user_id,
    )

    agent = Agent(
        name="Friday",
        system_prompt="You're a helpful assistant named Friday.",
        model=OpenAIChatModel(
            OpenAICredential(
                api_key=os.getenv("OPENAI_API_KEY"),
                base_url=os.getenv("OPENAI_BASE_URL"),
            ),
            "scripted",
            client_kwargs={"timeout": 60},
        ),
        toolkit=Toolkit(
            tools=[
                FunctionTool(
                    execute_python_code,
                    permission=PermissionDecision(PermissionBehavior.ALLOW, "It may."),
                )
            ]
        ),
        middlewares=[
            AgentScopeSessionHistoryMiddleware(
                service=self.session_service,
                session_id=session_id,
                user_id=user_id,
            )
        ],
        state=AgentState.model_validate(state) if state else None,
    )

    async for event in agent.reply_stream(msgs):
        yield event

    await self.state_service.save_state(
        user_id=user_id,
        session_id=session_id,
        state=agent.state.model_dump(mode="json"),
    )


if __name__ == "__main__":
    agent_app.run(host="127.0.0.1", port=8090)
