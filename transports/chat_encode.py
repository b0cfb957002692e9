"""Writing Chat Completions: a turn's canonical events become chunks of a stream, or one completion.

Rule 1: no I/O, and nothing but the turn and its events decides the bytes: encoding them again gives the same ones.
Rule 2: one turn is one message of one choice. What the agent says in several messages and parts is joined by blank
lines; if the answer must be JSON, only its last message is the answer, and it comes when the turn is complete.
Rule 3: only calls of tools that the request declared are `tool_calls`, which a client runs. What the agent runs itself
is not shown, or as a line of text.
Rule 4: a stream that does not end well says so in a frame of its own, `{"error": ...}`, before `[DONE]`. Its code is
the status that a whole answer would have: by that a client sees that the request is not to be sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeAlias

from msgspec import UNSET, Struct, structs
from msgspec.json import Encoder

from greenroom.actors.errors import InvalidRequest
from greenroom.actors.events import (
    ArgumentsDelta,
    Event,
    Item,
    ItemDone,
    ItemStarted,
    Part,
    PartDone,
    TextDelta,
    ToolProgress,
    TurnAccepted,
    TurnCancelled,
    TurnCompleted,
    TurnFailed,
    TurnStarted,
)
from greenroom.actors.messages import (
    Refusal,
    ToolCall,
    ToolOutput,
    Turn,
    Usage,
)
from greenroom.services.sessions.turn_codec import register_echo
from greenroom.transports import chat_wire as wire
from greenroom.transports.json_text import encode
from greenroom.transports.openai_fields import INVALID, SERVER
from greenroom.transports.responses_text import answer_text
from greenroom.transports.sse import DONE

ToolDisplay: TypeAlias = Literal["hidden", "text"]

BETWEEN = "\n\n"
"""Goes between two messages, or parts of one, that have become one text."""
FAILED = 424
"""The status of a run that failed (Failed Dependency). It would run again for a client that sends its request again, as
many do on a 5xx whatever `x-should-retry` says; on this no client does."""

_encode = Encoder().encode
_FRAME = b"%b%b%b"
_TEXT_TAILS = {counted: wire.DELTA_END + wire.TAILS[None, counted] for counted in (False, True)}


class ChatEcho(Struct, frozen=True, kw_only=True):
    """What a request says about its answer. `tools`: how the calls of tools that the agent runs itself are shown."""

    model: str = ""
    include_usage: bool = False
    metadata: dict[str, str] | None = None
    tools: ToolDisplay = "hidden"


register_echo("chat", ChatEcho)


class _Call:
    """A call that the client is to run, while it is written."""

    __slots__ = ("index", "sent")

    def __init__(self, index: int) -> None:
        self.index = index
        self.sent: list[str] = []


class ChatEncoder:
    """Encodes one turn. `number`: the next frame's, which is the count of frames so far, `[DONE]` included."""

    __slots__ = ("_calls", "_echo", "_head", "_item", "_kinds", "_part", "_said", "_start", "_turn", "number")

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._echo = _echo_of(turn)
        self._start = wire.START % (encode(turn.id), int(turn.created_at), encode(self._echo.model))
        self._kinds: dict[str, str] = {}
        """The open items."""
        self._calls: dict[str, _Call] = {}
        self._said: dict[str, set[tuple[str, int]]] = {}
        """By kind of text, the parts that have said something."""
        self._item = ""
        self._part = -1
        self._head = b""
        self.number = 0

    def __repr__(self) -> str:
        return f"<ChatEncoder {self._turn.id} at {self.number}, {len(self._kinds)} items open>"

    @classmethod
    def whole(cls, turn: Turn, events: Sequence[Event]) -> list[bytes]:
        """All frames of a turn that has ended."""
        frames: list[bytes] = []
        cls(turn).feed_all(events, frames)
        return frames

    def feed(self, event: Event, frames: list[bytes]) -> None:
        """Append the frames that the event makes: none, one, or at the end up to three."""
        self.feed_all((event,), frames)

    def feed_all(self, events: Iterable[Event], frames: list[bytes]) -> None:
        """The same for events that follow one another. Every token comes this way: what can be looked up once is."""
        before = len(frames)
        tail = _TEXT_TAILS[self._echo.include_usage]
        item, part, head = self._item, self._part, self._head
        for event in events:
            if type(event) is not TextDelta:
                _WRITERS[type(event)](self, event, frames)
                item, part, head = self._item, self._part, self._head
                continue
            said = event.text
            if event.item != item or event.part != part:
                said = self._turn_to(event.item, event.part) + said
                item, part, head = self._item, self._part, self._head
            if head:
                try:
                    text = _encode(said)
                except (TypeError, ValueError):  # what JSON cannot say as it is
                    text = encode(said)
                frames.append(_FRAME % (head, text, tail))
        self.number += len(frames) - before

    def skip(self, event: Event) -> None:
        """Go past an event whose frames nobody wants."""
        self.feed_all((event,), [])

    # -- text ----------------------------------------------------------------------------------------------------------

    def _turn_to(self, item: str, part: int) -> str:
        """Text of this part comes next. Gives what goes before it."""
        self._item, self._part = item, part
        kind = "reasoning" if self._kinds[item] == "reasoning" else "message"
        if kind == "reasoning":
            self._head = self._start + wire.REASONING
        elif self._turn.options is not None and self._turn.options.answer is not None:
            self._head = b""  # the answer is what the last message says, and nobody knows yet which is
        else:
            self._head = self._start + wire.CONTENT
        return self._lead(kind, (item, part))

    def _lead(self, kind: str, part: tuple[str, int]) -> str:
        """What goes before the first text of a part."""
        said = self._said.setdefault(kind, set())
        if part in said:
            return ""
        said.add(part)
        return BETWEEN if len(said) > 1 else ""

    def _whole(self, text: str, item: str, part: int, frames: list[bytes]) -> None:
        """A text that did not come in deltas."""
        kind = "reasoning" if self._kinds[item] == "reasoning" else "message"
        if text and (item, part) not in self._said.get(kind, ()):
            lead = self._turn_to(item, part)
            if self._head:
                self._add(b"%b%b}" % (self._head[len(self._start) :], encode(lead + text)), frames)

    # -- items ---------------------------------------------------------------------------------------------------------

    def _open(self, event: ItemStarted, frames: list[bytes]) -> None:
        self._kinds[event.item] = event.kind
        if event.kind == "tool_call" and _is_clients(self._turn, event.name):
            call = self._calls[event.item] = _Call(len(self._calls))
            function = wire.Function("", event.name or "")
            begun = wire.CallDelta(call.index, event.call_id or "", "function", function)
            self._add(encode(wire.Delta(tool_calls=[begun])), frames)

    def _arguments(self, event: ArgumentsDelta, frames: list[bytes]) -> None:
        call = self._calls.get(event.item)
        if call is not None:
            call.sent.append(event.text)
            self._add(wire.ARGUMENTS % (call.index, encode(event.text)), frames)

    def _part_done(self, event: PartDone, frames: list[bytes]) -> None:
        part = event.content
        if isinstance(part, ToolCall) and event.item in self._calls:
            self._call_done(self._calls[event.item], part, frames)
        elif isinstance(part, Refusal):
            if part.refusal:
                said = self._lead("refusal", (event.item, event.part)) + part.refusal
                self._add(encode(wire.Delta(refusal=said)), frames)
        else:
            self._whole(shown(part, self._echo.tools), event.item, event.part, frames)

    def _call_done(self, call: _Call, part: ToolCall, frames: list[bytes]) -> None:
        """Say what the deltas have not. Words cannot be taken back: rewritten arguments stay as they went."""
        sent = "".join(call.sent)
        rest = part.arguments[len(sent) :] if part.arguments.startswith(sent) else ""
        if rest:
            self._add(wire.ARGUMENTS % (call.index, encode(rest)), frames)

    def _close(self, event: ItemDone, frames: list[bytes]) -> None:
        del self._kinds[event.item]

    # -- the turn ------------------------------------------------------------------------------------------------------

    def _accepted(self, _: TurnAccepted, frames: list[bytes]) -> None:
        self._add(wire.ROLE, frames)

    def _completed(self, event: TurnCompleted, frames: list[bytes]) -> None:
        answer = answer_of(self._turn, event.output, self._echo.tools)
        if self._turn.options is not None and self._turn.options.answer is not None and answer.content:
            self._add(b"%b%b}" % (wire.CONTENT, encode(answer.content)), frames)
        self._add(wire.NOTHING, frames, finish_reason(event, answer))
        if self._echo.include_usage:
            labels = (encode(self._turn.id), int(self._turn.created_at), encode(self._echo.model))
            frames.append(wire.COUNTED % (*labels, encode(usage_of(event.usage))))
        self._done(frames)

    def _broken(self, event: TurnFailed | TurnCancelled, frames: list[bytes]) -> None:
        error = error_of(event)
        if error.type != INVALID:
            error = structs.replace(error, code=str(FAILED))
        frames.append(b"data: %b\n\n" % encode({"error": error}))
        self._done(frames)

    def _done(self, frames: list[bytes]) -> None:
        frames.append(DONE)
        self._kinds.clear()
        self._calls.clear()
        self._said.clear()

    def _add(self, delta: bytes, frames: list[bytes], reason: wire.FinishReason | None = None) -> None:
        frames.append(_FRAME % (self._start, delta, wire.TAILS[reason, self._echo.include_usage]))

    def _unsaid(self, event: TurnStarted | ToolProgress, frames: list[bytes]) -> None:
        """What Chat Completions have no word for."""


