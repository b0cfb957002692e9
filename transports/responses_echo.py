"""What a response repeats of the request that asked for it: the `echo` of a turn that came by the Responses API."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from msgspec import Struct, structs

from greenroom.actors.messages import Turn
from greenroom.services.sessions.turn_codec import register_echo

ToolDisplay: TypeAlias = Literal["mcp_call", "function_call", "hidden"]


class ResponseEcho(Struct, frozen=True, kw_only=True):
    """Fields of the response object, checked and with their defaults, and how the turn is to be shown.

    `items`: the input as `input_items` lists it, each item with an id and a status. `label`: whose tools the agent's
    own are said to be (`server_label`). `display`: how calls of those are shown. `sealed_reasoning`: whether reasoning
    has an `encrypted_content`. `conversation`: the one that was asked for, or that of the response before, which the
    turn is added to unless it forks (`echo_of`).
    """

    model: str
    items: tuple[dict[str, Any], ...] = ()
    label: str = "agent"
    display: ToolDisplay = "mcp_call"
    sealed_reasoning: bool = False
    background: bool = False
    store: bool = True
    stream: bool = False
    previous_response_id: str | None = None
    conversation: str | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    parallel_tool_calls: bool = True
    reasoning: dict[str, Any] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str = "default"
    temperature: float = 1.0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    top_logprobs: int = 0
    text: dict[str, Any] | None = None
    tool_choice: str | dict[str, Any] = "auto"
    tools: tuple[dict[str, Any], ...] = ()
    truncation: str = "disabled"
    metadata: dict[str, str] | None = None
    user: str | None = None


register_echo("responses", ResponseEcho)


def echo_of(turn: Turn) -> ResponseEcho:
    """A turn's echo; for a turn that came by another protocol, one that repeats nothing."""
    echo = turn.echo
    if not isinstance(echo, ResponseEcho):
        return ResponseEcho(model=turn.request.model or "agent")
    if echo.conversation is not None and echo.conversation != turn.key.session_id:
        return structs.replace(
            echo, conversation=None
        )  # it went on from an older response: in a session of its own
    return echo
