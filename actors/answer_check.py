"""Whether an answer is of the form that its request asked for (`TurnOptions.answer`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from greenroom.actors.events import Item
from greenroom.actors.messages import AnswerFormat


def check_schema(schema: Any, at: str = "schema") -> None:
    """Raises `InvalidRequest` for a schema that no answer can be checked against; its field is a path from `at` on."""


async def check_answer(answer: AnswerFormat, output: Sequence[Item], client_tools: Collection[str]) -> None:
    """Raises `AnswerMismatch` when the last message of a turn's output is not as asked for.

    A turn that stopped at calls of client tools has not answered yet, and is not looked at.
    """
