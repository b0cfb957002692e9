"""Tools that the client runs, for AgentScope 2.x: offered to a turn's agents, parked when called, answered by the next
turn's input.

AgentScope has external tools for that: a call of one is handed out (`RequireExternalExecutionEvent`) and the reply
waits in the agent's state until an `ExternalExecutionResultEvent` brings the result. `install` wraps four methods,
which act inside a Greenroom turn alone, and not for agents that tools run:

- `Toolkit._get_available_tools`: the client's tools are there beside the agent's own, never in the toolkit itself.
- `Agent._batch_tool_calls`, `._execute_tool_call`: the agent's own tools are run first, then the client's handed out.
- `Agent._reply_impl`: a tool's output in the input resumes the reply that waits for it. What else waits is closed as
  interrupted, as it is by who writes on without an output.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from agentscope.agent import Agent
from agentscope.event import (
    RequireExternalExecutionEvent,
    ToolResultDataDeltaEvent,
    ToolResultEndEvent,
    ToolResultStartEvent,
    ToolResultTextDeltaEvent,
)
from agentscope.message import Msg, ToolCallBlock, ToolCallState
from agentscope.permission import PermissionBehavior, PermissionDecision
from agentscope.tool import RegisteredTool, ToolBase, Toolkit

from greenroom.actors.frameworks.agentscope2_resume import take_in
from greenroom.actors.frameworks.agentscope2_tools import turn_of_agent, wrap
from greenroom.actors.frameworks.model_options import check_names, tool_schema
from greenroom.actors.messages import FunctionTool

RESULT_EVENTS = (
    ToolResultStartEvent,
    ToolResultTextDeltaEvent,
    ToolResultDataDeltaEvent,
    ToolResultEndEvent,
)


def install() -> None:
    """Wrap AgentScope's methods. Doing it twice is fine."""
    wrap(Toolkit, "_get_available_tools", _available)
    wrap(Agent, "_batch_tool_calls", _batch)
    wrap(Agent, "_execute_tool_call", _execute)
    wrap(Agent, "_reply_impl", _reply_impl)


def _offered() -> tuple[FunctionTool, ...]:
    """The tools that the client of this turn runs."""
    scope = turn_of_agent()
    return scope.options.tools if scope is not None and scope.options is not None else ()


def _is_offered(call: ToolCallBlock) -> bool:
    return any(tool.name == call.name for tool in _offered())


# -- offered -----------------------------------------------------------------------------------------------------------


class _ClientTool(ToolBase):  # type: ignore[misc]  # its types are not followed
    """A tool that the client runs. It takes what the model writes: whether that is fit is the client's to say."""

    is_concurrency_safe = True
    is_read_only = True
    is_external_tool = True

    def __init__(self, tool: FunctionTool) -> None:
        super().__init__()
        self.input_schema: dict[str, Any] = {"type": "object", "properties": {}}
        self.name = tool.name
        self.description = tool.description or ""

    async def check_permissions(self, *args: Any, **kwargs: Any) -> PermissionDecision:
        """It runs at the client's, who asked for it."""
        return PermissionDecision(behavior=PermissionBehavior.ALLOW, message="The client runs it.")


class _Offer(RegisteredTool):  # type: ignore[misc]
    """A client's tool in the list of those available."""

    def __init__(self, tool: FunctionTool) -> None:
        super().__init__(tool=_ClientTool(tool))
        self._schema = tool_schema(tool)

    def get_tool_schema(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What the client sent, as it is."""
        return self._schema


def _available(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def available(self: Toolkit, *args: Any, **kwargs: Any) -> Any:
        own = await original(self, *args, **kwargs)
        scope = turn_of_agent()
        if scope is None or scope.options is None or not scope.options.tools:
            return own
        check_names(scope.options, own)
        return own | {tool.name: _Offer(tool) for tool in scope.options.tools}

    return available


# -- parked ------------------------------------------------------------------------------------------------------------


def _batch(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def batch(self: Agent, tool_calls: list[ToolCallBlock]) -> Any:
        handed_out = [call for call in tool_calls if _is_offered(call)]
        if not handed_out:
            return await original(self, tool_calls)
        for call in handed_out:
            # Now, as a tool of the agent's own that has to be confirmed keeps later batches from their turn.
            self._update_tool_call_state(call.id, ToolCallState.SUBMITTED)
        run_here = [call for call in tool_calls if call not in handed_out]
        # The handing out comes last: it ends the round, and what is run here shall be run by then.
        return [*(await original(self, run_here) if run_here else ()), *await original(self, handed_out)]

    return batch


def _execute(
    original: Callable[..., AsyncGenerator[Any, None]],
) -> Callable[..., AsyncGenerator[Any, None]]:
    async def execute(
        self: Agent, tool_call: ToolCallBlock, *args: Any, **kwargs: Any
    ) -> AsyncGenerator[Any, None]:
        if _is_offered(tool_call):
            reply = self.state.reply_id
            yield ToolResultStartEvent(
                reply_id=reply, tool_call_id=tool_call.id, tool_call_name=tool_call.name
            )
            yield RequireExternalExecutionEvent(reply_id=reply, tool_calls=[tool_call])
            return
        async with aclosing(original(self, tool_call, *args, **kwargs)) as events:
            async for event in events:
                yield event

    return execute


# -- answered ----------------------------------------------------------------------------------------------------------


def _reply_impl(
    original: Callable[..., AsyncGenerator[Any, None]],
) -> Callable[..., AsyncGenerator[Any, None]]:
    async def reply_impl(
        self: Agent, inputs: Any = None, structured_schema: Any = None
    ) -> AsyncGenerator[Any, None]:
        known: set[str] = set()
        if turn_of_agent() is not None and (inputs is None or isinstance(inputs, Msg | list)):
            inputs, known = take_in(self, inputs)
            if known:
                structured_schema = None  # the reply that goes on has its own
        async with aclosing(original(self, inputs=inputs, structured_schema=structured_schema)) as items:
            async for item in items:
                if known and isinstance(item, RESULT_EVENTS) and item.tool_call_id in known:
                    # The client knows the output: it sent it.
                    if isinstance(item, ToolResultEndEvent):
                        known.discard(item.tool_call_id)
                    continue
                yield _with_calls(self, item) if isinstance(item, Msg) else item

    return reply_impl


def _with_calls(agent: Agent, msg: Msg) -> Msg:
    """The message a reply ends with. Where that says only that it waits, it has the calls that the client is to run:
    who asks for the message alone (`Agent.reply`) hears nothing else."""
    waiting = agent.state.get_awaiting_tool_calls(agent.name)
    calls = [call for call in waiting if call.state == ToolCallState.SUBMITTED and _is_offered(call)]
    if not calls:
        return msg
    rest = msg.content if len(calls) < len(waiting) else []
    return msg.model_copy(update={"content": [*calls, *rest]})