_WRITERS: dict[type, Callable[[ChatEncoder, Any, list[bytes]], None]] = {
    TurnAccepted: ChatEncoder._accepted,
    TurnStarted: ChatEncoder._unsaid,
    ItemStarted: ChatEncoder._open,
    ArgumentsDelta: ChatEncoder._arguments,
    ToolProgress: ChatEncoder._unsaid,
    PartDone: ChatEncoder._part_done,
    ItemDone: ChatEncoder._close,
    TurnCompleted: ChatEncoder._completed,
    TurnFailed: ChatEncoder._broken,
    TurnCancelled: ChatEncoder._broken,
}


# -- the wire's objects from ours ----------------------------------------------------------------------------------


def completion_object(turn: Turn, ending: TurnCompleted) -> bytes:
    """A turn that has completed as one JSON `chat.completion`."""
    echo = _echo_of(turn)
    answer = answer_of(turn, ending.output, echo.tools)
    completion = wire.Completion(
        id=turn.id,
        created=int(turn.created_at),
        model=echo.model,
        choices=[wire.Choice(message=answer, finish_reason=finish_reason(ending, answer))],
        usage=usage_of(ending.usage),
        metadata=UNSET if echo.metadata is None else echo.metadata,
    )
    return encode(completion)


def answer_of(turn: Turn, output: Sequence[Item], tools: ToolDisplay = "hidden") -> wire.Answer:
    """All that the output says, as the one message."""
    spoken = [item for item in output if item.kind != "reasoning"]
    if turn.options is not None and turn.options.answer is not None:
        spoken = [item for item in spoken if item.kind == "message"][-1:]
    content = _joined(
        shown(part, tools) for item in spoken for part in item.parts if not _is_call(turn, part)
    )
    thoughts = _joined(shown(part) for item in output if item.kind == "reasoning" for part in item.parts)
    refusal = _joined(part.refusal for item in output for part in item.parts if isinstance(part, Refusal))
    calls = [
        wire.CallOf(part.call_id, wire.Function(part.arguments, part.name))
        for item in output
        for part in item.parts
        if isinstance(part, ToolCall) and _is_call(turn, part)
    ]
    return wire.Answer(
        content=content or (None if calls or refusal else ""),
        reasoning_content=thoughts or UNSET,
        refusal=refusal or None,
        tool_calls=calls or UNSET,
    )


