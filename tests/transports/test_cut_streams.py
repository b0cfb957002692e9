"""Sockets that break at any byte: what a client puts together, coming back until the end, equals the turn's log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom import AgentApp, AiohttpServer
from greenroom.transports.idempotency import HEADER
from greenroom.transports.sse import ServerEvent
from kits.cut_sockets import CutClient, Had

BASE = "/compatible-mode/v1"
DONE = "[DONE]"

pieces = st.lists(st.text(max_size=40), min_size=1, max_size=12)
cuts = st.lists(st.integers(1, 400) | st.integers(1, 3000), max_size=12)
ways = st.lists(st.sampled_from(["repeat", "follow"]), min_size=1, max_size=12)
bounded = settings(max_examples=40, deadline=None)


class Chapters:
    """Says pieces, and lets others run between them: the turn goes on while its readers come and go."""

    def __init__(self, said: list[str]) -> None:
        self._said = said
        self.times_asked = 0
        self.app = AgentApp("Chapters", drain_seconds=0)
        self.app.query()(self.answer)

    async def answer(self, msgs: Any) -> AsyncIterator[str]:
        self.times_asked += 1
        for piece in self._said:
            await asyncio.sleep(0.001)
            yield piece


class Reader:
    """A client that has been cut off, and knows what it has."""

    def __init__(self, client: CutClient) -> None:
        self.client = client
        self.had: list[ServerEvent] = []

    @property
    def over(self) -> bool:
        return bool(self.had) and self.had[-1].data == DONE

    async def go_on(self, way: str, cut: int | None) -> None:
        """Come back for the rest, and be cut off again."""
        raise NotImplementedError

    def text(self, ending: dict[str, Any]) -> str:
        """All that was said, by the stream's last event."""
        response = ending.get("response", ending)
        return "".join(part["text"] for message in response["output"] for part in message["content"])

    def add(self, had: Had) -> None:
        assert had.status in (0, 200)
        # The last frame has no id: what it is said to have is that of the frame before, if that came with it.
        self.had += [event if event.data != DONE else ServerEvent(DONE) for event in had.events]


class ProcessReader(Reader):
    """Sends its request again, or follows the turn, with the id of the last event it had."""

    request: ClassVar = {"input": [{"role": "user", "content": "go"}], "session_id": "s"}

    async def go_on(self, way: str, cut: int | None) -> None:
        headers = {"Last-Event-ID": self.had[-1].id} if self.had else {}
        if way == "repeat" or not self.had:
            answer = await self.client.ask("POST", "/process", {HEADER: "k", **headers}, self.request, cut)
        else:
            turn_id = msgspec.json.decode(self.had[0].data)["id"]
            answer = await self.client.ask("GET", f"/process/{turn_id}/events", headers, None, cut)
        self.add(answer)


class ResponsesReader(Reader):
    """Sends its request again until it knows the response's id; then it asks for what came after its last event."""

    request: ClassVar = {"input": "go", "stream": True, "session_id": "s"}

    async def go_on(self, way: str, cut: int | None) -> None:
        if not self.had:
            answer = await self.client.ask("POST", f"{BASE}/responses", {HEADER: "k"}, self.request, cut)
        else:
            first, last = (msgspec.json.decode(event.data) for event in (self.had[0], self.had[-1]))
            path = f"{BASE}/responses/{first['response']['id']}?stream=true"
            answer = await self.client.ask(
                "GET", f"{path}&starting_after={last['sequence_number']}", {}, None, cut
            )
        self.add(answer)


async def put_together(
    reader_of: type[Reader], said: list[str], at: list[int], by: list[str]
) -> tuple[Reader, Reader, Chapters]:
    """One reader that is cut off there and comes back in these ways; one that is not, afterwards."""
    chapters = Chapters(said)
    server = AiohttpServer(port=0)
    await chapters.app.start(server)
    try:
        cut, whole = (reader_of(CutClient(server.port)) for _ in range(2))
        for place, after in enumerate([*at, None]):
            if not cut.over:
                await cut.go_on(by[place % len(by)], after)
        assert cut.over
        await whole.go_on("repeat", None)
    finally:
        await chapters.app.stop()
    return cut, whole, chapters


@pytest.mark.parametrize("reader_of", [ProcessReader, ResponsesReader])
@given(said=pieces, at=cuts, by=ways)
@bounded
async def test_what_was_put_together_is_the_log(
    reader_of: type[Reader], said: list[str], at: list[int], by: list[str]
) -> None:
    cut, whole, chapters = await put_together(reader_of, said, at, by)
    assert cut.had == whole.had
    assert chapters.times_asked == 1
    events = [msgspec.json.decode(event.data) for event in cut.had[:-1]]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert cut.text(events[-1]) == "".join(said)
