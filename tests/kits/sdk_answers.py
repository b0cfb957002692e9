"""Checks of all that OpenAI's clients were answered: by the rules of its streams, and against its SDK's own types.

The SDK itself checks nothing: it takes any JSON for what it asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from openai.types import Model
from openai.types.chat import ChatCompletion
from openai.types.conversations import (
    Conversation,
    ConversationDeletedResource,
    ConversationItem,
    ConversationItemList,
)
from openai.types.responses import CompactedResponse, ResponseItemList
from openai.types.responses.input_token_count_response import InputTokenCountResponse
from pydantic import TypeAdapter

from kits import chat_rules
from kits.responses_rules import ENDINGS, check_response, check_stream, validate_types
from kits.sdk_clients import Answer, Wire

Json = dict[str, Any]


def check_wire(wire: Wire) -> None:
    """Raise AssertionError unless every answer has the form the API has."""
    for answer in wire.answers:
        try:
            _check(answer)
        except Exception as broken:
            broken.add_note(f"in the answer to {answer.method} {answer.path}: {answer.text}")
            raise


def _check(answer: Answer) -> None:
    chat = answer.path.startswith("/chat/")
    if answer.status >= 400:
        _check_error(answer)
    elif answer.streamed:
        (_check_chunks if chat else _check_events)(answer)
    elif chat:
        ChatCompletion.model_validate(chat_rules.check_completion(bytes(answer.body)))
    else:
        assert answer.content_type.startswith("application/json"), answer.content_type
        _check_json(answer)


def _check_error(answer: Answer) -> None:
    """The envelope, with its four fields, also where the server itself refused."""
    assert answer.content_type.startswith("application/json"), answer.content_type
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    assert body["error"]["type"]


def _check_events(answer: Answer) -> None:
    """A stream; of one that was joined later, or left early, what there is of it."""
    events, after = answer.events(), int(answer.query.get("starting_after", -1))
    validate_types(events)
    assert [event["sequence_number"] for event in events] == list(range(after + 1, after + 1 + len(events)))
    if answer.read_to_its_end and after < 0:
        check_stream(events, cancelled=events[-1]["type"] not in ENDINGS)


def _check_chunks(answer: Answer) -> None:
    if not answer.read_to_its_end:
        return
    data = [frame.removeprefix("data: ") for frame in answer.text.split("\n\n") if frame and frame[0] != ":"]
    chat_rules.check_stream(data, counted='"usage":' in answer.text)


# -- JSON --------------------------------------------------------------------------------------------------------------


def _check_json(answer: Answer) -> None:
    what = f"{answer.method} {answer.path}"
    check = next((check for pattern, check in _BODIES if re.fullmatch(pattern, what)), None)
    assert check is not None, f"nothing says what {what} answers"
    check(answer.json())


def _response(body: Json) -> None:
    """The second form of a response, which the tutorial reads, is one by itself too."""
    second = body.pop("response", None)
    for response in (body, second) if second is not None else (body,):
        check_response(response)
        validate_types(response)


def _is(kind: Any) -> Callable[[Json], object]:
    return TypeAdapter(kind).validate_python


def _deleted(body: Json) -> None:
    assert set(body) == {"id", "object", "deleted"}
    assert (body["object"], body["deleted"]) == ("response", True)


def _models(body: Json) -> None:
    assert body["object"] == "list"
    for model in body["data"]:
        Model.model_validate(model)


_ID = r"[^/]+"
_BODIES: list[tuple[str, Callable[[Json], object]]] = [
    (r"POST /responses/compact", _is(CompactedResponse)),
    (r"POST /responses/input_tokens", _is(InputTokenCountResponse)),
    (rf"POST /responses|GET /responses/{_ID}|POST /responses/{_ID}/cancel", _response),
    (rf"DELETE /responses/{_ID}", _deleted),
    (rf"GET /responses/{_ID}/input_items", _is(ResponseItemList)),
    (rf"POST /conversations|(GET|POST) /conversations/{_ID}", _is(Conversation)),
    (rf"DELETE /conversations/{_ID}", _is(ConversationDeletedResource)),
    (rf"(GET|POST) /conversations/{_ID}/items", _is(ConversationItemList)),
    (rf"GET /conversations/{_ID}/items/{_ID}", _is(ConversationItem)),
    (rf"DELETE /conversations/{_ID}/items/{_ID}", _is(Conversation)),
    (r"GET /models", _models),
    (rf"GET /models/{_ID}", _is(Model)),
]