def finish_reason(ending: TurnCompleted, answer: wire.Answer) -> wire.FinishReason:
    """Why the answer ends here."""
    if ending.incomplete == "max_output_tokens":
        return "length"
    if ending.incomplete is not None:
        return ending.incomplete
    return "tool_calls" if answer.tool_calls else "stop"


def usage_of(usage: Usage | None) -> wire.WireUsage:
    """What the model calls reported; zeros when they reported nothing."""
    usage = usage or Usage()
    return wire.WireUsage(
        usage.input_tokens,
        usage.output_tokens,
        usage.input_tokens + usage.output_tokens,
        wire.PromptDetails(usage.cached_tokens),
        wire.CompletionDetails(usage.reasoning_tokens),
    )


def error_of(ending: TurnFailed | TurnCancelled) -> wire.WireError:
    """Why a turn did not complete."""
    if isinstance(ending, TurnCancelled):
        return wire.WireError(f"the turn was cancelled: {ending.reason}", SERVER, code="cancelled")
    error = ending.error
    kind = INVALID if error.code == InvalidRequest.code else SERVER
    return wire.WireError(error.message, kind, _param(error.field), error.code)


def _param(field: str | None) -> str | None:
    """What is wrong, as this protocol calls it; its messages have other places than those of the turn."""
    if field is None or not field.startswith("input"):
        return field and field.replace("].name", "].function.name")
    return "messages"


def shown(part: Part, tools: ToolDisplay = "hidden") -> str:
    """A part as text: media as Markdown links, objects as JSON."""
    match part:
        case ToolCall() if tools == "text":
            return f"> {part.name} {' '.join(part.arguments.split())}"
        case Refusal() | ToolCall() | ToolOutput():
            return ""
        case _:
            return answer_text(part)


def _joined(texts: Iterable[str]) -> str:
    return BETWEEN.join(filter(None, texts))


def _is_call(turn: Turn, part: Part) -> bool:
    """Whether the client is to run this call."""
    return isinstance(part, ToolCall) and _is_clients(turn, part.name)


def _is_clients(turn: Turn, name: str | None) -> bool:
    return turn.options is not None and any(tool.name == name for tool in turn.options.tools)


def _echo_of(turn: Turn) -> ChatEcho:
    return turn.echo if isinstance(turn.echo, ChatEcho) else ChatEcho(model=turn.request.model or "")
