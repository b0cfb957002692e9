"""What arrives in pieces: a data block's fragments, a tool's output."""

from __future__ import annotations

from collections.abc import Sequence

from greenroom.actors.composer import OutputDraft
from greenroom.actors.frameworks.agentscope2_blocks import join_base64, part_of
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

    __slots__ = ("_draft", "_due", "_parts", "_size")

    def __init__(self, draft: OutputDraft) -> None:
        self._draft = draft
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

    def data(self, block: str, media_type: str, data: str | None, url: str | None) -> int:
        """More data; the size of what was added, in characters."""
        last = self._parts[-1] if self._parts else None
        if not (isinstance(last, tuple) and last[0] == block):
            last = (block, Fragments(media_type))
            self._parts.append(last)
        size = last[1].add(data, url)
        self._grown(size)
        return size

    def done(self, state: str, output: Sequence[Content] | None = None) -> None:
        """It is complete; `output` overrules what came in pieces. A `state` other than success stands with it."""
        if state != "success":
            self._draft.metadata = {"state": state}
        self._draft.done(self._so_far() if output is None else output)

    def _grown(self, size: int) -> None:
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
