"""Agents with tools on AgentScope 2.x: `tutorial` and `actor`, one at each level of use; `speaker` has no model.

`GET /kept` tells what is kept of a session after its last turn: how many turns the state counts, what was said
according to the state or the history, and the actor's own record of the turns.
"""

import gc
import os

import msgspec
from agentscope.agent import Agent
from agentscope.credential import OpenAICredential
from agentscope.event import TextBlockDeltaEvent, TextBlockEndEvent, TextBlockStartEvent
from agentscope.message import Msg
from agentscope.model import OpenAIChatModel
from agentscope.permission import PermissionBehavior, PermissionDecision
from agentscope.state import AgentState
from agentscope.tool import FunctionTool, Toolkit
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
    AgentScopeSessionHistoryMiddleware,
    InMemorySessionHistoryService,
    InMemoryStateService,
    InMemoryStore,
    SessionKey,
)


async def get_weather(city: str) -> str:
    """The weather.

    Args:
        city (str): Where.
    """
    return f"Sunny in {city}."


def wait_at_door(door: str) -> str:
    """Block until the door is opened.

    Args:
        door (str): Its address.
    """
    return wait_at(door)


async def await_at_door(door: str) -> str:
    """Wait until the door is opened.

    Args:
        door (str): Its address.
    """
    return await await_at(door)


def break_down() -> str:
    """Fail."""
    raise ValueError("no luck today")


def use_model(self):
    self.model = OpenAIChatModel(
        OpenAICredential(api_key="any", base_url=os.environ["OPENAI_BASE_URL"]),
        "scripted",
        max_retries=0,
        client_kwargs={"max_retries": 0, "timeout": 60},
    )


ALLOWED = PermissionDecision(PermissionBehavior.ALLOW, "a test may")


def make_agent(model, state=None, middlewares=None):
    functions = (get_weather, wait_at_door, await_at_door, break_down)
    tools = [FunctionTool(function, permission=ALLOWED) for function in functions]
    return Agent("Friday", "You help.", model, Toolkit(tools=tools), middlewares, state)


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
    state = await self.state_service.export_state(**ids) or {"turns": 0, "agent": {}}
    history = AgentScopeSessionHistoryMiddleware(service=self.session_service, **ids)
    agent = make_agent(self.model, AgentState.model_validate(state["agent"]), [history])
    async for event in agent.reply_stream(msgs):
        yield event
    del agent.state.context[:-MESSAGES_KEPT]
    kept = {"turns": state["turns"] + 1, "agent": agent.state.model_dump(mode="json")}
    await self.state_service.save_state(**ids, state=kept)


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
        msgs = AgentState.model_validate_json(record.state).context
        said = spoken((msg.role, msg.get_text_content()) for msg in msgs)
    turns = sum(role == "user" for role, _ in said)
    return {"turns": turns, "said": said, "log": await log_of(actor_store, user, session)}


@actor.endpoint("/statistics", methods=["GET"])
async def actor_statistics():
    gc.collect()  # what waits for the collector is not kept
    return msgspec.to_builtins(actor.statistics())


# -- without a model ---------------------------------------------------------------------------------------------------

speaker = AgentApp("Speaker")


@speaker.query(framework="agentscope")
async def speak(self, msgs):
    """Says what it was sent; of text of the form `a|b` it says a, and at the block's end that it was b."""
    text = msgs[-1].get_text_content() or ""
    if "|" in text:
        first, _, whole = text.partition("|")
        ids = {"reply_id": "r", "block_id": "b"}
        yield TextBlockStartEvent(**ids)
        yield TextBlockDeltaEvent(**ids, delta=first)
        yield TextBlockEndEvent(**ids, text=whole)
    else:
        yield Msg(name="Speaker", role="assistant", content=msgs[-1].content)


if __name__ == "__main__":
    tutorial.configure(drain_seconds=0.3)
    tutorial.run(port=0)
    note("returned")
