"""Friday, the assistant of the AgentScope Runtime tutorial, on AgentScope 2.x. `friday.py` is the same on 1.x.

Serve it with `greenroom serve examples/friday_2.py` or `python examples/friday_2.py`, then ask:

    curl -N http://127.0.0.1:8090/process -H 'Content-Type: application/json' \
      -d '{"input": [{"role": "user", "content": [{"type": "text", "text": "What is the capital of France?"}]}]}'

It thinks with Qwen when DASHSCOPE_API_KEY is set, with OpenAI (or whatever OPENAI_BASE_URL and OPENAI_MODEL name) when
OPENAI_API_KEY is set, and otherwise with a small model on this machine: `greenroom model install` fetches that.

With a real model it has a browser too, in a sandbox: ask it to look at a page. `greenroom sandbox doctor` says what is
missing where none can run; Friday says so as well then.
"""

import logging
import os
import subprocess
import sys

import anyio
import openai.resources.chat  # noqa: F401 - else it is loaded in the first turn, which holds up the event loop
from agentscope.agent import Agent, InjectionConfig
from agentscope.credential import DashScopeCredential, OpenAICredential
from agentscope.model import DashScopeChatModel, OpenAIChatModel
from agentscope.permission import PermissionBehavior, PermissionDecision
from agentscope.state import AgentState
from agentscope.tool import FunctionTool, Toolkit

from greenroom import (
    AgentApp,
    AgentRequest,
    AgentScopeSessionHistoryMiddleware,
    LocalModel,
    SandboxError,
    SandboxService,
    SqliteSessionHistoryService,
    SqliteStateService,
    local_model_warning,
)

PORT = 8090

# Where sessions are kept, and what the services have of them: in one file, so that a turn is written whole or not at
# all, and is remembered after a restart. (The InMemoryStateService and InMemorySessionHistoryService of the tutorial
# forget.) FRIDAY_DATABASE names another file, for all of it; `--state` would move the sessions alone.
# It is not that of `friday.py`: AgentScope 1.x cannot read what agents of 2.x have saved.
DATABASE = os.getenv("FRIDAY_DATABASE", "friday_2.db")

agent_app = AgentApp(
    app_name="Friday",
    app_description="A helpful assistant",
    state=f"sqlite:///{DATABASE}",
)


async def execute_python_code(code: str, timeout: float = 300) -> str:
    """Run Python code in a process of its own and return what it prints, so print what you want to know.

    Args:
        code (str): The Python code.
        timeout (float): How many seconds it may run.
    """
    with anyio.move_on_after(timeout):
        command = [sys.executable, "-u", "-c", code]
        done = await anyio.run_process(
            command, check=False, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        return f"exit code {done.returncode}\n{done.stdout.decode(errors='replace')}"
    return f"stopped after {timeout} seconds"


# AgentScope 2.x asks the user before a tool runs unless told that it may.
ALLOWED = PermissionDecision(PermissionBehavior.ALLOW, "Friday may run Python code.")

BROWSER_TOOLS = (
    "browser_navigate",
    "browser_snapshot",
    "browser_take_screenshot",
    "browser_click",
    "browser_type",
)


@agent_app.init
async def init_func(self):
    self.state_service = SqliteStateService(DATABASE)
    self.session_service = SqliteSessionHistoryService(DATABASE)
    self.sandbox_service = SandboxService()
    self.local_model = LocalModel()

    await self.state_service.start()
    await self.session_service.start()

    # The model's client is built once and used by all turns: building one takes longer than a turn's own work.
    self.system_prompt = "You're a helpful assistant named Friday."
    self.tools = [FunctionTool(execute_python_code, permission=ALLOWED)]
    self.injection = InjectionConfig()
    if api_key := os.getenv("DASHSCOPE_API_KEY"):
        self.model = dashscope_model(api_key)
    elif api_key := os.getenv("OPENAI_API_KEY"):
        self.model = OpenAIChatModel(
            OpenAICredential(api_key=api_key), os.getenv("OPENAI_MODEL", "gpt-4.1-mini")
        )
    else:
        logging.getLogger("friday").warning(local_model_warning())
        await self.local_model.start()
        use_local_model(self)
        return
    await use_browser(self)


async def use_browser(self):
    try:
        await self.sandbox_service.start()  # boxes start when a session first browses
    except SandboxError as error:
        logging.getLogger("friday").warning("Friday has no browser: %s", error)
        self.system_prompt += " You cannot open web pages here, as no sandbox can run; say so when asked to."


def dashscope_model(api_key):
    thinking = DashScopeChatModel.Parameters(thinking_enable=True)
    return DashScopeChatModel(DashScopeCredential(api_key=api_key), "qwen-turbo", thinking)


def use_local_model(self):
    local = self.local_model
    credential = OpenAICredential(api_key=local.api_key, base_url=local.base_url)
    self.model = OpenAIChatModel(credential, local.model, context_size=local.context)
    # So small a model answers in French and at length unless told, and a tool's description, or the time and the state
    # of its tasks, makes it talk about these.
    self.system_prompt = (
        "You're a helpful assistant named Friday. Keep answers short, correct and in English."
    )
    self.tools = []
    self.injection = InjectionConfig(inject_runtime_state=False)


@agent_app.shutdown
async def shutdown_func(self):
    await self.local_model.stop()
    await self.sandbox_service.stop()
    await self.state_service.stop()
    await self.session_service.stop()


@agent_app.query(framework="agentscope")
async def query_func(self, msgs, request: AgentRequest):
    session_id = request.session_id
    user_id = request.user_id

    state = await self.state_service.export_state(
        session_id=session_id,
        user_id=user_id,
    )

    tools = list(self.tools)
    if await self.sandbox_service.health():
        sandboxes = self.sandbox_service.connect(
            session_id=session_id,
            user_id=user_id,
            sandbox_types=["browser"],
        )
        tools += sandboxes[0].tools(*BROWSER_TOOLS)

    agent = Agent(
        name="Friday",
        system_prompt=self.system_prompt,
        model=self.model,
        toolkit=Toolkit(tools=tools),
        middlewares=[
            AgentScopeSessionHistoryMiddleware(
                service=self.session_service,
                session_id=session_id,
                user_id=user_id,
            )
        ],
        state=AgentState.model_validate(state) if state else None,
        injection_config=self.injection,
    )

    async for event in agent.reply_stream(msgs):
        yield event

    await self.state_service.save_state(
        user_id=user_id,
        session_id=session_id,
        state=agent.state.model_dump(mode="json"),
    )


if __name__ == "__main__":
    agent_app.run(host="127.0.0.1", port=PORT)
