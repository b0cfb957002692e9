"""The response object: what every response of a turn has in common is encoded once, the rest is put in between."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Raw

from greenroom.actors.errors import InvalidRequest, MailboxFull, Overloaded
from greenroom.actors.events import Terminal, TurnCompleted, TurnFailed
from greenroom.actors.messages import ErrorInfo, Turn, Usage
from greenroom.transports import responses_wire as wire
from greenroom.transports.json_text import encode
from greenroom.transports.responses_echo import ResponseEcho, echo_of
from greenroom.transports.responses_open import NULL

_HOLE = b"\0"  # JSON has no such byte: text has it escaped
_RAW: Any = Raw(_HOLE)

_ERROR_CODES = {
    InvalidRequest.code: "invalid_prompt",
    MailboxFull.code: "rate_limit_exceeded",
    Overloaded.code: "rate_limit_exceeded",
}
"""The API's words for what ended a turn; all else is a `server_error`."""
_NO_USAGE = Usage()


class ResponseShape:
    """A turn's response object, to be filled in."""

    __slots__ = ("_template", "echo")

    def __init__(self, turn: Turn) -> None:
        self.echo = echo_of(turn.echo, turn.request.model or "agent")
        self._template = encode(_response(turn, self.echo)).replace(b"%", b"%%").replace(_HOLE, b"%b")

    def line(
        self,
        status: bytes,
        output: bytes = b"[]",
        *,
        completed_at: bytes = NULL,
        error: bytes = NULL,
        incomplete: bytes = NULL,
        usage: bytes = NULL,
    ) -> bytes:
        """The object as JSON."""
        return self._template % (completed_at, b'"%b"' % status, error, incomplete, output, usage)

    def ended(self, event: Terminal, output: bytes) -> bytes:
        """The object of a turn that has ended."""
        usage = encode(_usage(event.usage or _NO_USAGE))
        if isinstance(event, TurnFailed):
            return self.line(b"failed", output, error=encode(_error(event.error)), usage=usage)
        if not isinstance(event, TurnCompleted):
            return self.line(b"cancelled", output, usage=usage)
        if event.incomplete is not None:
            details = encode(wire.IncompleteDetails(event.incomplete))
            return self.line(b"incomplete", output, incomplete=details, usage=usage)
        return self.line(b"completed", output, completed_at=b"%d" % event.at, usage=usage)


def _response(turn: Turn, echo: ResponseEcho) -> wire.Response:
    """The response with holes where responses of one turn differ."""
    conversation = None if echo.conversation is None else wire.Conversation(echo.conversation)
    return wire.Response(
        id=turn.id,
        created_at=int(turn.created_at),
        completed_at=_RAW,
        status=_RAW,
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


def _error(error: ErrorInfo) -> wire.ResponseError:
    code = _ERROR_CODES.get(error.code, "server_error")
    message = error.message
    if error.id is not None and error.id not in message:
        message = f"{message} (error {error.id})"
    return wire.ResponseError(code=code, message=message, type=error.code)


def _usage(usage: Usage) -> wire.Usage:
    return wire.Usage(
        input_tokens=usage.input_tokens,
        input_tokens_details=wire.InputTokensDetails(usage.cached_tokens),
        output_tokens=usage.output_tokens,
        output_tokens_details=wire.OutputTokensDetails(usage.reasoning_tokens),
        total_tokens=usage.input_tokens + usage.output_tokens,
    )
