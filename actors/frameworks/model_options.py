"""What a turn's options come to at its model calls, whatever the framework: words for the model, the client's tools as
schemas, the form of the answer, and the turn's budget of tokens.

Adapters ask these at each model call. The budget is counted in the turn's scope, as a framework may call its models in
tasks of its own.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from greenroom.actors.errors import InvalidRequest
from greenroom.actors.messages import AnswerFormat, FunctionTool, TurnOptions
from greenroom.actors.scope import TurnScope

CHARACTERS_A_TOKEN = 4
"""For a model that does not report what it used."""


# -- words -------------------------------------------------------------------------------------------------------------


def words_of(options: TurnOptions) -> str:
    """What the model is told beside the agent's own system prompt; empty: nothing."""
    words = [options.instructions] if options.instructions else []
    if options.answer is not None:
        words.append(answer_words(options.answer))
    return "\n\n".join(words)


def answer_words(answer: AnswerFormat) -> str:
    """The form of the answer in words, for the many models that have no parameter for it."""
    alone = "Give the JSON alone: no other text before or after it, no code fence."
    if answer.schema is None:
        return f"Your final answer must be one JSON object. {alone}"
    schema = msgspec.json.encode(answer.schema).decode()
    return f"Your final answer must be JSON that this JSON schema validates:\n{schema}\n{alone}"


def response_format(answer: AnswerFormat) -> dict[str, Any]:
    """The form of the answer as the Chat Completions API takes it (`response_format`)."""
    if answer.schema is None:
        return {"type": "json_object"}
    form: dict[str, Any] = {"name": answer.name or "answer", "schema": answer.schema}
    if answer.strict is not None:
        form["strict"] = answer.strict
    return {"type": "json_schema", "json_schema": form}


def text_format(answer: AnswerFormat) -> dict[str, Any]:
    """The form of the answer as the Responses API takes it (`text.format`)."""
    form = response_format(answer)
    return {"type": form["type"], **form.get("json_schema", {})}


def tastes(options: TurnOptions) -> dict[str, Any]:
    """What else a request asks of how the model speaks, as the Chat Completions API has it; few other APIs do."""
    found = {
        "presence_penalty": options.presence_penalty,
        "frequency_penalty": options.frequency_penalty,
        "seed": options.seed,
    }
    return {name: value for name, value in found.items() if value is not None}


# -- tools -------------------------------------------------------------------------------------------------------------


def parameters_of(tool: FunctionTool) -> dict[str, Any]:
    """The JSON schema of a tool's arguments, an object's in any case: models and frameworks insist on one."""
    return {"type": "object", "properties": {}, **(tool.parameters or {})}


def tool_schema(tool: FunctionTool) -> dict[str, Any]:
    """A tool of the client as models are told of it."""
    function: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description or "",
        "parameters": parameters_of(tool),
    }
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def check_names(options: TurnOptions, own: Collection[str]) -> None:
    """Raises `InvalidRequest` for a tool of the client that is called like one of the agent's `own`: nobody could tell
    who is to run it."""
    for number, tool in enumerate(options.tools):
        if tool.name in own:
            raise InvalidRequest(
                f"the agent has a tool {tool.name!r} of its own; give yours another name",
                field=f"tools[{number}].name",
            )


def check_choice(options: TurnOptions, names: Collection[str]) -> None:
    """Raises `InvalidRequest` when a call is asked for that cannot be, the tools being called `names`."""
    if options.forced_tool is not None and options.forced_tool not in names:
        raise InvalidRequest(
            f"there is no tool {options.forced_tool!r} to be called; name one of those that you send in tools, or one "
            "that the agent has",
            field="tool_choice",
        )
    if options.tool_choice == "required" and not names:
        raise InvalidRequest(
            "a tool must be called, and there is none; send tools, or tool_choice 'auto'", field="tool_choice"
        )


# -- the budget --------------------------------------------------------------------------------------------------------


def tokens_left(scope: TurnScope) -> int | None:
    """How many tokens of output the turn's model calls may still make; none: as many as they like."""
    most = scope.options.max_output_tokens if scope.options is not None else None
    return None if most is None else max(0, most - scope.output_tokens)


def spend(scope: TurnScope, tokens: int, characters: int = 0) -> None:
    """A model call has ended: what it reported, or else (0) an estimate from the length of what it said."""
    scope.output_tokens += tokens or -(-characters // CHARACTERS_A_TOKEN)


def is_spent(scope: TurnScope) -> bool:
    """Whether the turn must end as it is: the model may not say more, and what it said last may be cut."""
    return tokens_left(scope) == 0
