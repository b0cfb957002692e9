"""Where the loop of an AgentScope 1.x agent stops within a turn: at a call of a client's tool, or out of tokens.

`ReActAgent.reply` reasons, acts, and reasons again until a message has no calls. Its memory gets each message before
the loop looks at it. So the loop is given a copy of a message that has a client's calls, without them: the calls of the
agent's own tools in it still run, then the loop ends as after any answer, and whoever called the agent goes on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any

from agentscope.agent import AgentBase
from agentscope.message import Msg

from greenroom.actors.frameworks.agentscope1_blocks import Block
from greenroom.actors.frameworks.agentscope1_options import (
    TurnModels,
    models_of_turn,
    reasoning_agent,
    set_reasoning_agent,
)
from greenroom.actors.frameworks.agentscope1_pairs import without_calls

NOT_RUN = "not called: the turn had no output tokens left"
"""The result of a call that came with the last tokens: its arguments may be cut off, and nobody would hear of it."""


class Run:
    """One call of an agent in a turn. `inner`: it was called within another's, as a tool is. `parked`: the message that
    its loop stopped at, with its calls."""

    __slots__ = ("agent", "inner", "parked")

    def __init__(self, agent: AgentBase, inner: bool) -> None:
        self.agent = agent
        self.inner = inner
        self.parked: Msg | None = None

    def __repr__(self) -> str:
        return f"<Run of {getattr(self.agent, 'name', self.agent.id)!r} {'parked' if self.parked else ''}>"


_run: ContextVar[Run | None] = ContextVar("greenroom_agent_run", default=None)


async def run_agent(agent: AgentBase, call: Callable[[], Awaitable[Any]]) -> Any:
    """Call an agent. Its reply is the message that it stopped at, if it was stopped."""
    if models_of_turn() is None:
        return await call()
    run = Run(agent, _run.get() is not None)
    token = _run.set(run)
    try:
        reply = await call()
    finally:
        _run.reset(token)
    return reply if run.parked is None or run.inner else run.parked


def reasoning_in_turn(reasoning: Callable[..., Any]) -> Callable[..., Any]:
    """`_reasoning` of an agent, which in a turn with options may be where its loop ends."""

    async def reason(self: Any, *args: Any, **kwargs: Any) -> Any:
        models, run = models_of_turn(), _run.get()
        if models is None or run is None or run.agent is not self or reasoning_agent() is self:
            return await reasoning(self, *args, **kwargs)
        if run.parked is not None or models.spent:
            return await _at_rest(run)
        done = set_reasoning_agent(None if run.inner else self)
        try:
            msg = await reasoning(self, *args, **kwargs)
        finally:
            done()
        return await _after(models, run, msg)

    return reason


def summarizing_in_turn(summarizing: Callable[..., Any]) -> Callable[..., Any]:
    """`_summarizing` of an agent, whose loop has gone round as often as it may: not when it was stopped."""

    async def summarize(self: Any, *args: Any, **kwargs: Any) -> Any:
        run = _run.get()
        if run is not None and run.agent is self and run.parked is not None:
            return await _at_rest(run)
        return await summarizing(self, *args, **kwargs)

    return summarize


async def _after(models: TurnModels, run: Run, msg: Msg) -> Msg:
    """What the loop gets of a message that the agent's model has answered with."""
    calls: Sequence[Block] = msg.get_content_blocks("tool_use")
    if not run.inner:
        models.demand.answered([call["name"] for call in calls])
    theirs = [call for call in calls if not run.inner and call["name"] in models.client_tools]
    if models.spent:
        await _leave(run.agent, [call for call in calls if call not in theirs])
        theirs = list(calls)
    if not theirs:
        return msg
    run.parked = msg
    if len(theirs) == len(calls):
        return await _at_rest(run)
    return without_calls(msg, theirs)


async def _at_rest(run: Run) -> Msg:
    """A message without calls, at which the loop ends: also when the handler wants structured output of the agent, and
    what it then said to itself, to go on, is unsaid."""
    agent: Any = run.agent
    agent._required_structured_model = None
    await agent.memory.delete_by_mark("hint")
    if run.parked is None:
        return Msg(agent.name, [], "assistant")
    return without_calls(run.parked, run.parked.get_content_blocks("tool_use"))


async def _leave(agent: Any, calls: Sequence[Block]) -> None:
    """Say of calls that they were not made, as AgentScope does for an agent that is interrupted."""
    for call in calls:
        block = {"type": "tool_result", "id": call["id"], "name": call["name"], "output": NOT_RUN}
        msg = Msg("system", [block], "system")
        await agent.memory.add(msg)
        await agent.print(msg, True)
