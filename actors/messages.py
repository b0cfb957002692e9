"""The messages of the system: what transports hand to session actors.

Contracts only: frozen structs that do nothing but say what is in them, importable from every room. The field names and
defaults of `AgentRequest`, `Message` and the content parts are those of AgentScope Runtime's `/process` protocol, so
that an application written for it finds what it expects on the request. A part's `type` is its tag on the wire.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

from msgspec import UNSET, Struct, UnsetType, field

Role: TypeAlias = Literal["user", "assistant", "system", "tool"]
Overlap: TypeAlias = Literal["queue", "reject", "interrupt"]

MessageType: TypeAlias = Literal[
    "message",
    "reasoning",
    "plugin_call",
    "plugin_call_output",
    "function_call",
    "function_call_output",
    "component_call",
    "component_call_output",
    "mcp_call",
    "mcp_call_output",
    "mcp_list_tools",
    "mcp_approval_request",
    "mcp_approval_response",
    "heartbeat",
    "error",
]


class SessionKey(NamedTuple):
    """Which conversation, and whose. Always a tuple: joined strings collide ('a','b_c') with ('a_b','c')."""

    user_id: str
    session_id: str


class Text(Struct, frozen=True, tag_field="type", tag="text", gc=False):
    """Words."""

    type: ClassVar[str] = "text"
    text: str


class Data(Struct, frozen=True, tag_field="type", tag="data"):
    """A JSON object."""

    type: ClassVar[str] = "data"
    data: dict[str, Any]


class Image(Struct, frozen=True, tag_field="type", tag="image", gc=False):
    """A picture, as a URL or a data URI."""

    type: ClassVar[str] = "image"
    image_url: str


class Audio(Struct, frozen=True, tag_field="type", tag="audio", gc=False):
    """Sound: base64 data (or a URL) and its format, e.g. `wav`."""

    type: ClassVar[str] = "audio"
    data: str
    format: str | None = None


class Video(Struct, frozen=True, tag_field="type", tag="video", gc=False):
    """A film, as a URL or a data URI."""

    type: ClassVar[str] = "video"
    video_url: str


class File(Struct, frozen=True, tag_field="type", tag="file", gc=False):
    """A file, by URL, by id or inline (base64)."""

    type: ClassVar[str] = "file"
    file_url: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    filename: str | None = None


class Refusal(Struct, frozen=True, tag_field="type", tag="refusal", gc=False):
    """The model's words for declining."""

    type: ClassVar[str] = "refusal"
    refusal: str


Content: TypeAlias = Text | Data | Image | Audio | Video | File | Refusal


class ToolCall(Struct, frozen=True, tag_field="type", tag="tool_call", gc=False):
    """A call of a tool: `arguments` is the JSON text the model wrote, whole or so far."""

    call_id: str
    name: str
    arguments: str = ""
    server_label: str | None = None


class ToolOutput(Struct, frozen=True, tag_field="type", tag="tool_output"):
    """What a tool gave back."""

    call_id: str
    name: str
    output: tuple[Content, ...] = ()
    server_label: str | None = None


class Message(Struct, frozen=True):
    """One message of a turn's input."""

    content: tuple[Content, ...] = ()
    role: Role = "user"
    type: MessageType = "message"
    id: str | None = None
    metadata: dict[str, Any] | None = None
    name: str | None = None

    def get_text_content(self, separator: str = "\n") -> str | None:
        """Its texts, with `separator` between them, as AgentScope's `Msg` says it; none: it has no text."""
        texts = [part.text for part in self.content if isinstance(part, Text)]
        return separator.join(texts) if texts else None


class AgentRequest(Struct, kw_only=True):
    """What a handler gets as `request`.

    Unknown fields of the request body are kept in `extra` and readable as attributes:
    `request.my_field` is `request.extra["my_field"]`.
    """

    input: tuple[Message, ...]
    session_id: str | None = None
    user_id: str | None = None
    id: str | None = None
    stream: bool = True
    model: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    seed: int | None = None
    tools: list[dict[str, Any]] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            value = self.extra.get(name, UNSET)
            if not isinstance(value, UnsetType):
                return value
        raise AttributeError(
            f"the request has no field {name!r}; it carries {sorted(self.extra) or 'no extra fields'} besides the usual"
        )


