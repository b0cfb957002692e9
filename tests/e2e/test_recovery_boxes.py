"""Servers whose sessions have real boxes, and whose store is killed or stands still while these are in use: each box
has a lease or is gone, each session has the one box it had, and nothing of any of them is left at the end."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from anyio import to_thread

from greenroom.sandbox.local.processes import Process, alive, tree
from kits.durable_servers import Site, free_port
from kits.failing_stores import Store
from kits.needs import needs_bubblewrap
from kits.preloaded import Preloaded
from kits.recovery_kit import (
    LONG,
    LOST,
    SHORT,
    completed,
    failures,
    more,
    not_interrupted,
    refusing,
    seen_through,
    text_of,
)
from kits.rejoining import Told, turn
from kits.server_process import ServerProcess
from kits.site import site as pages_at
from kits.until import until, until_answered

pytestmark = pytest.mark.slow

TEXT = "use nap:0.2 use"
FORM = "<title>Form</title><label>Your name <input id=name></label>"


@pytest_asyncio.fixture
async def with_boxes(store: Store, preloaded: Preloaded, tmp_path: Path) -> AsyncIterator[Site]:
    """Servers on that store, whose sessions have boxes."""
    needs_bubblewrap()
    with tempfile.TemporaryDirectory(prefix="gr-") as folder:
        Path(folder).chmod(0o711)
        site = Site(tmp_path, store.url, preloaded, Path(folder))
        yield site
        await site.end()


async def below(server: ServerProcess) -> set[Process]:
    """The processes of its boxes."""
    found = await to_thread.run_sync(tree, server.process.pid)
    return {Process(stat.pid, stat.started) for stat in found[1:]}


async def each_box_has_a_lease(site: Site) -> None:
    """Nothing is under way: before long there are as many as leases, and they are theirs."""

    async def so() -> bool:
        leases, left = await site.leases(), site.left_of_boxes()
        written = [Path(name).stem for name in left.get("local", ())]
        return bool(leases) and set(left.get("boxes", ())) == set(written) == leases

    await until_answered(so)


def used_one_box(turns: Sequence[Told]) -> None:
    """Each session's box has counted all its uses, from the first one."""
    uses: defaultdict[str, list[int]] = defaultdict(list)
    for told in turns:
        if told.status == "completed":
            uses[told.session] += map(int, text_of(told).split()[1:])
    for session, counts in uses.items():
        assert sorted(counts) == list(range(1, len(counts) + 1)), f"{session} has had several boxes: {counts}"


async def nothing_left(site: Site, turns: list[Told], processes: set[Process]) -> None:
    """The servers have stopped."""
    await site.check(turns)
    assert processes
    assert not await to_thread.run_sync(lambda: [process for process in processes if alive(process)])


async def test_a_store_that_is_killed_while_boxes_are_made_and_held(store: Store, with_boxes: Site) -> None:
    site = with_boxes

    async def fault(server: ServerProcess, turns: list[Told]) -> None:
        async with asyncio.TaskGroup() as clients:
            held, *new = [Told(f"turn_{name}", name) for name in ("held", "new_1", "new_2", "new_3")]
            turns += [held, *new]
            clients.create_task(turn([server.url], held, "use nap:3 use"))
            await until(lambda: bool(site.used()[held.id]))
            for told in new:
                clients.create_task(turn([server.url], told, TEXT))
                await until(lambda told=told: bool(site.begun()[told.id]))  # type: ignore[misc]
                await to_thread.run_sync(store.kill)
                async with refusing(server, turns, TEXT):
                    await to_thread.run_sync(store.start)
                await more(completed, turns, 3)

    server = await site.server(free_port(), DURABLE_LEASE=LONG)
    turns = await seen_through(server, fault, TEXT)
    await each_box_has_a_lease(site)
    processes = await below(server)
    assert await server.stop() == 0
    assert failures(turns) == []
    used_one_box(turns)
    await nothing_left(site, turns, processes)


async def test_a_store_that_stands_still_for_longer_than_the_leases(store: Store, with_boxes: Site) -> None:
    site = with_boxes

    async def fault(server: ServerProcess, turns: list[Told]) -> None:
        store.send(signal.SIGSTOP)
        await until(lambda: LOST in server.log)
        async with refusing(server, turns, TEXT):
            store.send(signal.SIGCONT)

    server = await site.server(free_port(), DURABLE_LEASE=SHORT)
    turns = await seen_through(server, fault, TEXT)
    await each_box_has_a_lease(site)
    processes = await below(server)
    assert await server.stop() == 0
    assert not_interrupted(turns) == []
    await nothing_left(site, turns, processes)


