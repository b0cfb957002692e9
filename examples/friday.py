"""Friday, the assistant of the AgentScope Runtime tutorial, on AgentScope 1.x.

Serve it with `greenroom serve examples/friday.py` or `python examples/friday.py`, then ask:

    curl -N http://127.0.0.1:8090/process -H 'Content-Type: application/json' \
      -d '{"input": [{"role": "user", "content": [{"type": "text", "text": "What is the capital of France?"}]}]}'

It thinks with Qwen when DASHSCOPE_API_KEY is set, with OpenAI (or whatever OPENAI_BASE_URL and OPENAI_MODEL name) when
OPENAI_API_KEY is set, and otherwise with a small model on this machine: `greenroom model install` fetches that.

With a real model it has a browser too, in a sandbox: ask it to look at a page. `greenroom sandbox doctor` says what is
missing where none can run; Friday says so as well then.
"""

import logging
import os

import openai.resources.chat  # noqa: F401 - else it is loaded in the first turn, which holds up the event loop
from agentscope.agent import ReActAgent
from agentscope.formatter import DashScopeChatFormatter, OpenAIChatFormatter
from agentscope.model import DashScopeChatModel, OpenAIChatModel
from agentscope.pipeline import stream_printing_messages
from agentscope.token import CharTokenCounter
from agentscope.tool import Toolkit, execute_python_code

from greenroom import (
    AgentApp,
    AgentRequest,
    AgentScopeSessionHistoryMemory,
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
DATABASE = os.getenv("FRIDAY_DATABASE", "friday.db")

agent_app = AgentApp(
    app_name="Friday",
    app_description="A helpful assistant",
    state=f"sqlite:///{DATABASE}",
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
    if api_key := os.getenv("DASHSCOPE_API_KEY"):
        use_dashscope(self, api_key)
    elif api_key := os.getenv("OPENAI_API_KEY"):
        use_openai(self, api_key)
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
        self.sys_prompt += " You cannot open web pages here, as no sandbox can run; say so when asked to."


def use_dashscope(self, api_key):
    self.model = DashScopeChatModel("qwen-turbo", api_key=api_key, enable_thinking=True, stream=True)
    self.formatter = DashScopeChatFormatter()
    self.sys_prompt = "You're a helpful assistant named Friday."
    self.tools = [execute_python_code]


def use_openai(self, api_key):
    self.model = OpenAIChatModel(os.getenv("OPENAI_MODEL", "gpt-4.1-mini"), api_key=api_key, stream=True)
    self.formatter = OpenAIChatFormatter()
    self.sys_prompt = "You're a helpful assistant named Friday."
    self.tools = [execute_python_code]


def use_local_model(self):
    local = self.local_model
    self.model = OpenAIChatModel(
        local.model, api_key=local.api_key, client_kwargs={"base_url": local.base_url}, stream=True
    )
    # Two characters a token are few, so what is sent leaves the model's context room for the answer.
    self.formatter = OpenAIChatFormatter(token_counter=CharTokenCounter(), max_tokens=local.context * 2)
    # So small a model answers in French and at length unless told, and a tool's description makes it talk about that.
    self.sys_prompt = "You're a helpful assistant named Friday. Keep answers short, correct and in English."
    self.tools = []


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

    toolkit = Toolkit()
    for tool in self.tools:
        toolkit.register_tool_function(tool)
    if await self.sandbox_service.health():
        sandboxes = self.sandbox_service.connect(
            session_id=session_id,
            user_id=user_id,
            sandbox_types=["browser"],
        )
        browser_box = sandboxes[0]
        for tool in (
            browser_box.browser_navigate,
            browser_box.browser_snapshot,
            browser_box.browser_take_screenshot,
            browser_box.browser_click,
            browser_box.browser_type,
        ):
            toolkit.register_tool_function(tool)

    agent = ReActAgent(
        name="Friday",
        model=self.model,
        sys_prompt=self.sys_prompt,
        toolkit=toolkit,
        memory=AgentScopeSessionHistoryMemory(
            service=self.session_service,
            session_id=session_id,
            user_id=user_id,
        ),
        formatter=self.formatter,
    )
    agent.set_console_output_enabled(enabled=False)

    if state:
        agent.load_state_dict(state)

    async for msg, last in stream_printing_messages(
        agents=[agent],
        coroutine_task=agent(msgs),
    ):
        yield msg, last

    await self.state_service.save_state(
        user_id=user_id,
        session_id=session_id,
        state=agent.state_dict(),
    )


if __name__ == "__main__":
    agent_app.run(host="127.0.0.1", port=PORT)
