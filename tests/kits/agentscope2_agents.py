"""AgentScope 2.x agents for tests, on a model that says what it is told to, without a server."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from agentscope.agent import Agent
from agentscope.credential import OpenAICredential
from agentscope.formatter import OpenAIChatFormatter
from agentscope.message import Msg, TextBlock, ThinkingBlock, ToolCallBlock, UserMsg
from agentscope.model import ChatModelBase, ChatResponse, ChatUsage, OpenAIChatModel
from agentscope.permission import PermissionBehavior, PermissionDecision
from agentscope.tool import FunctionTool, Toolkit
from pydantic import BaseModel, SecretStr

ALLOW = PermissionDecision(behavior=PermissionBehavior.ALLOW, message="a test may")

Chunk = Sequence[Any]
"""The blocks that one chunk of a stream brings."""


HANG: Chunk = ()
"""As a chunk: the stream waits for ever."""


class NoParameters(BaseModel):
    """The model takes none."""


class Said(ChatModelBase):  # type: ignore[misc]  # its types are not followed
    """A model that answers each call with the next of its replies: a list of chunks, or an error to raise."""

    def __init__(self, *replies: Sequence[Chunk] | Exception) -> None:
        super().__init__(OpenAICredential(api_key=SecretStr("none")), "said", NoParameters(), max_retries=0)
        self.formatter = OpenAIChatFormatter()
        self.replies: list[Sequence[Chunk] | Exception] = list(replies)
        self.asked: list[list[Msg]] = []
        self.hanging = asyncio.Event()

    async def _call_api(
        self, model_name: str, messages: list[Msg], *args: Any, **kwargs: Any
    ) -> AsyncGenerator[ChatResponse, None]:
        # Copies: the agent goes on writing to its own.
        self.asked.append([msg.model_copy(deep=True) for msg in messages])
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return self._stream(reply)

    async def _stream(self, chunks: Sequence[Chunk]) -> AsyncGenerator[ChatResponse, None]:
        for chunk in chunks:
            if not chunk:
                self.hanging.set()
                await asyncio.Event().wait()
            yield ChatResponse(content=list(chunk), is_last=False)
        usage = ChatUsage(input_tokens=7, output_tokens=5, cache_input_tokens=3, time=0.0)
        yield ChatResponse(content=[], is_last=False, usage=usage)


def say(*pieces: str | None) -> list[Chunk]:
    """A reply of text."""
    return [[TextBlock(id="text", text=piece)] for piece in pieces if piece is not None]


def think(*pieces: str) -> list[Chunk]:
    """Thinking, to be followed by something."""
    return [[ThinkingBlock(id="thinking", thinking=piece)] for piece in pieces]


def use(*calls: tuple[str, str, str]) -> list[Chunk]:
    """A reply that calls tools: (call id, name, arguments)."""
    return [[ToolCallBlock(id=call_id, name=name, input=arguments) for call_id, name, arguments in calls]]


def agent(
    model: ChatModelBase,
    *functions: Callable[..., Any],
    concurrent: bool = True,
    permission: PermissionDecision | None = ALLOW,
    prompt: str = "You are Friday.",
    **kwargs: Any,
) -> Agent:
    """An agent with these functions as tools. With `permission=None` it has to ask before it calls one."""
    tools: list[Any] = [
        FunctionTool(function, permission=permission, is_concurrency_safe=concurrent)
        for function in functions
    ]
    return Agent("Friday", prompt, model, toolkit=Toolkit(tools=tools), **kwargs)


def a_model(base_url: str) -> OpenAIChatModel:
    """AgentScope's own model client, for the scripted model server."""
    credential = OpenAICredential(api_key=SecretStr("any"), base_url=base_url)
    return OpenAIChatModel(credential, "scripted", max_retries=0)


def user(text: str) -> Msg:
    """What a user says."""
    return UserMsg("user", text)


async def events_of(agent: Agent, *inputs: Msg, **kwargs: Any) -> list[Any]:
    """All that the agent's reply yields."""
    return [event async for event in agent.reply_stream(list(inputs), **kwargs)]
