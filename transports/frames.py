"""Following a turn as a protocol's frames: each event is encoded once, however many readers there are.

Rule 1: no I/O. A reader takes what there is when its connection has room; nothing is encoded before somebody takes it.
Rule 2: nothing is kept for readers that lag. Frames stay until all readers have passed them, up to `KEPT_FRAMES`; a
reader further back, one that comes late or rejoins, encodes its own from the log until it has caught up. The bytes are
the same: nothing but the turn and its events decides them.

A position is the number of the next frame a reader wants: the sequence number, and one more for `[DONE]`.

The protocol is an `Encoder`: `SharedFrames.of(log, ProcessEncoder).reader()` reads a log as `/process`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from greenroom.actors.errors import CursorExpired, InvalidRequest
from greenroom.actors.events import Event, TextDelta, TurnFailed
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import Turn
from greenroom.transports.sse import DONE, with_id

KEPT_FRAMES = 1024
"""A reader further behind the others is not waited for."""

RUN_EVENTS = 64
"""Events of a burst that are encoded at once, perhaps before all of them are taken."""

_ID_LINE_BYTES = len("id: 18446744073709551615\n")
_LEAST_BYTES = 128  # no numbered frame is shorter
_MOST_FRAMES = (
    16  # no delta makes more, also the first of a part, which some protocols open with frames of their own
)
_NO_END = 1 << 62
CATCHING_UP = 5.0
"""For so many seconds a log that is behind its turn may come to what a reader says it had. What is said is written down
within a quarter of a second, and seen within one."""
_READ_AGAIN = "drop what you have of it, and read it again from the beginning, without {}"
_POSITION = re.compile(r"[0-9]{1,18}", re.ASCII)


class Encoder(Protocol):
    """Encodes one turn. `number`: the next frame's, which is the count of frames so far, `[DONE]` included."""

    number: int

    def feed_all(self, events: Iterable[Event], frames: list[bytes]) -> None:
        """Append the frames that the events make; the turn's ending makes `sse.DONE` the last."""
        ...

    def skip(self, event: Event) -> None:
        """Go past an event whose frames nobody wants."""
        ...


class EncoderOf(Protocol):
    """What makes a turn's encoder: its class. It is also the name of the view that a log's readers of this protocol
    share."""

    def __call__(self, turn: Turn, /) -> Encoder:
        """An encoder of which nothing is written yet."""
        ...

    def whole(self, turn: Turn, events: Sequence[Event], /) -> list[bytes]:
        """All frames of a turn that has ended, as an encoder makes them event by event."""
        ...


