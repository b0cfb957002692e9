"""docs/process.md's table of errors: what `/process` refuses is in it, with its status."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from greenroom.actors import errors
from greenroom.actors.errors import GreenroomError, HandlerError, SandboxError, TurnMoved
from greenroom.transports.door import TooManyConnections

DOCS = Path(__file__).parents[2] / "docs" / "process.md"
NOT_A_REFUSAL: Final = {
    GreenroomError: "nobody raises it itself",
    errors.ContinuationNotFound: "of the Responses API's `previous_response_id`",
    errors.AnswerMismatch: "ends a turn",
    errors.TurnOver: "told to the turn's own code",
    errors.MissingDependency: "before anything is served",
    errors.ConfigurationError: "before anything is served",
}
IN_TURNS: Final = (HandlerError, SandboxError)
"""What goes wrong while a turn runs ends it, and is told in its ending."""


def table() -> dict[str, set[int]]:
    """The statuses of each code, by the section on errors."""
    section = DOCS.read_text().split("\n## Errors\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([\d, ]+) \| ([^|]+) \|", section, re.MULTILINE)
    return {
        code: {int(status) for status in statuses.split(",")}
        for statuses, codes in rows
        for code in re.findall(r"`(\w+)`", codes)
    }


def refusals() -> set[type[GreenroomError]]:
    kinds = {
        each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, GreenroomError)
    }
    return {each for each in kinds if each not in NOT_A_REFUSAL and not issubclass(each, IN_TURNS)}


def test_all_that_process_refuses_with_is_in_the_table() -> None:
    documented = table()
    for kind in refusals() | {TooManyConnections}:
        assert kind.code in documented, kind
        if kind is not TurnMoved:  # which has one of two
            assert kind.status in documented[kind.code], kind
    moved = {TurnMoved("t", named=named, stored=False).status for named in (True, False)}
    assert documented["turn_moved"] == moved


def test_nothing_is_in_the_table_that_is_not_there() -> None:
    ours = {kind.code for kind in refusals() | {TooManyConnections}}
    assert set(table()) - ours == {"not_found", "internal_error"}  # of paths that are none, and of defects
