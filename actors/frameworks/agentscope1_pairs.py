"""Calls and their results in an AgentScope 1.x prompt: no model service takes a call without a result right after it.

A call of a client's tool ends its turn and waits in the agent's memory. Its output comes with a later turn, perhaps
beside or after other messages, or never; some clients hand the call back with it. So what an agent's formatter gets is
put in order first; the memory stays as things happened. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

from agentscope.message import Msg

from greenroom.actors.frameworks.agentscope1_blocks import Block

INTERRUPTED = "interrupted: this call was given no output"


class _Call:
    """A call in a prompt, and the result that was found for it."""

    __slots__ = ("block", "result")

    def __init__(self, block: Block) -> None:
        self.block = block
        self.result: Msg | None = None

    def __repr__(self) -> str:
        return f"<_Call {self.block.get('id')} {'open' if self.result is None else 'answered'}>"

    def is_echoed_by(self, block: Block) -> bool:
        """Whether that is this call handed back: while it waits, another one would have another id."""
        return _is_same(self.block, block)

    def answered(self) -> Msg:
        """Its result, or one that says that there is none."""
        return self.result or _result(
            {"type": "tool_result", "id": self.block.get("id"), "output": INTERRUPTED}, self
        )


def paired(msgs: Sequence[Msg]) -> list[Msg]:
    """The messages with the results of each message's calls right after it.

    An open call gets a result that says so; one that is handed back while it is open is there once. A result of a call
    that is not there becomes text; a second one is dropped.
    """
    if _is_paired(msgs):
        return list(msgs)
    msgs = _without_echoes(msgs)
    calls, loose = _matched(msgs)
    ordered: list[Msg] = []
    for number, msg in enumerate(msgs):
        if not any(_blocks(msg, "tool_result")):
            ordered.append(msg)
        elif rest := [block for block in msg.content if block.get("type") != "tool_result"]:
            ordered.append(_with_content(msg, rest))
        ordered += [_as_text(block) for block in loose.get(number, ())]
        ordered += [call.answered() for call in calls.get(number, ())]
    return ordered


def unechoed(remembered: Sequence[Msg], msgs: Sequence[Msg]) -> Sequence[Msg]:
    """What an agent is told, without calls of its memory that are handed back after they were answered, and what these
    had for results; unless that is all there is. In a prompt nobody could tell who made a call a second time."""
    answered = {block.get("id") for msg in remembered for block in _blocks(msg, "tool_result")}
    known = [block for msg in remembered for block in _blocks(msg, "tool_use") if block.get("id") in answered]
    echoes = [
        block
        for msg in msgs
        for block in _blocks(msg, "tool_use")
        if any(_is_same(block, one) for one in known)
    ]
    ids = {block.get("id") for block in echoes}
    rest: list[Msg] = []
    for msg in msgs:
        results = [block for block in _blocks(msg, "tool_result") if block.get("id") in ids]
        kept = without_calls(msg, [*echoes, *results]) if isinstance(msg.content, list) else msg
        if kept.content or not msg.content:
            rest.append(msg if len(kept.content) == len(msg.content) else kept)
    return rest or msgs


def has_calls(msgs: Sequence[Msg]) -> bool:
    """Whether there is a call in one of the messages."""
    return any(True for msg in msgs for _ in _blocks(msg, "tool_use"))


def _is_same(call: Block, other: Block) -> bool:
    """Whether the two are one call: some services use an id again in a later turn."""
    return all(call.get(name) == other.get(name) for name in ("id", "name", "input"))


def _is_paired(msgs: Sequence[Msg]) -> bool:
    """Whether there is nothing to do, as nearly always."""
    waiting: set[Any] = set()
    for msg in msgs:
        called: set[Any] = set()
        for block in msg.content if isinstance(msg.content, list) else ({"type": "text"},):
            kind = block.get("type")
            if kind == "tool_result":
                if block.get("id") not in waiting or not block.get("name"):
                    return False
                waiting.discard(block.get("id"))
            elif waiting:
                return False
            elif kind == "tool_use":
                called.add(block.get("id"))
        waiting |= called
    return not waiting


def _without_echoes(msgs: Sequence[Msg]) -> list[Msg]:
    """The messages without calls that were handed back before they had a result."""
    kept: list[Msg] = []
    open_calls: dict[Any, _Call] = {}
    for msg in msgs:
        echoes: list[Block] = []
        for block in _blocks(msg, "tool_use"):
            call = open_calls.get(block.get("id"))
            if call is not None and call.is_echoed_by(block):
                echoes.append(block)
            else:
                open_calls[block.get("id")] = _Call(block)
        for block in _blocks(msg, "tool_result"):
            open_calls.pop(block.get("id"), None)
        rest = without_calls(msg, echoes) if echoes else msg
        if rest.content or not echoes:
            kept.append(rest)
    return kept


def _matched(msgs: Sequence[Msg]) -> tuple[dict[int, list[_Call]], dict[int, list[Block]]]:
    """The calls and the results without a call, by the message they are in.

    Some services use an id again in a later turn, so a result belongs to the latest open call of its id.
    """
    calls: dict[int, list[_Call]] = {}
    loose: dict[int, list[Block]] = {}
    by_id: dict[Any, list[_Call]] = {}
    for number, msg in enumerate(msgs):
        for block in _blocks(msg, "tool_use"):
            call = _Call(block)
            calls.setdefault(number, []).append(call)
            by_id.setdefault(block.get("id"), []).append(call)
        for block in _blocks(msg, "tool_result"):
            known = by_id.get(block.get("id"))
            if known is None:
                loose.setdefault(number, []).append(block)
                continue
            call_of_it = next((call for call in reversed(known) if call.result is None), None)
            if call_of_it is not None:
                alone = len(msg.content) == 1 and bool(block.get("name"))
                call_of_it.result = msg if alone else _result(block, call_of_it)
    return calls, loose


def _blocks(msg: Msg, kind: str) -> Iterator[Block]:
    if isinstance(msg.content, list):
        for block in msg.content:
            if block.get("type") == kind:
                yield block


def _result(block: Block, call: _Call) -> Msg:
    """A result as a message of its own, which names its tool: clients do not."""
    return Msg("system", [{**block, "name": block.get("name") or call.block.get("name")}], "system")


def _as_text(block: Block) -> Msg:
    output = block.get("output")
    said = [{"type": "text", "text": output}] if isinstance(output, str) else list(output or ())
    tool = block.get("name") or "a tool"
    about = {"type": "text", "text": f"Output of an earlier call of {tool} ({block.get('id')}):"}
    return Msg("user", [about, *said], "user")


def _with_content(msg: Msg, content: list[Block]) -> Msg:
    other = copy(msg)
    other.content = content
    return other


def without_calls(msg: Msg, calls: Sequence[Block]) -> Msg:
    """The message, still the same one by its id, without some of its calls, or of other blocks."""
    return _with_content(msg, [block for block in msg.content if not any(block is call for call in calls)])
