"""Connections that send what is large in parts, so that the loop does other things between them.

redis-py joins all of a command and gives it to the socket in one step, which of 100 MB takes some tenths of a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as LinkBroken

PART: Final = 256 * 1024
"""Bytes that are sent in one step."""


@cache
def sending_in_parts(connection: type[AbstractConnection]) -> type[AbstractConnection]:
    """Such connections, of that kind."""

    class InParts(connection):  # type: ignore[misc, valid-type]
        """A connection that sends in parts."""

        async def send_packed_command(
            self, command: bytes | str | Iterable[bytes], check_health: bool = True
        ) -> None:
            """Send a command that was packed; large ones in parts. One that is given up takes the connection along."""
            if not isinstance(command, list) or sum(map(len, command)) <= PART:
                await super().send_packed_command(command, check_health)
                return
            parts = parts_of(command)
            await super().send_packed_command(next(parts), check_health)
            try:
                for part in parts:
                    await asyncio.sleep(0)
                    if (
                        not self.is_connected
                    ):  # it would connect anew, and send the rest as if it were a command
                        raise LinkBroken("the connection was closed while a command was sent")
                    await super().send_packed_command(part, check_health=False)
            except BaseException:
                await self.disconnect(nowait=True)
                raise

    return InParts


def parts_of(command: list[bytes]) -> Iterator[list[Any]]:
    """What is sent one after the other: bytes and views of bytes, of no more than `PART` bytes together."""
    part: list[Any] = []
    room = PART
    for value in command:
        view = memoryview(value)
        while len(view) > room:
            part.append(view[:room])
            yield part
            view, part, room = view[room:], [], PART
        part.append(view)
        room -= len(view)
    yield part
