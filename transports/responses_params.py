"""What of a request is wrong, as OpenAI's APIs name it (`param`). What a turn was refused for names it as `/process`
has it: messages by their place in the turn's input, of which one item may be two or none."""

from __future__ import annotations

import re

from greenroom.actors.errors import InvalidRequest
from greenroom.actors.events import Terminal, TurnFailed
from greenroom.actors.messages import ErrorInfo, Turn
from greenroom.transports.responses_echo import ResponseEcho
from greenroom.transports.responses_parts import Listed

_MESSAGE = re.compile(r"input\[(\d+)\](?:\.content\[\d+\]\.data\b)?(.*)")


def param_of(turn: Turn, field: str | None) -> str | None:
    """The `param` for what is wrong in a request for a response."""
    sent = turn.echo.items if isinstance(turn.echo, ResponseEcho) else ()
    ids = [message.id for message in turn.request.input]
    return named_item(field, ids, sent, "input")


def named_item(
    field: str | None, messages: list[str | None], items: tuple[Listed, ...] | list[Listed], at: str
) -> str | None:
    """`field` with the item in place of the message. `messages`: their ids; `at`: what the list of items is called."""
    found = _MESSAGE.fullmatch(field or "")
    if found is None:
        return field
    place, rest = int(found[1]), found[2]
    message_id = messages[place] if place < len(messages) else None
    for number, item in enumerate(items):
        if item["id"] == message_id:
            return f"{at}[{number}]{rest}"
    return at  # it waited in the conversation, or is all there is


def refused(turn: Turn, ending: Terminal | None) -> InvalidRequest | None:
    """The error of a turn that came to nothing, as its request asks for what its agent cannot do."""
    if not isinstance(ending, TurnFailed) or not is_refusal(ending.error) or ending.output:
        return None
    return InvalidRequest(ending.error.message, field=param_of(turn, ending.error.field))


def is_refusal(error: ErrorInfo) -> bool:
    """Whether the request is to blame."""
    return error.code == InvalidRequest.code
