"""What a turn asks of its models, for AgentScope 2.x: seen to at each model call, and nowhere else.

`install` wraps two methods; outside of a turn that asks for something they do as ever.

- `ChatModelBase.__call__` is where any model is asked: there the request's instructions are added to the system prompt,
  the parameters are set, on a copy of the model that lives as long as the call, and the budget of tokens is kept.
- `Agent._call_model` is where an agent asks its model. For an agent that the handler runs (and no tool does) the choice
  of tools is made there, and the form of the answer asked for.

Nothing of it enters an agent's state. AgentScope does not say why a model stopped: a turn whose model calls made as
many tokens as they may is taken to be cut short. The calls in its last response may be cut as well and are not made.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

from agentscope.agent import Agent
from agentscope.agent._structured_output_tool import _GenerateStructuredOutput
from agentscope.message import Msg, SystemMsg, TextBlock, ThinkingBlock, ToolCallBlock
from agentscope.model import ChatModelBase, ChatResponse, OpenAIChatModel, OpenAIResponseModel
from agentscope.tool import ToolChoice
from pydantic import BaseModel, ValidationError

from greenroom.actors.frameworks.agentscope2_tools import turn_of_agent, wrap
from greenroom.actors.frameworks.model_options import (
    answer_words,
    check_choice,
    is_spent,
    response_format,
    spend,
    tastes,
    text_format,
    tokens_left,
)
from greenroom.actors.frameworks.tool_budget import ToolBudget
from greenroom.actors.frameworks.tool_demand import ToolDemand
from greenroom.actors.messages import TurnOptions
from greenroom.actors.scope import TurnScope, current_turn

FINISH: str = _GenerateStructuredOutput.name
"""The tool by which an agent gives its handler structured output. The client does not know of it."""


def install() -> None:
    """Wrap AgentScope's methods. Doing it twice is fine."""
    wrap(Agent, "_call_model", _call_model)
    wrap(ChatModelBase, "__call__", _call)


class TurnModels:
    """The model calls of one turn: what its options ask of them, and what came of that so far."""

    __slots__ = ("budget", "client_tools", "demand", "options", "scope")

    def __init__(self, scope: TurnScope, options: TurnOptions) -> None:
        self.scope = scope
        self.options = options
        self.client_tools = frozenset(tool.name for tool in options.tools)
        self.demand = ToolDemand(scope, options)
        self.budget = ToolBudget(options)

    def __repr__(self) -> str:
        return f"<TurnModels of {self.scope.turn_id}: {self.scope.output_tokens} tokens>"

    @property
    def strict(self) -> bool:
        """Whether it matters which calls a model makes."""
        options = self.options
        return (
            self.demand.open is not None
            or options.tool_choice == "none"
            or options.parallel_tool_calls is False
            or options.max_tool_calls is not None
        )

    def choice(self, names: Collection[str]) -> ToolChoice | None:
        """Which of the tools a model must, may or must not call. Raises `InvalidRequest` for what cannot be."""
        check_choice(self.options, names)
        if not names:
            return None
        if self.options.tool_choice == "none":
            # An agent that cannot give its structured output would try for ever.
            return ToolChoice(mode="auto", tools=[FINISH]) if FINISH in names else ToolChoice(mode="none")
        if self.demand.open is not None:
            return ToolChoice(mode=self.demand.open)
        if self.budget.spent:
            left = [name for name in names if name == FINISH or not self.budget.counts(name)]
            return ToolChoice(mode="auto", tools=left) if left else ToolChoice(mode="none")
        return None


_models: ContextVar[TurnModels | None] = ContextVar("greenroom_turn_models", default=None)
_own_call: ContextVar[str | None] = ContextVar("greenroom_own_call", default=None)
"""The id of the first message of the call that an agent of the handler's makes: it is told by that from other calls
that middlewares make on the way."""


def begin_turn() -> TurnModels | None:
    """A turn begins in this context; none: it asks for nothing, or there is no turn."""
    scope = current_turn.get()
    models = None if scope is None or scope.options is None else TurnModels(scope, scope.options)
    _models.set(models)
    return models


def models_of_turn() -> TurnModels | None:
    """What the turn that this code runs in asks for; none: nothing."""
    models = _models.get()
    return models if models is not None and models.scope is current_turn.get() else None


# -- an agent's model calls --------------------------------------------------------------------------------------------


