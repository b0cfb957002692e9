"""The response object: what every response of a turn has in common is encoded once, the rest is put in between."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Raw, Struct

from greenroom.actors.errors import InvalidRequest, MailboxFull, Overloaded
from greenroom.actors.events import Terminal, TurnCompleted, TurnFailed
from greenroom.actors.messages import ErrorInfo, Turn, Usage
from greenroom.transports import responses_wire as wire
from greenroom.transports.json_text import encode
from greenroom.transports.responses_echo import ResponseEcho, echo_of
from greenroom.transports.responses_open import NULL
from greenroom.transports.responses_params import param_of

_HOLE = b"\0"  # JSON has no such byte: text has it escaped
_RAW: Any = Raw(_HOLE)
_RAW_WORD: Any = Raw(b'"%b"' % _HOLE)
KEPT_BYTES = 4096
"""A template larger than this is not kept for the next turn."""
NONE = b"[]"

_ERROR_CODES = {
    InvalidRequest.code: "invalid_prompt",
    MailboxFull.code: "rate_limit_exceeded",
    Overloaded.code: "rate_limit_exceeded",
}
"""The API's words for what ended a turn; all else is a `server_error`."""


class ResponseShape:
    """A turn's response object, to be filled in."""

    __slots__ = ("_created_at", "_id", "_template", "_turn", "echo")

    def __init__(self, turn: Turn) -> None:
        self.echo = echo_of(turn)
        self._template = _template(self.echo)
        self._turn = turn
        self._id = encode(turn.id)
        self._created_at = b"%d" % turn.created_at

    def line(
        self,
        status: bytes,
        output: bytes = NONE,
        *,
        completed_at: bytes = NULL,
        error: bytes = NULL,
        incomplete: bytes = NULL,
        usage: bytes = NULL,
    ) -> bytes:
        """The object as JSON."""
        return self._template % (
            self._id,
            self._created_at,
            completed_at,
            status,
            error,
            incomplete,
            output,
            usage,
        )

    def ended(self, event: Terminal, output: bytes) -> bytes:
        """The object of a turn that has ended."""
        usage = _NO_USAGE if event.usage is None else encode(_usage(event.usage))
        if isinstance(event, TurnFailed):
            return self.line(b"failed", output, error=encode(_error(self._turn, event.error)), usage=usage)
        if not isinstance(event, TurnCompleted):
            return self.line(b"cancelled", output, usage=usage)
        if event.incomplete is not None:
            details = encode(wire.IncompleteDetails(event.incomplete))
            return self.line(b"incomplete", output, incomplete=details, usage=usage)
        return self.line(b"completed", output, completed_at=b"%d" % event.at, usage=usage)


class _Made(Struct):
    """The template made last. Requests that ask for nothing special share their echo."""

    echo: ResponseEcho | None = None
    template: bytes = b""


_made = _Made()


def _template(echo: ResponseEcho) -> bytes:
    """The response with holes where responses to requests that are alike differ."""
    if echo is _made.echo:
        return _made.template
    template = encode(_response(echo)).replace(b"%", b"%%").replace(_HOLE, b"%b")
    if len(template) <= KEPT_BYTES and not echo.items:
        _made.echo, _made.template = echo, template
    return template


def _response(echo: ResponseEcho) -> wire.Response:
    conversation = None if echo.conversation is None else wire.Conversation(echo.conversation)
    return wire.Response(
        id=_RAW,
        created_at=_RAW,
        completed_at=_RAW,
        status=_RAW_WORD,
        error=_RAW,
        incomplete_details=_RAW,
        output=_RAW,
        usage=_RAW,
        conversation=conversation,
        reasoning=_RAW_REASONING if echo.reasoning is None else echo.reasoning,
        text=_RAW_TEXT if echo.text is None else echo.text,
        metadata=echo.metadata or {},
        user=UNSET if echo.user is None else echo.user,
        **{name: getattr(echo, name) for name in _AS_THEY_ARE},
    )


_RAW_REASONING: Any = Raw(b'{"effort":null,"summary":null}')
_RAW_TEXT: Any = Raw(b'{"format":{"type":"text"},"verbosity":"medium"}')
_AS_THEY_ARE = [
    name
    for name in wire.Response.__struct_fields__
    if name in ResponseEcho.__struct_fields__
    and name not in {"conversation", "reasoning", "text", "metadata", "user"}
]


def _error(turn: Turn, error: ErrorInfo) -> wire.ResponseError:
    code = _ERROR_CODES.get(error.code, "server_error")
    message = error.message
    if error.id is not None and error.id not in message:
        message = f"{message} (error {error.id})"
    return wire.ResponseError(code=code, message=message, type=error.code, param=param_of(turn, error.field))


def _usage(usage: Usage) -> wire.Usage:
    return wire.Usage(
        input_tokens=usage.input_tokens,
        input_tokens_details=wire.InputTokensDetails(usage.cached_tokens),
        output_tokens=usage.output_tokens,
        output_tokens_details=wire.OutputTokensDetails(usage.reasoning_tokens),
        total_tokens=usage.input_tokens + usage.output_tokens,
    )


_NO_USAGE = encode(_usage(Usage()))
