"""How a turn's last model call ended, which frameworks do not say: cut short, by the model's own limit or by the filter
of its service, an answer is not all it would have been.

The `openai` client's answers say it, whole ones and streams. Those of other clients are not seen. Private names: a
stream's `_iterator` and `_cast_to`. A version without them says nothing, as before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps
from typing import Any, Final

from openai import AsyncStream
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response

from greenroom.actors.events import Incompleteness
from greenroom.actors.scope import TurnScope, current_turn

Hear = Callable[[Any], str | None]
"""What cut a call short, according to an answer or a piece of one."""

_CUT: Final[dict[str | None, Incompleteness]] = {
    "length": "max_output_tokens",
    "max_output_tokens": "max_output_tokens",
    "content_filter": "content_filter",
}


def with_ending(request: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A client's `request`, of whose answers a turn hears how they end."""

    @wraps(request)
    async def request_and_hear(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = await request(self, *args, **kwargs)
        scope = current_turn.get()
        if scope is not None:
            _listen(scope, answer)
        return answer

    return request_and_hear


def _listen(scope: TurnScope, answer: Any) -> None:
    scope.cut = None  # whatever was cut before, it was not the last
    if isinstance(answer, ChatCompletion):
        scope.cut = _CUT.get(_of_chat(answer))
    elif isinstance(answer, Response):
        scope.cut = _CUT.get(_of_response(answer))
    elif isinstance(answer, AsyncStream):
        pieces = getattr(answer, "_iterator", None)
        if pieces is not None:
            chat = getattr(answer, "_cast_to", None) is ChatCompletionChunk
            answer._iterator = _Heard(pieces, scope, _of_chat if chat else _of_event)


class _Heard:
    """The pieces of a stream, on their way to the framework."""

    __slots__ = ("_hear", "_pieces", "_scope")

    def __init__(self, pieces: AsyncIterator[Any], scope: TurnScope, hear: Hear) -> None:
        self._pieces = pieces
        self._scope = scope
        self._hear = hear

    def __aiter__(self) -> _Heard:
        return self

    async def __anext__(self) -> Any:
        piece = await self._pieces.__anext__()
        reason = self._hear(piece)
        if reason in _CUT:
            self._scope.cut = _CUT[reason]
        return piece


def _of_chat(answer: Any) -> str | None:
    choices = answer.choices
    return choices[0].finish_reason if choices else None


def _of_event(event: Any) -> str | None:
    return _of_response(event.response) if getattr(event, "type", "") == "response.incomplete" else None


def _of_response(response: Any) -> str | None:
    return response.incomplete_details.reason if response.incomplete_details else None
