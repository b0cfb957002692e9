"""The rows about the browser sandbox: how soon a session has its browser, how fast its tools are, what it costs.

These goals are times and not ratios: what is waited for is Chromium, of which there is no bare version to compare with.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from aiohttp import web
from msgspec import structs

from benchmarks.rows import Row, at_most, skipped, spread
from greenroom.actors.errors import GreenroomError
from greenroom.sandbox.backend import Backend
from greenroom.sandbox.docker.backend import DockerBackend
from greenroom.sandbox.keeper import Keeper
from greenroom.sandbox.leases import LeaseKey
from greenroom.sandbox.local.backend import LocalBackend
from greenroom.sandbox.settings import EgressRules, SandboxSettings

MIB = 1024 * 1024
TOGETHER = 10
STEP_SECONDS = 0.001
"""How often the loop's lag is looked at."""

ROWS = "".join(f"<tr><td>Row {n}</td><td><a href='#{n}'>open {n}</a></td></tr>" for n in range(30))
PAGE = (
    f"<!doctype html><title>Rows</title><table>{ROWS}</table><button onclick='this.textContent++'>0</button>"
)

BACKENDS: dict[str, Callable[[SandboxSettings], Backend]] = {"docker": DockerBackend, "local": LocalBackend}


def sandbox_rows(rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Both backends, those that there are here."""
    return asyncio.run(_all_rows(rounds, say))


async def _all_rows(rounds: int, say: Callable[[str], None]) -> list[Row]:
    rows: list[Row] = []
    async with _page() as url:
        address = url.removeprefix("http://").rstrip("/")
        egress = EgressRules(private=(address,))
        settings = structs.replace(SandboxSettings.from_environ(), egress=egress, boxes=TOGETHER + 2, warm=0)
        for name, new in BACKENDS.items():
            say(f"sandbox, {name}")
            try:
                rows += await _Bench(name, new, settings, url, rounds).rows()
            except GreenroomError as error:
                rows.append(skipped(f"sandbox, {name}", "", str(error)))
    return rows


class _Bench:
    """One backend."""

    def __init__(
        self,
        name: str,
        new: Callable[[SandboxSettings], Backend],
        settings: SandboxSettings,
        url: str,
        rounds: int,
    ) -> None:
        self._name = name
        self._new = new
        self._settings = settings
        self._url = url
        self._rounds = rounds

    async def rows(self) -> list[Row]:
        cold, snapshots, clicks = await self._cold_and_tools()
        warm = await self._warm()
        lags, together = await self._together()
        memory = await self._memory()
        name = self._name
        p99 = quantiles(lags, n=100)[-1] * 1000
        return [
            _seconds(f"{name}: connect to first navigate done, cold", 1.5, cold),
            _seconds(f"{name}: the same from the warm pool", 0.1, warm),
            _milliseconds(f"{name}: snapshot of a page of 30 rows", 60, snapshots),
            _milliseconds(f"{name}: click with its snapshot", 80, clicks),
            at_most(
                f"{name}: lag of the loop while {TOGETHER} sessions start together, p99",
                20,
                p99,
                f"most {max(lags) * 1000:.0f} ms; all had navigated after {together:.1f} s",
                " ms",
            ),
            *([] if memory is None else [at_most(f"{name}: memory of an idle box", 210, memory, "", " MiB")]),
        ]

    @asynccontextmanager
    async def _keeper(self, **changes: Any) -> AsyncIterator[Keeper]:
        settings = structs.replace(self._settings, **changes)
        keeper = Keeper(self._new(settings), settings)
        await keeper.start()
        try:
            yield keeper
        finally:
            await keeper.stop()

    async def _navigate(self, keeper: Keeper, key: LeaseKey) -> float:
        return await _timed(lambda: self._call(keeper, key, "browser_navigate", url=self._url))

    async def _call(self, keeper: Keeper, key: LeaseKey, tool: str, **arguments: Any) -> str:
        result = await keeper.call(key, tool, arguments)
        assert not result.is_error, result.text
        return result.text

    async def _cold_and_tools(self) -> tuple[list[float], list[float], list[float]]:
        cold, snapshots, clicks = [], [], []
        async with self._keeper() as keeper:
            for number in range(self._rounds + 1):
                key = _key(f"cold {number}")
                cold.append(await self._navigate(keeper, key))
                for _ in range(5):
                    snapshots.append(await _timed(lambda: self._call(keeper, key, "browser_snapshot")))  # noqa: B023
                    clicks.append(await self._click(keeper, key))
                await keeper.release(key)
        return cold[1:], snapshots[5:], clicks[5:]

    async def _click(self, keeper: Keeper, key: LeaseKey) -> float:
        shown = await self._call(keeper, key, "browser_snapshot")
        line = next(line for line in shown.splitlines() if "button" in line)
        ref = line.partition("[ref=")[2].partition("]")[0]
        return await _timed(lambda: self._call(keeper, key, "browser_click", element="the button", ref=ref))

    async def _warm(self) -> list[float]:
        times = []
        async with self._keeper(warm=1) as keeper:
            for number in range(self._rounds):
                await _until(lambda: keeper.statistics().warm == 1)
                times.append(await self._navigate(keeper, _key(f"warm {number}")))
                await keeper.release(_key(f"warm {number}"))
        return times

    async def _together(self) -> tuple[list[float], float]:
        async with self._keeper() as keeper:
            lags: list[float] = []
            looking = asyncio.create_task(_look_at_lag(lags))
            start = time.perf_counter()
            await asyncio.gather(
                *(self._navigate(keeper, _key(f"together {number}")) for number in range(TOGETHER))
            )
            took = time.perf_counter() - start
            looking.cancel()
            await asyncio.wait([looking])
        return lags, took

    async def _memory(self) -> float | None:
        """What a box that has shown the page holds, in MiB, as its control group counts: with what of the page cache is
        in use, as `docker stats` shows it."""
        if os.geteuid() != 0:
            return None  # others' processes cannot be looked into
        async with self._keeper() as keeper:
            key = _key("idle")
            await self._navigate(keeper, key)
            found = await keeper.call(key, "run_shell_command", {"command": "readlink /proc/self/ns/pid"})
            await asyncio.sleep(2)
            return _group_memory(found.part("stdout").strip())


def _key(name: str) -> LeaseKey:
    return LeaseKey("benchmark", name, "browser")


async def _timed(call: Callable[[], Awaitable[object]]) -> float:
    start = time.perf_counter()
    await call()
    return time.perf_counter() - start


async def _until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.05)


async def _look_at_lag(lags: list[float]) -> None:
    while True:
        start = time.perf_counter()
        await asyncio.sleep(STEP_SECONDS)
        lags.append(time.perf_counter() - start - STEP_SECONDS)


def _group_memory(namespace: str) -> float | None:
    """Of the control group whose processes are in this namespace; none: they are not in one that counts."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "ns" / "pid").readlink() != Path(namespace):
                continue
            lines = (process / "cgroup").read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        groups = {names: path for _, names, path in (line.split(":", 2) for line in lines)}
        if "memory" in groups:
            return _held(
                Path(f"/sys/fs/cgroup/memory{groups['memory']}"),
                "memory.usage_in_bytes",
                "total_inactive_file",
            )
        return _held(Path(f"/sys/fs/cgroup{groups['']}"), "memory.current", "inactive_file")
    return None


def _held(group: Path, file: str, inactive: str) -> float | None:
    if not (group / file).exists():
        return None
    counts = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
    return (int((group / file).read_text(encoding="ascii")) - int(counts[inactive])) / MIB


@asynccontextmanager
async def _page() -> AsyncIterator[str]:
    async def show(_: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", show)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def _seconds(what: str, goal: float, values: Sequence[float]) -> Row:
    return at_most(what, goal, median(values), spread(values, " s"), " s")


def _milliseconds(what: str, goal: float, values: Sequence[float]) -> Row:
    values = [value * 1000 for value in values]
    return at_most(what, goal, median(values), spread(values, " ms"), " ms")
