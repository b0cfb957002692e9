"""What boxes can do to the process that the filter runs in: hold up its loop, use up its file descriptors."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import anyio
import pytest

from greenroom.sandbox.egress.addresses import read_host
from greenroom.sandbox.egress.bodies import Body
from greenroom.sandbox.egress.dial import LOOKUP_THREADS, dial, is_own
from greenroom.sandbox.egress.filter import LAST_WORDS, LOOKUPS_AT_A_TIME, EgressFilter, EgressLimits
from greenroom.sandbox.egress.refusal import Refusal
from greenroom.sandbox.egress.relay import TURN_BYTES, understood
from greenroom.sandbox.egress.rules import Route, Target
from greenroom.sandbox.settings import EgressRules, SandboxSettings
from kits.until import until

CHUNKS = b"1\r\nx\r\n" * 10_000


async def test_of_bodies_in_chunks_one_piece_is_read_in_a_round_of_the_loop() -> None:
    turn, uploads = anyio.Lock(), 20
    rounds = 0

    async def count() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    async def upload() -> None:
        assert await understood(Body("chunked"), CHUNKS, turn) == CHUNKS

    counting = asyncio.create_task(count())
    async with anyio.create_task_group() as group:
        for _ in range(uploads):
            group.start_soon(upload)
    counting.cancel()
    assert rounds >= uploads * len(CHUNKS) // TURN_BYTES


async def test_a_box_that_opens_more_connections_than_it_may_holds_few_file_descriptors(
    tmp_path: Path,
) -> None:
    limits = EgressLimits(connections=3, connections_a_second=10_000)
    path = tmp_path / "egress.sock"
    async with EgressFilter(EgressRules(), limits=limits).listen(path, "lease-1") as listener:
        held = [await asyncio.open_unix_connection(path) for _ in range(40)]
        await until(lambda: listener.statistics().open == 3 + LAST_WORDS)
        await asyncio.sleep(0.05)
        assert listener.statistics().accepted == 3 + LAST_WORDS
        for _, writer in held:
            writer.transport.abort()
        await until(lambda: listener.statistics().accepted == 40 and not listener.statistics().open)


@contextmanager
def no_file_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_an_address_that_cannot_be_judged_is_not_connected_to() -> None:
    loopback = ip_address("127.0.0.1")
    assert is_own(loopback)
    target = Target(read_host("shop.test"), 443)
    with no_file_descriptors(), pytest.raises(OSError, match="Too many open files"):
        is_own(loopback)
    with no_file_descriptors(), pytest.raises(Refusal, match=r"shop\.test:443 cannot be reached"):
        await dial(target, Route([loopback], 443))


def test_slow_names_of_many_boxes_leave_threads_for_others() -> None:
    assert LOOKUPS_AT_A_TIME * SandboxSettings().boxes < LOOKUP_THREADS
