"""AgentScope 1.x agents for tests: on the scripted model server, or on a model in this process; and their actors."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from agentscope.agent import ReActAgent
from agentscope.formatter import OpenAIChatFormatter
from agentscope.model import ChatModelBase, ChatResponse, OpenAIChatModel
from agentscope.model._model_usage import ChatUsage  # 1.x has no public name for it
from agentscope.tool import Toolkit, ToolResponse

from greenroom.actors.events import Terminal
from greenroom.actors.frameworks.agentscope1 import AgentScope1Adapter
from greenroom.actors.handler import AgentHandler, QueryHandler
from greenroom.actors.limits import Limits
from greenroom.actors.system import ActorSystem
from greenroom.services.sessions.memory_store import InMemoryStore
from greenroom.services.store import SessionStore
from kits.system import counting_sources, turn

Chunks = Sequence[Sequence[dict[str, Any]]]


class Scripted(ChatModelBase):  # type: ignore[misc]
    """A model in this process: each call says the next reply, a list of chunks, each the list of blocks so far.

    `usage`: input and output tokens it reports with each chunk. With `hang` it waits for ever after its first chunk.
    """

    def __init__(self, *replies: Chunks, usage: tuple[int, int] | None = None, hang: bool = False) -> None:
        super().__init__("scripted", stream=True)
        self.replies = list(replies)
        self.usage = usage
        self.hang = hang
        self.hanging = asyncio.Event()
        self.asked: list[Any] = []

    async def __call__(self, prompt: Any, *args: Any, **kwargs: Any) -> Any:
        self.asked.append(prompt)
        return self._stream(self.replies.pop(0))

    async def _stream(self, chunks: Chunks) -> AsyncIterator[ChatResponse]:
        reply_id = f"reply{len(self.asked)}"
        for blocks in chunks:
            usage = None if self.usage is None else ChatUsage(*self.usage, time=0.0)
            yield ChatResponse(list(blocks), id=reply_id, usage=usage)
            if self.hang:
                self.hanging.set()
                await asyncio.Event().wait()


def says(*wholes: str) -> list[list[dict[str, Any]]]:
    """A reply of text that grows."""
    return [[{"type": "text", "text": whole}] for whole in wholes]


def calls(name: str, call_id: str = "c1", **given: Any) -> list[list[dict[str, Any]]]:
    """A reply that calls a tool."""
    return [[{"type": "tool_use", "id": call_id, "name": name, "input": given}]]


def tool_says(text: str, **kwargs: Any) -> ToolResponse:
    """What a tool gives back."""
    return ToolResponse([{"type": "text", "text": text}], **kwargs)


def an_agent(model: ChatModelBase, *tools: Callable[..., Any], **kwargs: Any) -> ReActAgent:
    """A quiet agent on the model, with tools."""
    toolkit = Toolkit()
    for tool in tools:
        toolkit.register_tool_function(tool)
    agent = ReActAgent("Friday", "You help.", model, OpenAIChatFormatter(), toolkit, **kwargs)
    agent.set_console_output_enabled(False)
    return agent


def a_model(base_url: str) -> OpenAIChatModel:
    """AgentScope's own model client, for the scripted model server."""
    return OpenAIChatModel("scripted", api_key="any", client_kwargs={"base_url": base_url, "max_retries": 0})


@asynccontextmanager
async def serving(
    function: Callable[..., Any],
    *,
    agent: bool = False,
    store: SessionStore | None = None,
    limits: Limits | None = None,
    owner: object = None,
) -> AsyncIterator[ActorSystem]:
    """A system that serves an AgentScope 1.x handler (or, with `agent`, a factory), started and stopped."""
    handler = (AgentHandler if agent else QueryHandler)(function, AgentScope1Adapter(), owner)
    system = ActorSystem(handler, store or InMemoryStore(), limits=limits, sources=counting_sources())
    await system.start()
    try:
        yield system
    finally:
        await system.stop()


async def ask(system: ActorSystem, text: str = "hello", **kwargs: Any) -> Terminal:
    """One turn, to its ending."""
    return await (await system.submit(turn(text, **kwargs))).ended()
