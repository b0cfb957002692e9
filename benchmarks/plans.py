"""What a request asks the servers for: so many deltas, so far apart. The request's text says it, as `"50 0.02"`."""

from __future__ import annotations

import msgspec
from msgspec import Struct

DELTA = "abcdefghij klmnopqr "
"""What a delta says: 20 characters, a few tokens of a model."""

FRAMES_AROUND = 7
"""Frames besides the deltas: response created and in progress, message open, content, message, response, `[DONE]`."""


class Plan(Struct, frozen=True):
    """One kind of request. `pause`: seconds between deltas."""

    deltas: int
    pause: float = 0.0

    @property
    def text(self) -> str:
        """The plan as the words of a message."""
        return f"{self.deltas} {self.pause:g}"

    @property
    def body(self) -> bytes:
        """The plan as a request's body. It names no session, so each request has a new one."""
        return msgspec.json.encode(
            {"input": [{"role": "user", "content": [{"type": "text", "text": self.text}]}]}
        )

    @property
    def frames(self) -> int:
        """How many frames, each a chunk of its own, the answer has."""
        return self.deltas + FRAMES_AROUND


def plan_of(text: str) -> Plan:
    """The plan that a message's words say."""
    deltas, pause = text.split()
    return Plan(int(deltas), float(pause))


class Recording(Struct):
    """A real answer of ours: what the bare handler answers to the same request."""

    plan: Plan
    headers: dict[str, str]
    frames: list[str]
