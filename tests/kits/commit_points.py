"""Servers that are killed at each of the points at which a store of sessions has just written, or is about to: what
reaches the point, and what is true afterwards. Each is told on a `Site`."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeAlias

import aiohttp

from kits.durable_servers import Site, free_port
from kits.http_client import http_client, next_chunk
from kits.recovery_kit import dies_at, text_of, url_of
from kits.rejoining import Told, turn
from kits.responses_http import BASE_PATH, output_text
from kits.server_process import ServerProcess
from kits.until import until

TURNS_KEPT: Final = "10"
Scenario: TypeAlias = Callable[[Site], Awaitable[None]]


async def dies_while_it_takes_over(site: Site) -> None:
    """A server dies over what another one left when it died."""
    here = free_port()
    first = await site.server(here)
    where = [url_of(here)]
    begun, *waiting = [Told(f"turn_{number}", "s") for number in range(3)]
    clients = [asyncio.create_task(turn(where, begun, "say:a hold"))]
    await until(lambda: bool(site.begun()[begun.id]))
    clients += [asyncio.create_task(turn(where, told, "say:b")) for told in waiting]
    await until(lambda: all(told.acknowledged for told in waiting))
    await first.stop(signal.SIGKILL)
    second = await site.server(here, DURABLE_AT="take.written")
    await _killed(second)
    third = await site.server(here)
    await asyncio.gather(*clients)
    assert await third.stop() == 0
    assert (begun.status, begun.last["error"]["code"]) == ("failed", "turn_interrupted")
    assert [told.status for told in waiting] == ["completed"] * 2
    await site.check([begun, *waiting])


async def dies_while_it_hands_over(site: Site) -> None:
    """A server that stops dies as it has let go of a session, with turns that wait."""
    here, there = free_port(), free_port()
    first = await site.server(here, DURABLE_AT="release.written", DURABLE_DRAIN="0.2")
    second = await site.server(there)
    where = [url_of(here)]
    long, *waiting = [Told(f"turn_{number}", "s") for number in range(3)]
    clients = [asyncio.create_task(turn(where, long, "say:a hold"))]
    await until(lambda: bool(site.begun()[long.id]))
    clients += [asyncio.create_task(turn(where, told, "say:b")) for told in waiting]
    await until(lambda: all(told.acknowledged for told in waiting))
    where[:] = [url_of(there)]
    first.process.send_signal(signal.SIGTERM)
    await _killed(first)
    await asyncio.gather(*clients)
    assert await second.stop() == 0
    assert (long.status, long.last["error"]["code"]) == ("failed", "turn_interrupted")
    assert [told.status for told in waiting] == ["completed"] * 2
    await site.check([long, *waiting])


async def dies_while_it_forks(site: Site) -> None:
    """A response that continues from an older one is asked for again; what it continues from goes on as well."""
    async with _api(site, "fork.written") as api:
        first = await api.responds("say:a")
        second = await api.responds("say:b", previous_response_id=first["id"])
        await api.is_killed(api.responds("say:c", previous_response_id=first["id"]))
        more = await api.responds("say:d", previous_response_id=second["id"])
        fork = await api.responds("say:c", previous_response_id=first["id"])
        assert [output_text(one) for one in (fork, more)] == ["1 c", "2 d"]
    await api.check([[first, second, more], [fork]])


async def dies_while_it_forgets_a_session(site: Site) -> None:
    """A conversation whose deletion was not answered can be deleted again, and all that services have of it."""
    async with _api(site, "forget.written") as api:
        conversation = await api.ask("POST", "conversations")
        said = await api.responds("say:a", conversation=conversation["id"])
        kept = await api.responds("say:b")
        place = f"conversations/{conversation['id']}"
        await api.is_killed(api.ask("DELETE", place))
        assert await api.status("DELETE", place) == 200
        for gone in (place, f"responses/{said['id']}"):
            assert await api.status("GET", gone) == 404
        again = await api.responds("say:c", previous_response_id=kept["id"])
        assert output_text(again) == "1 c"
    await api.check([[kept, again]])


async def dies_while_it_forgets_a_turn(site: Site) -> None:
    """A response whose deletion was not answered may be deleted again, and is gone either way; its session stays."""
    async with _api(site, "remove.written") as api:
        first = await api.responds("say:a")
        second = await api.responds("say:b", previous_response_id=first["id"])
        place = f"responses/{first['id']}"
        await api.is_killed(api.ask("DELETE", place))
        assert await api.status("DELETE", place) in (200, 404)
        assert await api.status("GET", place) == 404
        third = await api.responds("say:c", previous_response_id=second["id"])
        assert output_text(third) == "2 c"
    await api.check([[second, third]])


async def dies_while_it_follows(site: Site) -> None:
    """A server dies as it has asked for the ending of a turn of which nothing is kept: who follows the turn in another
    one has it."""
    here, there = free_port(), free_port()
    first = await site.server(here)
    second = await site.server(there, DURABLE_AT="followed.written")
    asked = {"model": "agent", "input": "say:a nap:3 say:b", "stream": True, "store": False}
    async with (
        http_client(url_of(there)) as follower,
        follower.http.post(f"{url_of(here)}{BASE_PATH}/responses", json=asked) as response,
    ):
        found = re.search(rb'"id": ?"([^"]+)"', await next_chunk(response))
        assert found is not None
        turn_id = found[1].decode()
        with suppress(aiohttp.ClientError):
            await follower.rejoin(turn_id)
        await _killed(second)
        third = await site.server(there)
        back = await follower.rejoin(turn_id)
        assert await back.ending() == ("completed", "0 a b")
        await response.read()
    for server in (first, third):
        assert await server.stop() == 0
    await site.check([])


async def dies_as_it_joins(site: Site) -> None:
    """A server dies as it has recorded a turn in the line of another one's session, where it is run: its client, which
    was not told, has it there."""
    here, there = free_port(), free_port()
    owner = await site.server(here)
    other = await site.server(there, DURABLE_AT="join.written")
    first, joined, last = [Told(f"turn_{number}", "s") for number in range(3)]
    clients = [asyncio.create_task(turn([url_of(here)], first, "say:a nap:3"))]
    await until(lambda: bool(site.begun()[first.id]))
    where = [url_of(there)]
    clients.append(asyncio.create_task(turn(where, joined, "say:b")))
    await _killed(other)
    clients.append(asyncio.create_task(turn([url_of(here)], last, "say:c")))
    where[:] = [url_of(here)]
    await asyncio.gather(*clients)
    assert await owner.stop() == 0
    assert [text_of(told) for told in (first, joined, last)] == ["0 a", "1 b", "2 c"]
    await site.check([first, joined, last])


async def dies_while_it_cancels(site: Site) -> None:
    """A server dies as it has marked a turn that another one has, which dies before it hears: the turn never begins."""
    here, there = free_port(), free_port()
    first = await site.server(here)
    second = await site.server(there, DURABLE_AT="cancel.written")
    where = [url_of(here)]
    begun, unwanted, other = [Told(f"turn_{number}", "s") for number in range(3)]
    clients = [asyncio.create_task(turn(where, begun, "say:a hold"))]
    await until(lambda: bool(site.begun()[begun.id]))
    clients += [asyncio.create_task(turn(where, told, "say:b")) for told in (unwanted, other)]
    await until(lambda: unwanted.acknowledged and other.acknowledged)
    async with http_client(url_of(there)) as client:
        with suppress(aiohttp.ClientError):
            await client.json("POST", f"/process/{unwanted.id}/cancel")
    await _killed(second)
    await first.stop(signal.SIGKILL)
    third = await site.server(here)
    await asyncio.gather(*clients)
    assert await third.stop() == 0
    assert [told.status for told in (begun, unwanted, other)] == ["failed", "canceled", "completed"]
    assert not site.begun()[unwanted.id]
    await site.check([begun, other])


def _usual(point: str) -> Scenario:
    async def scenario(site: Site) -> None:
        await dies_at(site, point)

    return scenario


SCENARIOS: Final[dict[str, Scenario]] = {
    "accept.before": _usual("accept.before"),
    "accept.written": _usual("accept.written"),
    "append.before": _usual("append.before"),
    "append.written": _usual("append.written"),
    "finish.before": _usual("finish.before"),
    "finish.written": _usual("finish.written"),
    "join.written": dies_as_it_joins,
    "take.written": dies_while_it_takes_over,
    "release.written": dies_while_it_hands_over,
    "cancel.written": dies_while_it_cancels,
    "fork.written": dies_while_it_forks,
    "followed.written": dies_while_it_follows,
    "forget.written": dies_while_it_forgets_a_session,
    "remove.written": dies_while_it_forgets_a_turn,
}
"""By their points: all there are."""


# ------------------------------------------------------------------------------------------------------------ the API


async def _killed(server: ServerProcess) -> None:
    assert await server.ended() == -signal.SIGKILL, "the point was never reached"


class _Api:
    """A client of the Responses API, for what one server does until it is killed, and another one after it."""

    def __init__(self, site: Site, client: aiohttp.ClientSession, port: int, server: ServerProcess) -> None:
        self.site = site
        self.server = server
        self._client = client
        self._port = port

    async def ask(self, method: str, place: str, **asked: Any) -> dict[str, Any]:
        async with self._client.request(method, self._url(place), json=asked or None) as answer:
            assert answer.status == 200, await answer.text()
            found: dict[str, Any] = await answer.json()
            return found

    async def responds(self, text: str, **asked: Any) -> dict[str, Any]:
        return await self.ask("POST", "responses", model="agent", input=text, **asked)

    async def status(self, method: str, place: str) -> int:
        async with self._client.request(method, self._url(place)) as answer:
            return answer.status

    async def is_killed(self, asking: Awaitable[object]) -> None:
        """The server dies of what is asked, and another one is started in its place."""
        try:
            await asking
        except aiohttp.ClientError:
            await _killed(self.server)
        else:
            raise AssertionError("the point was never reached")
        self.server = await self.site.server(self._port, DURABLE_TURNS_KEPT=TURNS_KEPT)

    async def check(self, sessions: Sequence[Sequence[dict[str, Any]]]) -> None:
        """Read the store: it has these responses, those of one session together."""
        turns, keys = [], {}
        for responses in sessions:
            (key,) = {(await self.site.entry(one["id"])).turn.key for one in responses}
            keys[key.session_id] = key
            turns += [_told(one, key.session_id) for one in responses]
        await self.site.check(turns, keys=keys)

    def _url(self, place: str) -> str:
        return f"{url_of(self._port)}{BASE_PATH}/{place}"


def _told(response: dict[str, Any], session: str) -> Told:
    return Told(response["id"], session, acknowledged=True, frames=[response])


@asynccontextmanager
async def _api(site: Site, point: str) -> AsyncIterator[_Api]:
    port = free_port()
    server = await site.server(port, DURABLE_AT=point, DURABLE_TURNS_KEPT=TURNS_KEPT)
    async with aiohttp.ClientSession() as client:
        api = _Api(site, client, port, server)
        yield api
    assert await api.server.stop() == 0
