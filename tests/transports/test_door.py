"""How many connections a client may have, and whose they are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from greenroom import ConfigurationError
from greenroom.transports import connection
from greenroom.transports.door import Door, client_at
from kits.http_client import HttpClient, body, served
from kits.transport_kit import Script
from kits.until import until

V1 = "/compatible-mode/v1"


# -- whose it is ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("", "10.0.0.1"),
        ("203.0.113.7", "203.0.113.7"),
        ("1.2.3.4, 203.0.113.7", "203.0.113.7"),  # what is before the last, anybody may have written
        ("203.0.113.7, 10.1.1.1", "203.0.113.7"),  # through two proxies of ours
        ("203.0.113.7, rubbish", "10.0.0.1"),
        ("rubbish, 203.0.113.7", "203.0.113.7"),
        ("10.2.2.2", "10.0.0.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        (", " * 10_000, "10.0.0.1"),
    ],
)
def test_behind_a_proxy_the_client_is_the_last_that_is_no_proxy(forwarded: str, client: str) -> None:
    door = Door(1, ["10.0.0.0/8"])
    assert door.trusts("10.0.0.1")
    assert not door.trusts("203.0.113.7")
    assert door.client_of({"X-Forwarded-For": forwarded}, "10.0.0.1") == client


def test_of_ipv6_a_network_is_one_client() -> None:
    assert client_at("2001:db8::1") == client_at("2001:db8::ffff") != client_at("2001:db8:0:1::1")
    assert client_at("fe80::1%eth0") == "fe80::/64"
    assert client_at("::ffff:192.0.2.1") == client_at("192.0.2.1") == "192.0.2.1"
    assert client_at("/run/socket") == "/run/socket"


def test_who_has_left_is_forgotten() -> None:
    door = Door(2, [])
    assert [door.enter("a"), door.enter("a"), door.enter("a"), door.enter("b")] == [True, True, False, True]
    for client in ("a", "b", "a"):
        door.leave(client)
    assert repr(door) == "<Door 0 in, of 0>"
    assert door.enter("a")


def test_a_proxy_that_is_neither_an_address_nor_a_network_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="networks"):
        Door(1, ["lo"])


# -- at the server -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def crowded(script: Script, **options: Any) -> AsyncIterator[HttpClient]:
    """A server at which a client may have three connections, and has them: each with a turn that runs."""
    async with served(script.app, client_connections=3, **options) as client:
        for number in range(3):
            await client.ask("wait", f"s{number}")
        yield client
        script.gate.set()


async def asked(client: HttpClient, path: str, forwarded: str = "", **fields: Any) -> tuple[int, Any, Any]:
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    async with client.http.post(client.url + path, json=fields, headers=headers) as answer:
        return answer.status, await answer.json(), answer.headers


@pytest.mark.parametrize("origins", [[], ["*"]])
@pytest.mark.parametrize("proxies", [[], ["127.0.0.1"]])
async def test_over_the_bound_a_client_is_told_so_in_his_protocols_words(
    proxies: list[str], origins: list[str]
) -> None:
    script = Script()
    async with crowded(script, trusted_proxies=proxies, cors_origins=origins) as client:
        status, told, headers = await asked(client, "/process", **body("hi"))
        assert (status, told["error"]["code"]) == (429, "too_many_connections")
        assert int(headers["Retry-After"]) >= 1
        assert headers["Connection"] == "close"
        status, told, headers = await asked(client, f"{V1}/responses", input="hi")
        assert (status, told["error"]["type"]) == (429, "rate_limit_exceeded")
        assert int(headers["Retry-After"]) >= 1
        async with client.http.get(f"{client.url}/health") as answer:
            assert answer.status == 429
        assert script.app.statistics().accepted_turns == 3
        script.gate.set()
        await until(lambda: script.app.statistics().open_turns == 0)
        for exchange in client.opened:
            exchange.close()
        await client.http.connector.close()  # type: ignore[union-attr]
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{client.url}/process", json=body("hi")) as answer,
        ):
            assert answer.status == 200


async def test_behind_a_proxy_each_client_has_a_bound_of_his_own() -> None:
    script = Script()
    async with served(script.app, client_connections=1, trusted_proxies=["127.0.0.0/8"]) as client:
        headers = {"X-Forwarded-For": "203.0.113.1"}
        waiting = await client.http.post(f"{client.url}/process", json=body("wait", "s"), headers=headers)
        await waiting.content.readchunk()
        assert (await asked(client, "/process", "203.0.113.1", **body("hi")))[0] == 429
        assert (await asked(client, "/process/task", "203.0.113.1", **body("hi")))[0] == 429
        assert (await asked(client, "/process", "1.1.1.1, 203.0.113.1", **body("hi")))[0] == 429
        assert (await asked(client, "/process", "203.0.113.2", **body("hi", stream=False)))[0] == 200
        assert (await asked(client, "/process/task", "203.0.113.3", **body("hi")))[0] == 200
        script.gate.set()
        await waiting.read()
        assert (await asked(client, "/process", "203.0.113.1", **body("hi", stream=False)))[0] == 200


async def test_one_too_many_that_says_nothing_is_closed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REFUSED_SECONDS", 0.05)
    async with served(Script().app, client_connections=1, trusted_proxies=[]) as client:
        port = int(client.url.rsplit(":", 1)[1])
        _, first = await asyncio.open_connection("127.0.0.1", port)
        reader, second = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        second.close()
        first.close()


async def test_what_is_no_http_is_told_so_in_json_and_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    async with served(Script().app) as client:
        for sent in (b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(client.url.rsplit(":", 1)[1]))
            writer.write(sent)
            head, _, told = (await reader.read()).partition(b"\r\n\r\n")
            assert b" 400 " in head.partition(b"\r\n")[0]
            assert json.loads(told)["error"]["code"] == "bad_request"
            writer.close()
        assert not [record for record in caplog.records if record.levelname == "ERROR"]
