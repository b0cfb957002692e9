"""The objects of the Responses API's wire, field by field in the order they are written.

What nests is `Raw` where it is written from bytes that were encoded before. Where a field holds null it is written:
clients generated from the API's schema miss a field that is left out.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from msgspec import UNSET, Raw, Struct, UnsetType

Status: TypeAlias = Literal["queued", "in_progress", "completed", "failed", "incomplete", "cancelled"]
ItemStatus: TypeAlias = Literal["in_progress", "completed", "incomplete", "failed"]


# -- the response --------------------------------------------------------------------------------------------------


class ResponseError(Struct, frozen=True, kw_only=True):
    """Why a response failed. `type`: the class of what went wrong."""

    code: str
    message: str
    type: str | None = None
    param: str | None = None


class IncompleteDetails(Struct, frozen=True):
    """What cut a response short."""

    reason: str


class Conversation(Struct, frozen=True):
    """The conversation a response belongs to."""

    id: str


class InputTokensDetails(Struct, frozen=True, gc=False):
    """Of the input tokens, those the model had cached, and those it put into its cache."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokensDetails(Struct, frozen=True, gc=False):
    """Of the output tokens, those it spent on reasoning."""

    reasoning_tokens: int


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens of a response."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class Response(Struct, frozen=True, kw_only=True):
    """A turn as the client sees it. `user` is there only when the request named one."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Status
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    model: str
    output: list[Raw]
    parallel_tool_calls: bool
    previous_response_id: str | None
    conversation: Conversation | None
    reasoning: dict[str, Any]
    safety_identifier: str | None
    prompt_cache_key: str | None
    service_tier: str
    store: bool
    background: bool
    temperature: float
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    top_logprobs: int
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: tuple[dict[str, Any], ...]
    truncation: str
    metadata: dict[str, str]
    user: str | UnsetType = UNSET
    usage: Usage | None = None


# -- items and their parts -----------------------------------------------------------------------------------------


class OutputText(Struct, frozen=True, tag_field="type", tag="output_text"):
    """Words of an answer."""

    text: str
    annotations: tuple[Any, ...] = ()
    logprobs: tuple[Any, ...] = ()


class RefusalText(Struct, frozen=True, tag_field="type", tag="refusal"):
    """The model's words for declining."""

    refusal: str


class SummaryText(Struct, frozen=True, tag_field="type", tag="summary_text"):
    """Words of reasoning, in the one form that every client shows."""

    text: str


class MessageItem(Struct, frozen=True, kw_only=True):
    """A message of the answer."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: ItemStatus
    content: list[Raw]


class ReasoningItem(Struct, frozen=True, kw_only=True):
    """What the model thought. `encrypted_content`: once more, for clients that hand back nothing else; on request."""

    id: str
    type: Literal["reasoning"] = "reasoning"
    summary: list[Raw]
    encrypted_content: str | UnsetType = UNSET
    status: ItemStatus


class FunctionCallItem(Struct, frozen=True, kw_only=True):
    """A call of a tool that the client runs. `arguments`: JSON text."""

    id: str
    type: Literal["function_call"] = "function_call"
    call_id: str
    name: str
    arguments: str
    status: ItemStatus


class FunctionCallOutputItem(Struct, frozen=True, kw_only=True):
    """What a tool gave back."""

    id: str
    type: Literal["function_call_output"] = "function_call_output"
    call_id: str
    output: str
    status: ItemStatus


class McpCallItem(Struct, frozen=True, kw_only=True):
    """A call of a tool that the server ran, and what it gave back.

    `error` stays null: it is text in one line of OpenAI's client libraries and an object in the next. What went wrong
    is told in `output`, and that it did in `status`.
    """

    id: str
    type: Literal["mcp_call"] = "mcp_call"
    server_label: str
    name: str
    arguments: str
    output: str | None = None
    error: None = None
    status: ItemStatus
    approval_request_id: None = None


# -- events --------------------------------------------------------------------------------------------------------


class ResponseEvent(Struct, frozen=True, kw_only=True):
    """`response.created`, `.queued`, `.in_progress`, `.completed`, `.failed`, `.incomplete`."""

    type: str
    sequence_number: int
    response: Response


class ItemEvent(Struct, frozen=True, kw_only=True):
    """`response.output_item.added` and `.done`."""

    type: str
    sequence_number: int
    output_index: int
    item: Raw


class ItemProgress(Struct, frozen=True, kw_only=True):
    """`response.mcp_call.in_progress`, `.completed`, `.failed`."""

    type: str
    sequence_number: int
    item_id: str
    output_index: int


class PartEvent(ItemProgress, frozen=True, kw_only=True):
    """`response.content_part.added` and `.done`."""

    content_index: int
    part: OutputText | RefusalText


class TextDelta(ItemProgress, frozen=True, kw_only=True):
    """`response.output_text.delta`."""

    content_index: int
    delta: str
    logprobs: tuple[Any, ...] = ()


class TextDone(ItemProgress, frozen=True, kw_only=True):
    """`response.output_text.done`."""

    content_index: int
    text: str
    logprobs: tuple[Any, ...] = ()


class RefusalDelta(ItemProgress, frozen=True, kw_only=True):
    """`response.refusal.delta`."""

    content_index: int
    delta: str


class RefusalDone(ItemProgress, frozen=True, kw_only=True):
    """`response.refusal.done`."""

    content_index: int
    refusal: str


class SummaryPartEvent(ItemProgress, frozen=True, kw_only=True):
    """`response.reasoning_summary_part.added` and `.done`."""

    summary_index: int
    part: SummaryText


class SummaryDelta(ItemProgress, frozen=True, kw_only=True):
    """`response.reasoning_summary_text.delta`."""

    summary_index: int
    delta: str


class SummaryDone(ItemProgress, frozen=True, kw_only=True):
    """`response.reasoning_summary_text.done`."""

    summary_index: int
    text: str


class ArgumentsDelta(ItemProgress, frozen=True, kw_only=True):
    """`response.function_call_arguments.delta` and `response.mcp_call_arguments.delta`."""

    delta: str


class ArgumentsDone(ItemProgress, frozen=True, kw_only=True):
    """`response.function_call_arguments.done`, and `response.mcp_call_arguments.done`, which has no name."""

    arguments: str
    name: str | UnsetType = UNSET
