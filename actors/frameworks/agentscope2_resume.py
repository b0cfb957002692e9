"""A turn's input, as an AgentScope 2.x agent goes on from it.

`Agent.reply_stream` takes new messages or, when its last reply is parked on a tool call, the event that brings the
result; nothing else. A turn's input may hold a whole conversation, outputs of tools the client ran, and new messages.

- What can only be past (up to the last such message) goes to the agent's context, each call with its result right
  after it: models take it in no other way. One that has none is closed as interrupted.
- An output of a call that waits resumes its reply. Calls that wait and get none are closed as interrupted.
- Messages beside outputs, or instead of them, end the parked reply and begin a new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from agentscope.agent import Agent
from agentscope.event import ExternalExecutionResultEvent
from agentscope.message import Msg, TextBlock, ToolCallBlock, ToolCallState, ToolResultBlock, ToolResultState

from greenroom.actors.errors import InvalidRequest
from greenroom.actors.frameworks.agentscope2_input import is_history

INTERRUPTED = "<system-reminder>The tool call has been interrupted by the user.</system-reminder>"
"""What AgentScope says of a call that is closed without a result."""


def take_in(agent: Agent, inputs: Msg | Sequence[Msg] | None) -> tuple[Any, set[str]]:
    """What to give the agent for this input, and the ids of the calls whose results that brings.

    Raises `InvalidRequest` for a tool's output that nobody waits for, if it comes last, before anything is changed.
    """
    msgs = [inputs] if isinstance(inputs, Msg) else list(inputs or ())
    waiting = {call.id: call for call in agent.state.get_awaiting_tool_calls(agent.name)}
    msgs, results = _sort_out(msgs, waiting)
    msgs = _checked(agent, _without_echoes(agent, msgs))
    if not waiting and inputs is None:
        return None, set()
    if results and not msgs:
        return _resume(agent, waiting, results)
    if waiting:
        _close(agent, results)
    new = next((number for number in range(len(msgs), 0, -1) if is_history(msgs[number - 1])), 0)
    agent.state.context.extend(_paired(_joined(msgs[:new])))
    return msgs[new:], set()


def _sort_out(
    msgs: Sequence[Msg], waiting: Mapping[str, ToolCallBlock]
) -> tuple[list[Msg], dict[str, ToolResultBlock]]:
    """The messages without what belongs to the calls that wait, and those calls' results."""
    rest: list[Msg] = []
    results: dict[str, ToolResultBlock] = {}
    for msg in msgs:
        kept: list[Any] = []
        for block in msg.content:
            if isinstance(block, ToolResultBlock) and block.id in waiting:
                results[block.id] = block.model_copy(update={"name": waiting[block.id].name})
            elif not (isinstance(block, ToolCallBlock) and block.id in waiting):
                kept.append(block)  # the other is the call itself, sent back
        if len(kept) == len(msg.content):
            rest.append(msg)
        elif kept:
            rest.append(msg.model_copy(update={"content": kept}))
    return rest, results


def _without_echoes(agent: Agent, msgs: Sequence[Msg]) -> Sequence[Msg]:
    """The messages without calls that are handed back after they were answered, and what these had for results; unless
    that is all there is."""
    if not any(_blocks(msgs, ToolCallBlock)):
        return msgs
    context = agent.state.context
    answered = {block.id for block in _blocks(context, ToolResultBlock)}
    known = {_what(block) for block in _blocks(context, ToolCallBlock) if block.id in answered}
    echoes = {block.id for block in _blocks(msgs, ToolCallBlock) if _what(block) in known}
    rest: list[Msg] = []
    for msg in msgs:
        kept = [
            block
            for block in msg.content
            if not (isinstance(block, ToolCallBlock) and _what(block) in known)
            and not (isinstance(block, ToolResultBlock) and block.id in echoes)
        ]
        if len(kept) == len(msg.content):
            rest.append(msg)
        elif kept:
            rest.append(msg.model_copy(update={"content": kept}))
    return rest or msgs


def _what(call: ToolCallBlock) -> tuple[str, str, str]:
    """By which a call is the same one: some services use an id again in a later turn, and some clients write its
    arguments anew."""
    try:
        arguments = msgspec.json.encode(msgspec.json.decode(call.input), order="deterministic").decode()
    except (msgspec.DecodeError, UnicodeError, RecursionError):  # whatever it is, it is the same as itself
        arguments = call.input
    return call.id, call.name, arguments