class Disconnect(Struct, frozen=True, gc=False):
    """What happens to a turn when the client that asked for it goes away.

    `continue`: the turn runs on. `cancel`: it is cancelled. `grace`: it is cancelled unless somebody follows it
    again within `grace_seconds`.
    """

    policy: Literal["continue", "cancel", "grace"] = "continue"
    grace_seconds: float = 30.0


class FunctionTool(Struct, frozen=True, kw_only=True):
    """A tool that the client runs itself. `parameters`: a JSON schema.

    A call of it ends the turn; its output comes with the session's next one.
    """

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class AnswerFormat(Struct, frozen=True, kw_only=True):
    """What the text of the answer must be: any JSON object, or JSON that `schema` validates.

    An answer that is not makes the turn fail.
    """

    kind: Literal["json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class TurnOptions(Struct, frozen=True, kw_only=True):
    """What a request asks of this one turn besides its input. None of it is remembered for the session's next turn.

    What a handler's framework cannot do (`FrameworkAdapter.honours`) is refused before the turn begins.
    """

    instructions: str | None = None
    """Said to the model before all else."""
    tools: tuple[FunctionTool, ...] = ()
    tool_choice: Literal["auto", "none", "required"] = "auto"
    forced_tool: str | None = None
    """The one tool that must be called."""
    parallel_tool_calls: bool | None = None
    max_output_tokens: int | None = None
    """Of all model calls of the turn together; reached, the turn completes as `incomplete`."""
    temperature: float | None = None
    top_p: float | None = None
    reasoning_effort: str | None = None
    answer: AnswerFormat | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    max_tool_calls: int | None = None
    """Of the agent's own tools, of all its model calls together; what is called beyond it is not run."""


class Turn(Struct, frozen=True, kw_only=True):
    """One request to a session, as its actor receives it.

    `after`: the turn of the session `key` that this one continues from. If others followed that one, this turn goes to
    a new session that is as the old one was after it. `kept`: whether anything of the turn stays; if not, its session
    is as if it had not been. `stored`: whether the turn, ended, goes to the application's `ResponseStore`;
    `background`: nobody waits for it, which the store's record repeats. `echo`: what the protocol that asked repeats
    in its answers, opaque to everybody else; plain data or a struct that `turn_codec` was told of. `fingerprint`: a
    hash of the request, where its id or key is the client's choice: a repeat with the same one joins the turn, one
    with another is refused (`repeats.UNNAMED`, where the choice was the server's). `webhook`: a URL that is told of
    the ending. `temporary`: its session is a fork for this turn alone. `passing`: whether the session goes, from this
    turn's acceptance on, when the process that accepted it does; none leaves that as it is. `idempotent`: whether the
    handler of that process was declared so: what has begun is begun once more only where this one's is as well.
    """

    id: str
    key: SessionKey
    request: AgentRequest
    principal: str | None = None
    overlap: Overlap | None = None
    disconnect: Disconnect = Disconnect()
    created_at: float
    options: TurnOptions | None = None
    after: str | None = None
    kept: bool = True
    stored: bool = False
    background: bool = False
    echo: Any = None
    idempotency_key: str | None = None
    fingerprint: bytes = b""
    webhook: str | None = None
    temporary: bool = False
    passing: bool | None = None
    idempotent: bool = False


class Usage(Struct, frozen=True, gc=False):
    """Tokens, as the model reported them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class ErrorInfo(Struct, frozen=True, gc=False):
    """What of an error goes on the wire: its class as `code`, a sentence, and the id it is logged under. `field`: what
    in the turn's request is wrong, like `input[0].content[1]`."""

    code: str
    message: str
    id: str | None = None
    field: str | None = None
