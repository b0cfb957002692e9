"""The rows about serving: two server processes, ours and the bare one, take turns at the same load."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

import msgspec
from msgspec import Struct

from benchmarks.load import Client, Crowd, crowd, rate, record
from benchmarks.plans import Plan, Recording, Spoken
from benchmarks.rows import Row, at_least, at_most, spread
from benchmarks.servers import Server, running

CONNECTIONS = 16
GOALS: dict[Spoken, dict[int, float]] = {
    "process": {1: 1.1, 10: 1.4, 100: 3.5, 1000: 5.0},
    "responses": {10: 1.4, 100: 3.5, 1000: 5.0},
}
NOT_COPIED = {"date", "server", "transfer-encoding"}
"""Headers that aiohttp writes for the bare handler too."""


class Effort(Struct, frozen=True):
    """How long and how often. `seconds`: of one slice of requests; `streams`: in the crowds and the waiting room."""

    rounds: int
    seconds: float
    crowd_rounds: int
    crowds: tuple[int, int]
    waiting: int


FULL = Effort(rounds=9, seconds=0.7, crowd_rounds=5, crowds=(1000, 5000), waiting=2000)
QUICK = Effort(rounds=2, seconds=0.3, crowd_rounds=1, crowds=(1000, 1000), waiting=300)
SMALL, LARGE = Plan(50, 0.02), Plan(50, 0.2)
WAITING = Plan(2, 3600.0)


class Pair(Struct, frozen=True):
    """The two servers."""

    ours: Server
    bare: Server


@contextlib.contextmanager
def pair(plans: Sequence[Plan]) -> Iterator[Pair]:
    """Both servers. What the bare one answers to the plans was recorded from ours just before."""
    with running("serve_target") as ours, tempfile.TemporaryDirectory() as folder:
        recordings = Path(folder, "recordings.json")
        recordings.write_bytes(msgspec.json.encode([_recording(ours, plan) for plan in plans]))
        with running("bare", str(recordings)) as bare:
            for plan in plans:
                _check_same(ours, bare, plan)
            yield Pair(ours, bare)


def _recording(server: Server, plan: Plan) -> Recording:
    answer = record(server.port, msgspec.structs.replace(plan, pause=0.0))
    headers = {name: value for name, value in answer.headers.items() if name not in NOT_COPIED}
    return Recording(plan, headers, [chunk.decode() for chunk in answer.chunks])


def _check_same(ours: Server, bare: Server, plan: Plan) -> None:
    if plan.pause:
        return  # the frames are those of the same plan without pauses
    one, other = record(ours.port, plan), record(bare.port, plan)
    if one.headers.keys() != other.headers.keys() or [*map(len, one.chunks)] != [*map(len, other.chunks)]:
        raise SystemExit(f"the servers answer {plan} differently: {one.headers} and {other.headers}")


def serving_rows(effort: Effort, say: Callable[[str], None]) -> list[Row]:
    """All rows about serving."""
    bursts = [Plan(deltas) for deltas in GOALS["process"]]
    with pair([*bursts, SMALL, LARGE, WAITING]) as servers:
        rows = _bursts(servers, bursts, effort, say)
        for count, plan in zip(effort.crowds, (SMALL, LARGE), strict=True):
            say(f"{count} streams, {plan.deltas} deltas {plan.pause * 1000:g} ms apart")
            rows.extend(_crowd(servers, plan, count, effort))
    say(f"{effort.waiting} streams that wait")
    rows.append(_open_stream(effort))
    return rows


def responses_rows(effort: Effort, say: Callable[[str], None]) -> list[Row]:
    """The rows about streams of the Responses API."""
    bursts = [Plan(deltas, spoken="responses") for deltas in GOALS["responses"]]
    with pair(bursts) as servers:
        return _bursts(servers, bursts, effort, say)


# -- requests a second -----------------------------------------------------------------------------------------


def _bursts(servers: Pair, plans: Sequence[Plan], effort: Effort, say: Callable[[str], None]) -> list[Row]:
    rows = []
    for plan in plans:
        say(f"{plan.protocol.path}: {plan.deltas} deltas, {CONNECTIONS} connections")
        rows.append(_burst(servers, plan, effort))
    return rows


def _burst(servers: Pair, plan: Plan, effort: Effort) -> Row:
    ours: list[float] = []
    bare: list[float] = []
    cpu = {servers.ours: 0.0, servers.bare: 0.0}
    done = dict(cpu)
    for _ in range(effort.rounds):
        for server, rates in ((servers.ours, ours), (servers.bare, bare)):
            before = server.ask("cpu")
            result = rate(server.port, plan, CONNECTIONS, effort.seconds)
            _no_errors(result.errors, server)
            cpu[server] += server.ask("cpu") - before
            done[server] += result.requests
            rates.append(result.per_second)
    each = {server: cpu[server] / done[server] * 1e6 for server in cpu}
    details = (
        f"{spread(ours)} against {spread(bare)} requests/s; "
        f"server CPU {each[servers.ours]:.0f} against {each[servers.bare]:.0f} us a request"
    )
    what = f"N = {plan.deltas}, requests/s"
    if plan.spoken == "responses":
        what = f"Responses API, {what}"
    return at_least(what, GOALS[plan.spoken][plan.deltas], median(ours) / median(bare), details)


def _no_errors(errors: list[str], server: Server) -> None:
    if errors:
        raise SystemExit(f"{len(errors)} answers of {server.name} were wrong, such as: {errors[0]}")


# -- many streams at once --------------------------------------------------------------------------------------


class Crowds(Struct):
    """What the rounds of one server gave. `first`: p99 of the time to the first byte, in seconds."""

    first: list[float] = []
    cpu: list[float] = []
    seconds: list[float] = []
    errors: int = 0

    def add(self, result: Crowd, cpu: float) -> None:
        self.first.append(sorted(result.first_bytes)[int(len(result.first_bytes) * 0.99)])
        self.cpu.append(cpu)
        self.seconds.append(result.seconds)
        self.errors += len(result.errors)


def _crowd(servers: Pair, plan: Plan, count: int, effort: Effort) -> list[Row]:
    results = {servers.ours: Crowds(), servers.bare: Crowds()}
    rounds = effort.crowd_rounds if plan is SMALL else max(1, effort.crowd_rounds - 2)
    for _ in range(rounds):
        for server, crowds in results.items():
            before = server.ask("cpu")
            result = crowd(server.port, plan, count)
            crowds.add(result, server.ask("cpu") - before)
    ours, bare = results[servers.ours], results[servers.bare]
    what = f"{count} streams, 50 deltas {plan.pause * 1000:g} ms apart"
    ratio = median(ours.first) / median(bare.first)
    first = f"{spread(ours.first, ' s')} against {spread(bare.first, ' s')}"
    cpu = f"{spread(ours.cpu, ' s')} against {spread(bare.cpu, ' s')}"
    took = f"streams took {median(ours.seconds):.3g} against {median(bare.seconds):.3g} s"
    if plan is SMALL:
        return [
            at_most(f"{what}: p99 to first byte", 1.5, ratio, first),
            at_most(f"{what}: server CPU", 1.3, median(ours.cpu) / median(bare.cpu), f"{cpu}; {took}"),
        ]
    return [
        at_most(f"{what}: p99 to first byte", 2.0, ratio, first),
        Row(
            f"{what}: errors",
            "none",
            str(ours.errors),
            not ours.errors,
            f"bare: {bare.errors}; {took}; CPU {cpu}",
        ),
    ]


# -- the memory of an open stream --------------------------------------------------------------------------------


def _open_stream(effort: Effort) -> Row:
    with pair([WAITING]) as servers:
        ours, bare = (_memory_of_open(server, effort.waiting) for server in (servers.ours, servers.bare))
    details = f"{effort.waiting} streams that have had their first delta; bare: {bare / 1000:.1f} KB"
    return at_most("memory of an open stream", 20, ours / 1000, details, " KB")


def _memory_of_open(server: Server, count: int) -> float:
    """Bytes each of so many streams adds. A first few warm the server up."""
    with Client(server.port, WAITING, 50) as client:
        client.send_all()
        client.until_first()
        _no_errors(client.errors, server)
        before = server.ask("memory")
        with Client(server.port, WAITING, count) as crowd_client:
            crowd_client.send_all()
            crowd_client.until_first()
            _no_errors(crowd_client.errors, server)
            return (server.ask("memory") - before) / count