class SharedFrames:
    """The frames of one turn that its readers share: those from `base` up to `tip` are held."""

    __slots__ = ("_encoder", "_frames", "_log", "encoder_of", "fed", "left", "readers")

    def __init__(self, log: TurnLog, encoder_of: EncoderOf) -> None:
        self._log = log
        self.encoder_of = encoder_of
        self._encoder = encoder_of(log.turn)
        self._frames: list[bytes] = []
        self.fed = 0
        """Events of the log that are encoded."""
        self.left = False
        """Whether the last cut left frames for want of room."""
        self.readers: list[FrameReader] = []

    def __repr__(self) -> str:
        return f"<SharedFrames {self.base} to {self.tip}, {len(self.readers)} readers>"

    @staticmethod
    def of(log: TurnLog, encoder_of: EncoderOf) -> SharedFrames:
        """Those of a log, made when first asked for."""
        shared = log.views.get(encoder_of)
        if not isinstance(shared, SharedFrames):
            shared = SharedFrames(log, encoder_of)
            log.views = {**log.views, encoder_of: shared}
        return shared

    def reader(self, position: int = 0, with_ids: bool = False) -> FrameReader:
        """Read the frames from `position` on. `with_ids`: each is preceded by its `id:` line.

        Without, a frame begins with `data: `, as clients that look at each chunk's beginning expect.
        Raises `TurnNotFound` when the log is no longer kept.
        """
        return FrameReader(self, self._log, position, with_ids)

    @property
    def base(self) -> int:
        """The number of the first frame that is held."""
        return self._encoder.number - len(self._frames)

    @property
    def tip(self) -> int:
        """The number the next frame will have."""
        return self._encoder.number

    def cut(self, first: int, size: int, stop: int | None = None) -> list[bytes]:
        """The frames from number `first` on, `size` bytes of them or a single larger one.

        Events are encoded as needed, up to the `stop`th if given. Raises `TurnNotFound`.
        """
        events = self._log.events()
        stop = len(events) if stop is None else stop
        frames = self._frames
        start = first - self._encoder.number + len(frames)
        room = size - sum(map(len, frames[start:]))
        while self.fed < stop and (room >= 0 or len(frames) - start < 2):
            held = len(frames)
            after = self.fed + 1
            if after < stop:
                after = min(after + max(room, 0) // _LEAST_BYTES, after + RUN_EVENTS, stop)
            self._encoder.feed_all(events[self.fed : after], frames)
            self.fed = after
            room -= sum(map(len, frames[held:]))
        self.left = room < 0 and len(frames) - start > 1
        return frames[start : self._fitting(start, room)] if self.left else frames[start:]

    def only_delta(self, reader: FrameReader) -> list[bytes] | None:
        """The frames of the one delta that has come since the reader took; none when more has, or something else.

        At a model's pace every token comes this way: alone, to one reader who has had all the others.
        """
        events = self._log.events()
        if len(events) - self.fed != 1 or reader.position != self._encoder.number:
            return None
        event = events[-1]
        if type(event) is not TextDelta or len(self.readers) != 1 or self.readers[0] is not reader:
            return None
        self.fed += 1
        frames: list[bytes] = []
        self._encoder.feed_all((event,), frames)
        return frames

    def _fitting(self, start: int, over: int) -> int:
        """Where to stop so that the frames from `start` on are not too large by `over` bytes (negative) any more."""
        end = len(self._frames)
        while over < 0 and end - start > 1:
            end -= 1
            over += len(self._frames[end])
        return end

    def skip_to(self, first: int) -> None:
        """Go on to frame `first`, or to the last there is, without keeping those before it."""
        encoder = self._encoder
        self.forget(first)
        for event in self._log.events()[self.fed :]:
            if encoder.number >= first:
                break
            self.fed += 1
            if type(event) is TextDelta and first - encoder.number >= _MOST_FRAMES:
                encoder.skip(event)
            else:
                encoder.feed_all((event,), self._frames)
                self.forget(first)

    def forget(self, first: int) -> None:
        """Let the frames before number `first` go."""
        frames = self._frames
        if (passed := first - self._encoder.number + len(frames)) > 0:
            del frames[:passed]

    def passed(self) -> None:
        """Let go what all readers have passed, and what those that lag too far would have the others keep."""
        if not self._frames:
            return
        tip = self._encoder.number
        if len(self.readers) == 1 and self.readers[0].position == tip:  # as after nearly every token
            self._frames.clear()
            return
        slowest = tip
        for reader in self.readers:
            slowest = min(slowest, reader.position)
        self.forget(max(slowest, tip - KEPT_FRAMES))


class FrameReader:
    """One reader's way through the frames of a turn. Close it when done, or it holds the others' frames back."""

    __slots__ = ("_log", "_own", "_shared", "_with_ids", "behind", "ended", "position")

    def __init__(self, shared: SharedFrames, log: TurnLog, position: int, with_ids: bool) -> None:
        self._log = log
        self._with_ids = with_ids
        self._shared = shared
        self._own: SharedFrames | None = None
        self.position = position
        self.ended = False
        """Whether `[DONE]` has been taken."""
        self.behind = False
        """Whether the last `take` left frames that there were."""
        if position > shared.tip and not shared.readers:
            shared.skip_to(position)
        shared.readers.append(self)

    def __repr__(self) -> str:
        return f"<FrameReader of {self._log.id} at {self.position}{' (done)' if self.ended else ''}>"

    def take(self, size: int) -> list[bytes]:
        """The next frames, up to `size` bytes or a single larger one; none when there are no more by now.

        Raises `TurnNotFound` when the log is no longer kept.
        """
        shared = self._shared
        if (frames := shared.only_delta(self)) is not None:
            self.position += len(frames)
            self.behind = False
            return self._numbered(frames) if self._with_ids else frames
        room = size if not self._with_ids else size - _ID_LINE_BYTES * (size // _LEAST_BYTES + 1)
        if self.position < shared.base:
            frames = self._catch_up(room)
        else:
            if self._own is not None:
                self._own = None
                shared.readers.append(self)
            frames = shared.cut(self.position, room)
            self.behind = shared.left
            if not frames:
                return frames
            self.position += len(frames)
            shared.passed()
        if frames and frames[-1] is DONE:
            self.ended = True
        return self._numbered(frames) if self._with_ids else frames

    def _catch_up(self, size: int) -> list[bytes]:
        self.behind = True
        shared = self._shared
        if self._own is None:
            shared.readers.remove(self)
            shared.passed()
            self._own = SharedFrames(self._log, shared.encoder_of)
            self._own.skip_to(self.position)
        frames = self._own.cut(self.position, size, shared.fed)
        self.position += len(frames)
        self._own.forget(self.position)
        return frames

    def _numbered(self, frames: list[bytes]) -> list[bytes]:
        return numbered(frames, self.position - len(frames))

    def close(self) -> None:
        """Read no more. Doing it twice is fine."""
        shared = self._shared
        if self in shared.readers:
            shared.readers.remove(self)
        shared.passed()
        self._own = None
        if self._log.terminal is not None and not shared.readers:
            log, own = self._log, shared.encoder_of
            log.views = {view: frames for view, frames in log.views.items() if view is not own}


def numbered(frames: list[bytes], first: int = 0) -> list[bytes]:
    """The frames, each but `[DONE]` with its `id:` line. `first`: the first one's number."""
    return [frame if frame is DONE else with_id(number, frame) for number, frame in enumerate(frames, first)]


def number_in(last_event_id: str) -> int:
    """The number of the frame it names. Raises `InvalidRequest`."""
    if not _POSITION.fullmatch(last_event_id):
        raise InvalidRequest(
            "Last-Event-ID must be the sequence_number of the last event received, such as 17",
            field="Last-Event-ID",
        )
    return int(last_event_id)


async def resume(last_event_id: str, log: TurnLog, encoder_of: EncoderOf) -> int:
    """Where a reader goes on that has had frames up to `last_event_id`; an empty one has had none.

    Raises `InvalidRequest` for what is no number, and as `position_after`.
    """
    if not last_event_id:
        return 0
    return await position_after(number_in(last_event_id), log, encoder_of, "Last-Event-ID")


async def position_after(
    last: int, log: TurnLog, encoder_of: EncoderOf, field: str, *, patience: float = CATCHING_UP
) -> int:
    """Where a reader goes on that has had frames up to number `last`. A log that is behind its turn is given time.

    Raises `InvalidRequest`, naming `field`, for the number of no frame yet; `CursorExpired` when it is not certain that
    the frames the reader had are those of the log; `TurnNotFound` when that is no longer kept.
    """
    position = last + 1
    if log.behind:
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await _caught_up(log, encoder_of, position)
    _check_same(log, encoder_of, position, field)
    tip = frames_out(log, encoder_of, enough=position)
    if position <= tip:
        return position
    if log.behind or _was_cut(log):
        raise CursorExpired(
            f"event {last} of turn {log.id} is not written down, and lost if the process that said it is gone: what is "
            f"kept ends with number {tip - 1}; {_READ_AGAIN.format(field)}",
            field=field,
        )
    raise InvalidRequest(
        f"{field} is {last}, but the last event of turn {log.id} is {tip - 1}; "
        "leave it out to read from the beginning",
        field=field,
    )


async def _caught_up(log: TurnLog, encoder_of: EncoderOf, frames: int) -> None:
    """Wait until a log that is behind its turn has so many frames, or it is known whether it will."""
    more = asyncio.Event()
    log.watch(more.set)
    try:
        while log.terminal is None and log.taken_at is None:
            if frames_out(log, encoder_of, enough=frames) >= frames:
                return
            more.clear()
            await more.wait()
    finally:
        log.unwatch(more.set)


def _check_same(log: TurnLog, encoder_of: EncoderOf, position: int, field: str) -> None:
    """Raises `CursorExpired`, naming `field`, when the reader may have had other frames under numbers before
    `position`, from a process that ended before it wrote them down."""
    if log.taken_at is None:
        return
    same = encoder_of(log.turn)
    same.feed_all(log.events()[: log.taken_at], [])
    if position > same.number:
        raise CursorExpired(
            f"a process that worked on turn {log.id} ended before what it said last was written down: events after "
            f"number {same.number - 1} may be others than those you had; {_READ_AGAIN.format(field)}",
            field=field,
        )


def _was_cut(log: TurnLog) -> bool:
    """Whether a process ended that may have said more, as logs tell that do not know `taken_at`."""
    return isinstance(log.terminal, TurnFailed) and log.terminal.error.code == "turn_interrupted"


def frames_out(log: TurnLog, encoder_of: EncoderOf, enough: int = _NO_END) -> int:
    """How many numbered frames the turn has by now; counting may stop at `enough`. Raises `TurnNotFound`."""
    shared = log.views.get(encoder_of)
    if isinstance(shared, SharedFrames) and enough < shared.tip:
        return enough
    counted = SharedFrames(log, encoder_of)
    counted.skip_to(_NO_END)
    return counted.tip - (1 if log.terminal is not None else 0)