async def test_a_server_that_is_killed_while_its_store_is_away(store: Store, with_boxes: Site) -> None:
    site, port = with_boxes, free_port()
    server = await site.server(port)
    turns = [Told(f"turn_{number}", f"s{number}") for number in range(3)]
    clients = [asyncio.create_task(turn([server.url], told, "use hold")) for told in turns]
    await until(lambda: len(site.used()) == len(turns))
    processes = await below(server)
    await to_thread.run_sync(store.kill)
    assert await server.stop(signal.SIGKILL) == -signal.SIGKILL
    await to_thread.run_sync(store.start)
    server = await site.server(port)
    await asyncio.gather(*clients)
    assert [told.last["error"]["code"] for told in turns] == ["turn_interrupted"] * 3

    async def gone() -> bool:
        return not await site.leases()

    await until_answered(gone)
    assert not site.left_of_boxes().get("boxes")
    again = [
        await turn([server.url], Told(f"turn_again_{number}", f"s{number}"), "use") for number in range(3)
    ]
    await each_box_has_a_lease(site)
    processes |= await below(server)
    assert await server.stop() == 0
    assert [text_of(told) for told in again] == ["1 lost 1"] * 3
    await nothing_left(site, [*turns, *again], processes)


@pytest_asyncio.fixture
async def page() -> AsyncIterator[str]:
    """A page that boxes may open."""
    async with pages_at({"/form": FORM}) as pages:
        yield pages("/form")


def address_of(page: str) -> str:
    return page.removeprefix("http://").removesuffix("/form")


async def test_a_page_stays_open_when_the_store_is_killed(store: Store, with_boxes: Site, page: str) -> None:
    site = with_boxes
    server = await site.server(free_port(), DURABLE_LEASE=LONG, DURABLE_PAGES=address_of(page))
    opened = await turn([server.url], Told("turn_open", "s"), f"open:{page} write:Ann")
    assert opened.status == "completed", opened.last
    holding, looking = Told("turn_holding", "held"), Told("turn_look", "s")
    async with asyncio.TaskGroup() as clients:
        clients.create_task(turn([server.url], holding, f"open:{page} write:Bob nap:1 look"))
        await until(lambda: site.used()[holding.id] == 2)
        await to_thread.run_sync(store.kill)
        clients.create_task(turn([server.url], looking, "look"))
        await until(lambda: bool(looking.trouble))
        await to_thread.run_sync(store.start)
    assert "Ann" in text_of(looking)
    assert "lost" not in text_of(looking)
    assert text_of(holding).count("Bob") >= 2
    await each_box_has_a_lease(site)
    processes = await below(server)
    assert await server.stop() == 0
    await nothing_left(site, [opened, holding, looking], processes)


async def test_a_page_that_is_lost_with_its_server_while_the_store_is_away_is_missed_in_words(
    store: Store, with_boxes: Site, page: str
) -> None:
    site, port = with_boxes, free_port()
    server = await site.server(port, DURABLE_PAGES=address_of(page))
    opened = Told("turn_open", "s")
    asking = asyncio.create_task(turn([server.url], opened, f"open:{page} write:Ann hold"))
    await until(lambda: site.used()[opened.id] == 2)
    processes = await below(server)
    await to_thread.run_sync(store.kill)
    assert await server.stop(signal.SIGKILL) == -signal.SIGKILL
    await to_thread.run_sync(store.start)
    server = await site.server(port, DURABLE_PAGES=address_of(page))
    await asking
    assert opened.last["error"]["code"] == "turn_interrupted"
    looking = await turn([server.url], Told("turn_look", "s"), "look")
    said = text_of(looking)
    assert said.startswith("1 lost, as ")
    assert "process" in said.partition("\n")[0]
    assert "Ann" not in said
    again = await turn([server.url], Told("turn_again", "s"), f"open:{page}")
    assert "Form" in text_of(again)
    await each_box_has_a_lease(site)
    processes |= await below(server)
    assert await server.stop() == 0
    await nothing_left(site, [opened, looking, again], processes)
