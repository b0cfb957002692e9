"""What a request asks of one turn, in the forms in which handlers without a framework get it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import structs, to_builtins

from greenroom.actors.messages import AgentRequest, FunctionTool, Message, Text, TurnOptions

OPTIONS = frozenset(TurnOptions.__struct_fields__)
ALWAYS = frozenset({"answer", "instructions"})
"""What holds whatever the handler does: the answer is checked, and instructions are a message if nothing better."""

_SAME_NAME = (
    "instructions",
    "tool_choice",
    "forced_tool",
    "parallel_tool_calls",
    "max_output_tokens",
    "max_tool_calls",
    "reasoning_effort",
)


def instructed(messages: Sequence[Message], options: TurnOptions | None) -> Sequence[Message]:
    """The messages, after the turn's instructions if it has any."""
    if options is None or not options.instructions:
        return messages
    return (Message((Text(options.instructions),), "system"), *messages)


def request_with_options(request: AgentRequest, options: TurnOptions | None) -> AgentRequest:
    """The request as if it had come with the options in it, as `/process` has them: `tools`, `temperature`, `top_p`,
    `max_tokens`, and the others as fields of their own names. What it says itself stays."""
    if options is None:
        return request
    own: Mapping[str, Any] = {
        "tools": [_tool(tool) for tool in options.tools] or None,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "max_tokens": options.max_output_tokens,
    }
    changes = {
        name: value for name, value in own.items() if value is not None and getattr(request, name) is None
    }
    extra = {name: getattr(options, name) for name in _SAME_NAME}
    extra["answer"] = to_builtins(options.answer)
    return structs.replace(request, **changes, extra={**extra, **request.extra})


def _tool(tool: FunctionTool) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {name: value for name, value in structs.asdict(tool).items() if value is not None},
    }
