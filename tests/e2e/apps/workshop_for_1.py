"""Agents with tools on AgentScope 1.x: `tutorial` and `actor`, one at each level of use; `speaker` has no model.

`GET /kept` tells what is kept of a session after its last turn: how many turns the state counts, what was said
according to the state or the history, and the actor's own record of the turns.
"""

import gc
import json
import os

import msgspec
from agentscope.agent import AgentBase, ReActAgent
from agentscope.formatter import OpenAIChatFormatter
from agentscope.message import Msg, TextBlock
from agentscope.model import OpenAIChatModel
from agentscope.pipeline import stream_printing_messages
from agentscope.tool import Toolkit, ToolResponse
from workshop_parts import (
    IDLE,
    LIMITS,
    MESSAGES_KEPT,
    await_at,
    caller,
    history_of,
    log_of,
    note,
    spoken,
    wait_at,
)

from greenroom import (
    AgentApp,
    AgentScopeSessionHistoryMemory,
    InMemorySessionHistoryService,
    InMemoryStateService,
    InMemoryStore,
    SessionKey,
)


def says(text):
    return ToolResponse([TextBlock(type="text", text=text)])


async def get_weather(city: str) -> ToolResponse:
    """The weather.

    Args:
        city (str): Where.
    """
    return says(f"Sunny in {city}.")


def wait_at_door(door: str) -> ToolResponse:
    """Block until the door is opened.

    Args:
        door (str): Its address.
    """
    return says(wait_at(door))


async def await_at_door(door: str) -> ToolResponse:
    """Wait until the door is opened.

    Args:
        door (str): Its address.
    """
    return says(await await_at(door))


def break_down() -> ToolResponse:
    """Fail."""
    raise ValueError("no luck today")


def use_model(self):
    self.model = OpenAIChatModel(
        "scripted",
        api_key="any",
        client_kwargs={"base_url": os.environ["OPENAI_BASE_URL"], "max_retries": 0, "timeout": 60},
    )


def make_agent(model, memory=None):
    toolkit = Toolkit()
    for tool in (get_weather, wait_at_door, await_at_door, break_down):
        toolkit.register_tool_function(tool)
    agent = ReActAgent(
        "Friday",
        "You help.",
        model,
        OpenAIChatFormatter(),
        toolkit=toolkit,
        memory=memory,
        parallel_tool_calls=True,
    )
    agent.set_console_output_enabled(False)
    return agent


# -- the tutorial's level ----------------------------------------------------------------------------------------------

tutorial_store = InMemoryStore(idle_seconds=IDLE)
tutorial = AgentApp("Tutorial", state=tutorial_store, limits=LIMITS)


@tutorial.init
async def start_tutorial(self):
    use_model(self)
    self.state_service = InMemoryStateService(idle_seconds=IDLE)
    self.session_service = InMemorySessionHistoryService(idle_seconds=IDLE, messages_kept=MESSAGES_KEPT)
    await self.state_service.start()
    await self.session_service.start()
    note("init")


@tutorial.shutdown
async def stop_tutorial(self):
    await self.state_service.stop()
    await self.session_service.stop()
    note("shutdown")


@tutorial.query(framework="agentscope")
async def answer(self, msgs, request):
    caller.set(request.session_id)
    ids = {"user_id": request.user_id, "session_id": request.session_id}
    state = await self.state_service.export_state(**ids) or {"turns": 0}
    agent = make_agent(self.model, AgentScopeSessionHistoryMemory(service=self.session_service, **ids))
    if "agent" in state:
        agent.load_state_dict(state["agent"])
    async for msg, last in stream_printing_messages(agents=[agent], coroutine_task=agent(msgs)):
        yield msg, last
    await self.state_service.save_state(
        **ids, state={"turns": state["turns"] + 1, "agent": agent.state_dict()}
    )


@tutorial.endpoint("/kept", methods=["GET"])
async def tutorial_kept(user: str, session: str):
    state = await tutorial.state_service.export_state(user_id=user, session_id=session)
    return {
        "turns": state["turns"] if state else 0,
        "said": await history_of(tutorial.session_service, user, session),
        "log": await log_of(tutorial_store, user, session),
    }


@tutorial.endpoint("/statistics", methods=["GET"])
async def tutorial_statistics():
    gc.collect()  # what waits for the collector is not kept
    return msgspec.to_builtins(tutorial.statistics())


# -- the actor's level -------------------------------------------------------------------------------------------------

actor_store = InMemoryStore(idle_seconds=IDLE)
actor = AgentApp("Actor", state=actor_store, limits=LIMITS)


@actor.init
async def start_actor(self):
    use_model(self)
    note("init")


@actor.shutdown
async def stop_actor(self):
    note("shutdown")


@actor.agent(framework="agentscope")
async def make_session_agent(self, session):
    caller.set(session.session_id)
    return make_agent(self.model)


@actor.endpoint("/kept", methods=["GET"])
async def actor_kept(user: str, session: str):
    said = []
    record = await actor_store.load(SessionKey(user, session))
    if record is not None and record.state:
        agent = make_agent(actor.model)
        agent.load_state_dict(json.loads(record.state), strict=False)
        msgs = await agent.memory.get_memory()
        said = spoken((msg.role, msg.get_text_content()) for msg in msgs)
    turns = sum(role == "user" for role, _ in said)
    return {"turns": turns, "said": said, "log": await log_of(actor_store, user, session)}


@actor.endpoint("/statistics", methods=["GET"])
async def actor_statistics():
    gc.collect()  # what waits for the collector is not kept
    return msgspec.to_builtins(actor.statistics())


# -- without a model ---------------------------------------------------------------------------------------------------

speaker = AgentApp("Speaker")


class Speaker(AgentBase):
    """Prints what it was sent; text of the form `a|b|c` as one message that says a, then b, then c."""

    async def reply(self, msgs):
        text = msgs[-1].get_text_content() or ""
        msg = Msg("Speaker", msgs[-1].content, "assistant")
        for so_far in text.split("|") if "|" in text else ():
            msg.content = so_far
            await self.print(msg, False)
        await self.print(msg, True)
        return msg

    async def observe(self, msg):
        pass


@speaker.query(framework="agentscope")
async def speak(self, msgs):
    agent = Speaker()
    agent.set_console_output_enabled(False)
    async for msg, last in stream_printing_messages(agents=[agent], coroutine_task=agent(msgs)):
        yield msg, last


if __name__ == "__main__":
    tutorial.configure(drain_seconds=0.3)
    tutorial.run(port=0)
    note("returned")