def _checked(agent: Agent, msgs: Sequence[Msg]) -> list[Msg]:
    """The messages, in which each output belongs to a call: models take it only after its call, and only one.

    One that came too late for its call is told in words, if something new is said after it. Raises `InvalidRequest` if
    nothing is: it would be all there is to answer.
    """
    answered = {block.id for block in _blocks(agent.state.context, ToolResultBlock)}
    calls = {block.id: block for block in _blocks(agent.state.context, ToolCallBlock)}
    calls = {call_id: call for call_id, call in calls.items() if call_id not in answered}
    checked: list[Msg] = []
    for msg in msgs:
        late: list[ToolResultBlock] = []
        for block in msg.content:
            if isinstance(block, ToolCallBlock):
                calls[block.id] = block
            elif isinstance(block, ToolResultBlock):
                call = calls.pop(block.id, None)
                if call is None:
                    late.append(block)
                else:
                    block.name = block.name or call.name
        if late and is_history(msgs[-1]):
            raise _nobody_waits(late[0])
        rest = [block for block in msg.content if not any(block is other for other in late)]
        if rest or not late:
            checked.append(msg.model_copy(update={"content": rest}) if late else msg)
        checked += map(_in_words, late)
    return checked


def _nobody_waits(output: ToolResultBlock) -> InvalidRequest:
    return InvalidRequest(
        f"no tool call {output.id!r} waits for an output: the agent did not make it, or it has its output, or it was "
        "given up when the conversation went on without one",
        field="input",
    )


def _in_words(output: ToolResultBlock) -> Msg:
    said = [TextBlock(text=output.output)] if isinstance(output.output, str) else output.output
    about = TextBlock(text=f"Output of an earlier call of {output.name or 'a tool'} ({output.id}):")
    return Msg(name="user", role="user", content=[about, *said])


def _joined(history: Sequence[Msg]) -> list[Msg]:
    """What an agent did in a row as one message, as it would have it itself: calls that were made at once stay so."""
    joined: list[Msg] = []
    for msg in history:
        acts = msg.role == "assistant" and is_history(msg)
        if acts and joined and joined[-1].role == "assistant" and is_history(joined[-1]):
            joined[-1] = joined[-1].model_copy(update={"content": [*joined[-1].content, *msg.content]})
        else:
            joined.append(msg)
    return joined


def _paired(history: Sequence[Msg]) -> list[Msg]:
    """The messages with a result for each call, which follows it although other things may have been said before."""
    answers = _answers(history)
    paired: list[Msg] = []
    for msg in history:
        content = list(_in_order(msg.content, answers))
        if content or not msg.content:
            paired.append(msg.model_copy(update={"content": content}))
    return paired


def _answers(history: Sequence[Msg]) -> dict[int, ToolResultBlock]:
    """The results, by the identity of their calls: some services use a call's id again in a later turn."""
    waiting: dict[str, ToolCallBlock] = {}
    answers: dict[int, ToolResultBlock] = {}
    for msg in history:
        for block in msg.content:
            if isinstance(block, ToolCallBlock):
                waiting[block.id] = block
            elif isinstance(block, ToolResultBlock) and block.id in waiting:
                answers[id(waiting.pop(block.id))] = block
    return answers


def _in_order(content: Sequence[Any], answers: Mapping[int, ToolResultBlock]) -> Iterator[Any]:
    """What a message holds, all calls that were made at once answered where the first of them is."""
    moved = set(map(id, answers.values()))
    calls: list[ToolCallBlock] = []
    for block in content:
        if not isinstance(block, ToolResultBlock):
            yield block
            if isinstance(block, ToolCallBlock):
                calls.append(block)
            continue
        yield from (answers.get(id(call)) or _interrupted(call) for call in calls)
        calls.clear()
        if id(block) not in moved:
            yield block  # its call is in the agent's context
    yield from (answers.get(id(call)) or _interrupted(call) for call in calls)


def _resume(
    agent: Agent, waiting: Mapping[str, ToolCallBlock], results: Mapping[str, ToolResultBlock]
) -> tuple[ExternalExecutionResultEvent, set[str]]:
    state = agent.state
    state.reply_id = state.context[-1].id  # a context that comes from a history knows no other
    for call in waiting.values():
        call.state = ToolCallState.SUBMITTED  # what waits for a confirmation is closed in the same way
    brought = [results.get(call_id) or _interrupted(call) for call_id, call in waiting.items()]
    return ExternalExecutionResultEvent(reply_id=state.reply_id, execution_results=brought), set(waiting)


def _close(agent: Agent, results: Mapping[str, ToolResultBlock]) -> None:
    """End the parked reply: every call of it has a result, be it that it was interrupted."""
    last = agent.state.context[-1]
    answered = {block.id for block in _blocks([last], ToolResultBlock)}
    for call in _blocks([last], ToolCallBlock):
        if call.id not in answered:
            call.state = ToolCallState.FINISHED
            last.content.append(results.get(call.id) or _interrupted(call))


def _interrupted(call: ToolCallBlock) -> ToolResultBlock:
    return ToolResultBlock(id=call.id, name=call.name, output=INTERRUPTED, state=ToolResultState.INTERRUPTED)


def _blocks(msgs: Sequence[Msg], kind: type) -> list[Any]:
    return [block for msg in msgs for block in msg.content if isinstance(block, kind)]