def _call_model(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def call_model(
        self: Agent, messages: list[Msg], tools: list[dict[str, Any]], tool_choice: ToolChoice | None = None
    ) -> Any:
        models = models_of_turn()
        if models is None or turn_of_agent() is None:
            return await original(self, messages=messages, tools=tools, tool_choice=tool_choice)
        models.demand.offered = True
        # The agent's own choice comes first: it is at its last iteration, or must give its structured output.
        choice = models.choice([tool["function"]["name"] for tool in tools])
        token = _own_call.set(messages[0].id if messages else None)
        try:
            response = await original(self, messages=messages, tools=tools, tool_choice=tool_choice or choice)
        finally:
            _own_call.reset(token)
        if not models.strict:
            return response
        calls = _Calls(models)
        return calls.hear(response) if isinstance(response, ChatResponse) else calls.hear_all(response)

    return call_model


class _Calls:
    """Sees to the calls in a response: some services are not told what is forbidden, some models do not listen."""

    def __init__(self, models: TurnModels) -> None:
        self._models = models
        self._called: dict[str, str] = {}

    async def hear_all(
        self, responses: AsyncGenerator[ChatResponse, None]
    ) -> AsyncGenerator[ChatResponse, None]:
        """The pieces of a response, the whole of it last."""
        async with aclosing(responses):
            async for response in responses:
                before = len(response.content)
                self.hear(response)
                if response.is_last or response.content or not before:
                    yield response

    def hear(self, response: ChatResponse) -> ChatResponse:
        """A response, or a piece of one."""
        response.content = [block for block in response.content if self._may_stay(block)]
        if response.is_last:
            self._models.demand.answered(self._called.values())
        return response

    def _may_stay(self, block: Any) -> bool:
        if not isinstance(block, ToolCallBlock) or block.id in self._called:
            return True
        options = self._models.options
        if options.tool_choice == "none" and block.name != FINISH:
            return False
        if options.parallel_tool_calls is False and self._called:
            return False
        if block.name != FINISH and self._models.budget.counts(block.name):
            if self._models.budget.spent:
                return False
            self._models.budget.made += 1
        self._called[block.id] = block.name
        return True


# -- all model calls ---------------------------------------------------------------------------------------------------


def _call(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def call(self: ChatModelBase, messages: list[Msg], *args: Any, **kwargs: Any) -> Any:
        models = models_of_turn()
        if models is None:
            return await original(self, messages, *args, **kwargs)
        models.demand.asked = True
        scope, options = models.scope, models.options
        left = tokens_left(scope)
        if left == 0:
            return _silence(self)
        wishes = _wishes(options, left)
        words = [options.instructions] if options.instructions else []
        if options.answer is not None and messages and messages[0].id == _own_call.get():
            words.append(answer_words(options.answer))
            kwargs |= _form(self, options)
        if isinstance(self, OpenAIChatModel):
            kwargs |= tastes(options)
        response = await original(_with(self, wishes), _instructed(messages, words), *args, **kwargs)
        if left is None:
            return response
        return _count(scope, response) if isinstance(response, ChatResponse) else _counted(scope, response)

    return call


def _instructed(messages: list[Msg], words: Sequence[str]) -> list[Msg]:
    """The messages with more words in the system prompt: one message, as some models take no second."""
    if not words:
        return messages
    head = messages[0] if messages and messages[0].role == "system" else None
    before = head.get_text_content() if head is not None else None
    prompt = "\n\n".join([before, *words] if before else words)
    return [SystemMsg("system", prompt), *(messages if head is None else messages[1:])]


def _wishes(options: TurnOptions, left: int | None) -> dict[str, Any]:
    """Parameters, as AgentScope's model classes call them."""
    wishes = {
        "max_tokens": left,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "parallel_tool_calls": options.parallel_tool_calls,
        "reasoning_effort": options.reasoning_effort,
    }
    return {name: value for name, value in wishes.items() if value is not None}


def _form(model: ChatModelBase, options: TurnOptions) -> dict[str, Any]:
    """The form of the answer, for a model that has a parameter for it; all are told in words."""
    if options.answer is None:
        return {}
    if isinstance(model, OpenAIResponseModel):
        return {"text": {"format": text_format(options.answer)}}
    if isinstance(model, OpenAIChatModel):
        return {"response_format": response_format(options.answer)}
    return {}


def _with(model: ChatModelBase, wishes: dict[str, Any]) -> ChatModelBase:
    """The model with those of the parameters that its class has and takes."""
    parameters = model.parameters
    if not wishes or not isinstance(parameters, BaseModel):
        return model
    for name, value in wishes.items():
        if name == "max_tokens":
            value = min(value, getattr(parameters, name, None) or value)
        if name in type(parameters).model_fields:
            parameters = _changed(parameters, name, value)
    twin = copy.copy(model)
    twin.parameters = parameters
    return twin


def _changed(parameters: BaseModel, name: str, value: Any) -> BaseModel:
    changes = {name: value}
    if name == "reasoning_effort" and "thinking_enable" in type(parameters).model_fields:
        changes["thinking_enable"] = True  # the effort is not passed on without
    try:
        return type(parameters).model_validate(parameters.model_dump() | changes)
    except ValidationError:
        return parameters  # another service's word for an effort, or a number out of this one's range


# -- the budget --------------------------------------------------------------------------------------------------------


async def _counted(
    scope: TurnScope, responses: AsyncGenerator[ChatResponse, None]
) -> AsyncGenerator[ChatResponse, None]:
    async with aclosing(responses):
        async for response in responses:
            yield _count(scope, response)


def _count(scope: TurnScope, response: ChatResponse) -> ChatResponse:
    """Count a response when it is whole; the calls in what is cut are not made."""
    if response.is_last:
        used = response.usage.output_tokens if response.usage is not None else 0
        spend(scope, used, sum(map(_length, response.content)))
        if is_spent(scope):
            response.content = [block for block in response.content if not isinstance(block, ToolCallBlock)]
    return response


def _length(block: Any) -> int:
    if isinstance(block, TextBlock):
        return len(block.text)
    if isinstance(block, ThinkingBlock):
        return len(block.thinking)
    return len(block.input) if isinstance(block, ToolCallBlock) else 0


def _silence(model: ChatModelBase) -> ChatResponse | AsyncGenerator[ChatResponse, None]:
    """What a model says that may say no more."""
    nothing = ChatResponse(content=[], is_last=True)
    return _stream_of(nothing) if model.stream else nothing


async def _stream_of(response: ChatResponse) -> AsyncGenerator[ChatResponse, None]:
    yield response
