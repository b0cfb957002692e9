"""What a request asks the servers for: so many deltas, so far apart. The request's text says it, as `"50 0.02"`."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

DELTA = "abcdefghij klmnopqr "
"""What a delta says: 20 characters, a few tokens of a model."""

Spoken: TypeAlias = Literal["process", "responses"]


class Protocol(Struct, frozen=True):
    """What is asked where, and what the answer's stream is made of.

    `around`: the frames besides the deltas. `begins`: how each frame begins but the last, `[DONE]`; `delta`: what only
    the deltas' have.
    """

    path: str
    around: int
    begins: bytes
    delta: str


PROTOCOLS: dict[Spoken, Protocol] = {
    # Response created and in progress, message open, content, message, response, `[DONE]`.
    "process": Protocol("/process", 7, b"data: ", '"delta":true'),
    # Response created and in progress, item and part added, text, part and item done, response completed, `[DONE]`.
    "responses": Protocol(
        "/compatible-mode/v1/responses", 9, b"event: ", '"type":"response.output_text.delta"'
    ),
}


class Plan(Struct, frozen=True):
    """One kind of request. `pause`: seconds between deltas; `spoken`: its protocol."""

    deltas: int
    pause: float = 0.0
    spoken: Spoken = "process"

    @property
    def protocol(self) -> Protocol:
        """What is particular about how it is asked and answered."""
        return PROTOCOLS[self.spoken]

    @property
    def text(self) -> str:
        """The plan as the words of a message."""
        return f"{self.deltas} {self.pause:g}"

    @property
    def body(self) -> bytes:
        """The plan as a request's body. It names no session, so each request has a new one."""
        if self.spoken == "responses":
            return msgspec.json.encode({"model": "any", "input": self.text, "stream": True})
        return msgspec.json.encode(
            {"input": [{"role": "user", "content": [{"type": "text", "text": self.text}]}]}
        )

    @property
    def frames(self) -> int:
        """How many frames, each a chunk of its own, the answer has."""
        return self.deltas + self.protocol.around


def plan_of(text: str) -> Plan:
    """The plan that a message's words say, by whatever protocol it came."""
    deltas, pause = text.split()
    return Plan(int(deltas), float(pause))


class Recording(Struct):
    """A real answer of ours: what the bare handler answers to the same request."""

    plan: Plan
    headers: dict[str, str]
    frames: list[str]
