"""The schema names of AgentScope Runtime, by which an application makes and recognises messages.

What they make are Greenroom's own messages: `TextContent(text="hi")` is `Text("hi")`, and
`isinstance(part, TextContent)` asks whether a part is one. Fields that only the wire has (`object`, `status`,
`sequence_number`, …) are taken and dropped, because Greenroom fills them in when it sends.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from msgspec import Struct, structs

from greenroom.actors import messages
from greenroom.actors.errors import ConfigurationError
from greenroom.compat import ADVICE

WIRE_ONLY: Final = frozenset(
    {"code", "delta", "error", "index", "message", "msg_id", "object", "sequence_number", "status", "usage"}
)


class StandsFor(type):
    """Classes that make, and are satisfied by, a struct of another name."""

    makes: type[Struct]

    def __new__(
        mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], *, makes: type[Struct]
    ) -> StandsFor:
        """A class whose instances are of `makes`."""
        cls = super().__new__(mcs, name, bases, namespace)
        cls.makes = makes
        return cls

    def __init__(
        cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], *, makes: type[Struct]
    ) -> None:
        del makes
        super().__init__(name, bases, namespace)

    def __call__(cls, **fields: Any) -> Any:
        """The struct with these fields. Raises `TypeError` for a field that neither has."""
        tag = cls.makes.__struct_config__.tag
        if tag is not None and fields.pop("type", tag) != tag:
            raise TypeError(f"the type of {cls.__name__} is {tag!r}")
        kept = {name: value for name, value in fields.items() if name not in WIRE_ONLY}
        if isinstance(kept.get("content"), list):
            kept["content"] = tuple(kept["content"])
        return cls.makes(**kept)

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, cls.makes)


class TextContent(metaclass=StandsFor, makes=messages.Text):
    """Words: `text`."""


class DataContent(metaclass=StandsFor, makes=messages.Data):
    """A JSON object: `data`."""


class ImageContent(metaclass=StandsFor, makes=messages.Image):
    """A picture: `image_url`."""


class AudioContent(metaclass=StandsFor, makes=messages.Audio):
    """Sound: `data`, `format`."""


class VideoContent(metaclass=StandsFor, makes=messages.Video):
    """A film: `video_url`."""


class FileContent(metaclass=StandsFor, makes=messages.File):
    """A file: `file_url`, `file_id` or `file_data`, and `filename`."""


class RefusalContent(metaclass=StandsFor, makes=messages.Refusal):
    """The model's words for declining: `refusal`."""


class Message(metaclass=StandsFor, makes=messages.Message):
    """A message: `role`, `content` (a list of parts), `type`, `id`, `metadata`."""


class InputMessage(messages.Message, frozen=True):
    """A message of a request as handlers find it: one of ours that can say what is in it as AgentScope Runtime's do."""

    def get_text_content(self, separator: str = "\n") -> str | None:
        """Its first text, whatever the separator; none: it has no text."""
        return next((part.text for part in self.content if isinstance(part, messages.Text)), None)

    def get_image_content(self) -> list[str]:
        """The URLs of its pictures."""
        return [part.image_url for part in self.content if isinstance(part, messages.Image)]


def as_known_there(request: messages.AgentRequest) -> messages.AgentRequest:
    """The request with lists where AgentScope Runtime has lists (ours are tuples), and its messages' methods."""
    return structs.replace(request, input=[_as_known_there(message) for message in request.input])


def _as_known_there(message: messages.Message) -> InputMessage:
    fields: dict[str, Any] = structs.asdict(message)
    fields["content"] = list(message.content)
    return InputMessage(**fields)


class OnlyNamed:
    """Names that annotations need. Making one raises `ConfigurationError`."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise ConfigurationError(
            f"Greenroom stands in for AgentScope Runtime and has no {type(self).__name__} to make: "
            f"{ADVICE['BaseResponse']}"
        )


class AgentResponse(OnlyNamed):
    """The whole answer to a request, which Greenroom writes."""


class Event(OnlyNamed):
    """A part of an answer, which Greenroom writes."""


class Role:
    """Who says a message."""

    ASSISTANT: ClassVar = "assistant"
    USER: ClassVar = "user"
    SYSTEM: ClassVar = "system"
    TOOL: ClassVar = "tool"


class ContentType:
    """What a part of a message is."""

    TEXT: ClassVar = "text"
    DATA: ClassVar = "data"
    IMAGE: ClassVar = "image"
    AUDIO: ClassVar = "audio"
    VIDEO: ClassVar = "video"
    FILE: ClassVar = "file"
    REFUSAL: ClassVar = "refusal"


class MessageType:
    """What a message is."""

    MESSAGE: ClassVar = "message"
    REASONING: ClassVar = "reasoning"
    PLUGIN_CALL: ClassVar = "plugin_call"
    PLUGIN_CALL_OUTPUT: ClassVar = "plugin_call_output"
    FUNCTION_CALL: ClassVar = "function_call"
    FUNCTION_CALL_OUTPUT: ClassVar = "function_call_output"
    COMPONENT_CALL: ClassVar = "component_call"
    COMPONENT_CALL_OUTPUT: ClassVar = "component_call_output"
    MCP_TOOL_CALL: ClassVar = "mcp_call"
    MCP_TOOL_CALL_OUTPUT: ClassVar = "mcp_call_output"
    MCP_LIST_TOOLS: ClassVar = "mcp_list_tools"
    MCP_APPROVAL_REQUEST: ClassVar = "mcp_approval_request"
    MCP_APPROVAL_RESPONSE: ClassVar = "mcp_approval_response"
    HEARTBEAT: ClassVar = "heartbeat"
    ERROR: ClassVar = "error"

    @classmethod
    def all_values(cls) -> list[str]:
        """Every type there is."""
        return [value for name, value in vars(cls).items() if name.isupper()]


class RunStatus:
    """How far a response, a message or a part has come."""

    Created: ClassVar = "created"
    InProgress: ClassVar = "in_progress"
    Completed: ClassVar = "completed"
    Canceled: ClassVar = "canceled"
    Failed: ClassVar = "failed"
    Rejected: ClassVar = "rejected"
    Unknown: ClassVar = "unknown"
    Queued: ClassVar = "queued"
    Incomplete: ClassVar = "incomplete"
