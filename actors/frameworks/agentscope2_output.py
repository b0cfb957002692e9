"""What arrives in pieces: a data block's fragments, a tool's call and its output."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from agentscope.message import ToolCallBlock

from greenroom.actors.composer import Composer
from greenroom.actors.drafts import NOT_CALLED, CallDraft, OutputDraft
from greenroom.actors.frameworks.agentscope2_blocks import join_base64, part_of, tool_name
from greenroom.actors.messages import Content, Text

GROWTH = 1.125
"""Progress tells the whole output each time, so the next is due when there is an eighth more: all of it together then
stays within nine times the output, however small a tool's pieces are."""


class Fragments:
    """One piece of data, of which the deltas bring base64 fragments or a URL."""

    __slots__ = ("_data", "_media_type", "_name", "_url")

    def __init__(self, media_type: str, name: str | None = None) -> None:
        self._media_type = media_type
        self._name = name
        self._data: list[str] = []
        self._url: str | None = None

    @property
    def any(self) -> bool:
        """Whether there is something."""
        return bool(self._data) or self._url is not None

    def add(self, data: str | None, url: str | None) -> int:
        """More of it; the size of what was added, in characters."""
        if url is not None:
            self._url = url  # a URL is the whole content
            return len(url)
        if data:
            self._data.append(data)
        return len(data or "")

    def part(self) -> Content:
        """The part, as it stands."""
        if len(self._data) > 1:
            self._data = [join_base64(self._data)]
        return part_of(self._media_type, data="".join(self._data), url=self._url, name=self._name)


class Output:
    """A tool's output while it comes."""

    __slots__ = ("_draft", "_due", "_parts", "_size", "_spend")

    def __init__(self, draft: OutputDraft, spend: Callable[[int], None]) -> None:
        self._draft = draft
        self._spend = spend
        self._parts: list[list[str] | tuple[str, Fragments]] = []
        self._size = 0
        # The first piece is most often all there is: it waits for a second before it is told as progress.
        self._due: float | None = None

    def text(self, delta: str) -> None:
        """More text."""
        if not delta:
            return
        last = self._parts[-1] if self._parts else None
        if isinstance(last, list):
            last.append(delta)
        else:
            self._parts.append([delta])
        self._grown(len(delta))

    def data(self, block: str, media_type: str, data: str | None, url: str | None) -> None:
        """More data."""
        last = self._parts[-1] if self._parts else None
        if not (isinstance(last, tuple) and last[0] == block):
            last = (block, Fragments(media_type))
            self._parts.append(last)
        self._grown(last[1].add(data, url))

    def done(self, state: str, output: Sequence[Content] | None = None) -> None:
        """It is complete; `output` overrules what came in pieces. A `state` other than success stands with it."""
        if state != "success":
            self._draft.metadata = {"state": state}
        whole = self._so_far() if output is None else output
        self._draft.done(as_error(whole) if state == "error" else whole)

    def _grown(self, size: int) -> None:
        self._spend(size)
        self._size += size
        if self._due is None:
            self._due = 0.0
        elif self._size >= self._due:
            self._due = self._size * GROWTH
            self._draft.progress(self._so_far())

    def _so_far(self) -> tuple[Content, ...]:
        parts: list[Content] = []
        for piece in self._parts:
            if isinstance(piece, list):
                piece[:] = ["".join(piece)]
                parts.append(Text(piece[0]))
            else:
                parts.append(piece[1].part())
        return tuple(parts)


class ToolItems:
    """A turn's tool calls and their outputs, by call id; several may be open at once. `hush` ends the speech that is
    open: tools speak after it. `elsewhere`: the tools that the client runs, which are called what it calls them."""

    __slots__ = ("_answered", "_calls", "_composer", "_elsewhere", "_hush", "_names", "_outputs")

    def __init__(self, composer: Composer, hush: Callable[[], None], elsewhere: Container[str] = ()) -> None:
        self._composer = composer
        self._hush = hush
        self._elsewhere = elsewhere
        self._calls: dict[str, CallDraft] = {}
        self._names: dict[str, str] = {}
        self._outputs: dict[str, Output] = {}
        self._answered: set[str] = set()

    def start(self, call_id: str, name: str) -> None:
        """A call begins."""
        self._hush()
        self.end(call_id)
        self._names[call_id] = name
        self._answered.discard(call_id)
        own, label = (name, None) if name in self._elsewhere else tool_name(name)
        self._calls[call_id] = self._composer.call(call_id, own, label)

    def arguments(self, call_id: str, delta: str) -> None:
        """More of a call's arguments."""
        draft = self._calls.get(call_id)
        if draft is not None:
            draft.arguments(delta)

    def end(self, call_id: str) -> None:
        """The call, if it is open, is complete."""
        draft = self._calls.pop(call_id, None)
        if draft is not None:
            draft.done()

    def whole(self, block: ToolCallBlock) -> None:
        """A call at once."""
        self.start(block.id, block.name)
        self.arguments(block.id, block.input)
        self.end(block.id)

    def was_told(self, call_id: str) -> bool:
        """Whether a call with this id was told in this turn."""
        return call_id in self._names

    def was_answered(self, call_id: str) -> bool:
        """Whether an output for this id was told in this turn."""
        return call_id in self._answered

    def name(self, call_id: str, name: str) -> None:
        """Whose output is to come. Nothing is told: there may never be any."""
        self._names[call_id] = name

    def output(self, call_id: str) -> Output:
        """The call's output, to be written to."""
        output = self._outputs.get(call_id)
        if output is None:
            self._hush()
            self.end(call_id)
            name, label = tool_name(self._names.get(call_id, ""))
            draft = self._composer.output_of(call_id, name, label)
            output = self._outputs[call_id] = Output(draft, self._composer.spend)
        return output

    def result(self, call_id: str, state: str, output: Sequence[Content] | None = None) -> None:
        """The call's output is complete."""
        self.output(call_id).done(state, output)
        del self._outputs[call_id]
        self._answered.add(call_id)

    def finish(self) -> None:
        """Everything is complete."""
        for call_id in [*self._calls]:
            self.end(call_id)
        for call_id in [*self._outputs]:
            self.result(call_id, "success")

    def give_up(self) -> None:
        """The turn ends before what was called is run."""
        for call_id, name in self._names.items():
            if call_id not in self._answered and name not in self._elsewhere:
                self.result(call_id, "interrupted", [Text(NOT_CALLED)])


def as_error(output: Sequence[Content]) -> Sequence[Content]:
    """The output of a tool that failed, told as such: AgentScope 2.x gives the exception's text alone."""
    first = output[0] if output else Text("")
    if not isinstance(first, Text):
        return (Text("Error: "), *output)
    return output if first.text.startswith("Error") else (Text(f"Error: {first.text}"), *output[1:])
