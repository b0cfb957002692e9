"""What a tool of a sandbox answers, in the form of the AgentScope that is loaded: 1.x, 2.x, or none at all.

AgentScope is not imported here before somebody else has imported it: who reads chunks without it gets the results.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from greenroom.sandbox.result import ToolResult

READ_ONLY: Final = frozenset(
    {
        "browser_snapshot",
        "browser_wait_for",
        "browser_console_messages",
        "browser_network_requests",
        "browser_tab_list",
    }
)
"""Tools that change neither the page nor a file."""

_LABELS: Final[Mapping[str, str]] = {"stderr": "stderr:\n", "returncode": "exit code: "}
"""What stands before the parts of a command's result; its output needs no label."""


def chunk_of(result: ToolResult) -> Any:
    """A whole answer as one chunk: a `ToolChunk` of AgentScope 2.x, a `ToolResponse` of 1.x; with no AgentScope loaded,
    the result itself."""
    tool = sys.modules.get("agentscope.tool")
    if tool is None:
        return result
    return (_chunk_of_2 if hasattr(tool, "ToolChunk") else _chunk_of_1)(result)


def chunk_of_error(error: Exception) -> Any:
    """A failure of the sandbox itself, as a chunk that tells the model so."""
    return chunk_of(ToolResult.of_text(f"{type(error).__name__}: {error}", is_error=True))


def tools_of(methods: Sequence[Callable[..., Any]], ask: Collection[str]) -> list[Any]:
    """Methods of a sandbox as tools for agents: with AgentScope 2.x `FunctionTool`s, of which those named in `ask` ask
    the user first; else the methods themselves, which AgentScope 1.x registers as they are."""
    tool = sys.modules.get("agentscope.tool")
    if tool is None or not hasattr(tool, "ToolChunk"):
        return list(methods)
    from agentscope.permission import PermissionBehavior, PermissionDecision

    allowed = PermissionDecision(PermissionBehavior.ALLOW, "It acts in its sandbox only.")
    return [
        tool.FunctionTool(
            method,
            is_read_only=method.__name__ in READ_ONLY,
            is_concurrency_safe=False,  # calls of one sandbox wait for each other anyway, and their order matters
            permission=None if method.__name__ in ask else allowed,
        )
        for method in methods
    ]


def _chunk_of_1(result: ToolResult) -> Any:
    from agentscope.tool import ToolResponse

    blocks: list[Any] = []
    for part in _parts(result):
        if part["type"] == "text":
            blocks.append({"type": "text", "text": part["text"]})
        else:
            source = {"type": "base64", "media_type": part["mimeType"], "data": part["data"]}
            blocks.append({"type": "image", "source": source})
    return ToolResponse(content=blocks)


def _chunk_of_2(result: ToolResult) -> Any:
    from agentscope.message import Base64Source, DataBlock, TextBlock, ToolResultState
    from agentscope.tool import ToolChunk

    blocks: list[Any] = []
    for part in _parts(result):
        if part["type"] == "text":
            blocks.append(TextBlock(text=part["text"]))
        else:
            source = Base64Source(data=part["data"], media_type=part["mimeType"])
            blocks.append(DataBlock(source=source))
    state = ToolResultState.ERROR if result.is_error else ToolResultState.RUNNING
    return ToolChunk(content=blocks, state=state)


def _parts(result: ToolResult) -> list[dict[str, Any]]:
    """Texts, joined where they follow each other, and pictures. There is always something: models need an answer."""
    parts: list[dict[str, Any]] = []
    for part in result.get("content", ()):
        if part.get("type") == "image":
            parts.append(part)
        elif part.get("type") == "text":
            text = _LABELS.get(part.get("description") or "", "") + part["text"]
            if parts and parts[-1]["type"] == "text":
                parts[-1] = {"type": "text", "text": f"{parts[-1]['text']}\n{text}"}
            else:
                parts.append({"type": "text", "text": text})
    return parts or [{"type": "text", "text": "(no output)"}]
