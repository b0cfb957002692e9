"""A client of `/process` that follows the protocol through everything that may happen to a server: it sends a turn
again, with the same id, until it is acknowledged, and comes back with `Last-Event-ID` until it has seen the ending.
"""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from kits.http_client import body

PAUSE = 0.05
ENDED = ("completed", "failed", "canceled")
REFUSALS = {429, 502, 503, 504}
"""Answers after which a client tries again."""


@dataclass
class Told:
    """What a client knows of a turn."""

    id: str
    session: str
    acknowledged: bool = False
    """Whether any answer said that it was accepted."""
    frames: list[dict[str, Any]] = field(default_factory=list)
    """Its events, by their numbers."""
    trouble: list[str] = field(default_factory=list)
    """What a client that does not follow the protocol would have noticed."""
    more: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    """Set with each event."""

    @property
    def status(self) -> str:
        """How it ended."""
        return str(self.frames[-1].get("status"))

    @property
    def last(self) -> dict[str, Any]:
        """The last event."""
        return self.frames[-1]


async def turn(urls: list[str], told: Told, text: str, seconds: float = 60.0) -> Told:
    """See a turn through. `urls`: servers, any of which may be asked."""
    async with asyncio.timeout(seconds), aiohttp.ClientSession() as client:
        while not _ended(told):
            url = random.choice(urls)
            try:
                if told.acknowledged:
                    await _rejoin(client, url, told)
                else:
                    await _post(client, url, told, text)
            except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
                told.trouble.append(f"{type(error).__name__}: {error}")
            if not _ended(told):
                await asyncio.sleep(PAUSE)
    return told


async def once(url: str, told: Told, text: str) -> None:
    """Ask for a turn, and not again when it is refused: one that is acknowledged is seen through."""
    async with aiohttp.ClientSession() as client:
        await _post(client, url, told, text)
    if told.acknowledged:
        await turn([url], told, text)


def _ended(told: Told) -> bool:
    return bool(told.frames) and told.last.get("object") == "response" and told.status in ENDED


async def _post(client: aiohttp.ClientSession, url: str, told: Told, text: str) -> None:
    request = body(text, told.session, id=told.id)
    async with client.post(f"{url}/process", json=request) as answer:
        if await _refused(answer, told):
            return
        told.acknowledged = True
        await _read(answer, told)


async def _rejoin(client: aiohttp.ClientSession, url: str, told: Told) -> None:
    headers = {"Last-Event-ID": str(told.last["sequence_number"])} if told.frames else {}
    async with client.get(f"{url}/process/{told.id}/events", headers=headers) as answer:
        if (
            answer.status == 410
        ):  # a crash took what had been said but not written: what there is, from the beginning
            told.frames.clear()
            told.trouble.append(await answer.text())
            return
        if not await _refused(answer, told):
            await _read(answer, told)


async def _refused(answer: aiohttp.ClientResponse, told: Told) -> bool:
    if answer.status in REFUSALS:
        assert "Retry-After" in answer.headers or answer.status in (502, 504), (
            f"{answer.status} without Retry-After"
        )
        told.trouble.append(f"{answer.status}: {await answer.text()}")
        return True
    if answer.status != 200:
        raise AssertionError(f"{answer.status} for turn {told.id}: {await answer.text()}")
    return False


async def _read(answer: aiohttp.ClientResponse, told: Told) -> None:
    async for raw in answer.content:
        line = raw.decode().rstrip("\r\n")
        if line.startswith("data: {"):
            frame = json.loads(line.removeprefix("data: "))
            expected = told.last["sequence_number"] + 1 if told.frames else 0
            assert frame["sequence_number"] == expected, f"{frame['sequence_number']} after {expected - 1}"
            told.frames.append(frame)
            told.more.set()
