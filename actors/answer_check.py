"""Whether an answer is of the form that its request asked for (`TurnOptions.answer`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from greenroom.actors.errors import AnswerMismatch
from greenroom.actors.events import Item
from greenroom.actors.json_schema import Check, TooMuch
from greenroom.actors.json_schema_form import check_form
from greenroom.actors.messages import AnswerFormat, Data, Refusal, Text, ToolCall
from greenroom.actors.offload import in_thread

ANSWER_CHARS = 8 * 1024 * 1024
"""A longer answer is not looked at, and so not taken."""
QUICK_CHARS = 16 * 1024
QUICK_STEPS = 500
"""What is checked at once, in a millisecond or two; what takes more goes to a worker thread."""
STEPS = 500_000
"""What a check may take at all: a second or two."""


def check_schema(schema: Any, at: str = "schema") -> None:
    """Raises `InvalidRequest` for a schema that no answer could be checked against: one that is none, is too large, or
    has keywords, patterns or references that are not known here. Its `field` is a path that begins with `at`."""
    check_form(schema, at)


async def check_answer(answer: AnswerFormat, output: Sequence[Item], client_tools: Collection[str]) -> None:
    """Raises `AnswerMismatch` when the last message of a turn's output is not as asked for.

    A turn that stopped at calls of client tools has not answered yet, and who declines says so in his own words: they
    are not looked at.
    """
    message = _answer(output, client_tools)
    if message is None:
        return
    text = _text(message)
    if len(text) <= QUICK_CHARS:
        try:
            _check(answer, text, QUICK_STEPS)
        except TooMuch:
            pass  # there is more to it than can be done here
        else:
            return
    try:
        await in_thread(_check, answer, text, STEPS)
    except TooMuch:
        raise AnswerMismatch(
            "the answer could not be checked against the schema that was asked for: it would take too long; ask for a "
            "simpler schema"
        ) from None


def _answer(output: Sequence[Item], client_tools: Collection[str]) -> Item | None:
    """The message to look at. Raises `AnswerMismatch` when there should be one."""
    for item in reversed(output):
        if item.kind == "message" and item.role == "assistant":
            return None if any(isinstance(part, Refusal) for part in item.parts) else item
        if any(isinstance(part, ToolCall) and part.name in client_tools for part in item.parts):
            return None
    raise AnswerMismatch("the request asked for an answer in JSON, and the agent gave none")


def _text(message: Item) -> str:
    """What a client reads as the message's text."""
    texts = [part.text for part in message.parts if isinstance(part, Text)]
    if not texts:
        texts = [msgspec.json.encode(part.data).decode() for part in message.parts if isinstance(part, Data)]
    return "".join(texts)


def _check(answer: AnswerFormat, text: str, steps: int) -> None:
    if len(text) > ANSWER_CHARS:
        raise AnswerMismatch(
            f"the answer has {len(text)} characters, more than can be checked ({ANSWER_CHARS})",
            field="answer",
        )
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise AnswerMismatch(
            f"the request asked for an answer in JSON, and what the agent wrote is none: {error}",
            field="answer",
        ) from None
    schema: Any = answer.schema if answer.kind == "json_schema" else {"type": "object"}
    try:
        flaw = Check({} if schema is None else schema, steps).flaw(value, "answer")
    except RecursionError:
        raise TooMuch from None
    if flaw is not None:
        raise AnswerMismatch(
            f"the agent's answer is not of the form that the request asked for: {flaw.path} {flaw.why}",
            field=flaw.path,
        )
