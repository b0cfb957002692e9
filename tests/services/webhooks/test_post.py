"""One attempt of a webhook, at a real receiver: where it goes, and where it must not go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from aiohttp import web

from greenroom.actors.errors import ConfigurationError, InvalidRequest
from greenroom.services.webhooks.delivery import Answer
from greenroom.services.webhooks.gate import Gate
from greenroom.services.webhooks.post import Post
from kits.webhook_receiver import LOOPBACK, a_receiver


class Names:
    """A resolver that says something else each time."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def addresses(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0)


async def post(url: str, private: Sequence[str] = LOOPBACK, **options: object) -> Answer:
    sender = Post(Gate(private), **options)  # type: ignore[arg-type]
    try:
        return await sender(url, {"webhook-id": "evt_1"}, b"{}")
    finally:
        await sender.close()


async def test_it_arrives() -> None:
    async with a_receiver() as receiver:
        answer = await post(receiver.url)
        assert (answer.arrived, answer.status) == (True, 204)
        (received,) = receiver.received
        assert received.body == b"{}"
        assert received.headers["Content-Type"] == "application/json"
        assert received.id == "evt_1"


@pytest.mark.parametrize("status", [500, 503, 404, 410, 429])
async def test_what_is_no_2xx_has_not_arrived(status: int) -> None:
    async with a_receiver() as receiver:
        receiver.answers = [status]
        answer = await post(receiver.url)
        assert (answer.arrived, answer.status, answer.final) == (False, status, False)


async def test_a_redirect_is_not_followed() -> None:
    async with a_receiver() as receiver, a_receiver() as elsewhere:

        async def away(_: web.Request) -> web.StreamResponse:
            raise web.HTTPTemporaryRedirect(elsewhere.url)

        receiver.answers = [away]
        answer = await post(receiver.url)
        assert (answer.arrived, answer.status) == (False, 307)
        assert not elsewhere.received


async def test_when_to_come_back_is_heard() -> None:
    async def later(_: web.Request) -> web.StreamResponse:
        return web.Response(status=503, headers={"Retry-After": "120"})

    async def some_day(_: web.Request) -> web.StreamResponse:
        return web.Response(status=503, headers={"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"})

    async with a_receiver() as receiver:
        receiver.answers = [later, some_day]
        assert (await post(receiver.url)).retry_after == 120
        assert (await post(receiver.url)).retry_after == 0


async def test_a_receiver_that_hangs_is_not_waited_for() -> None:
    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with a_receiver() as receiver:
        receiver.answers = [hang]
        answer = await post(receiver.url, seconds=0.2)
        assert (answer.arrived, answer.final, answer.why) == (False, False, "there was no answer in time")


async def test_a_receiver_that_is_not_there() -> None:
    async with a_receiver() as receiver:
        url = receiver.url
    answer = await post(url)
    assert (answer.arrived, answer.final) == (False, False)
    assert answer.why


async def test_a_receiver_that_speaks_no_http() -> None:
    async def nonsense(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com\r\n")
        writer.close()

    listening = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        answer = await post(f"http://127.0.0.1:{port}/")
    assert (answer.arrived, answer.final) == (False, False)


# -- where it must not go ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/",
        "http://127.1:8000/",
        "http://0x7f000001:8000/",
        "http://2130706433:8000/",
        "http://[::1]:8000/",
        "http://[::ffff:127.0.0.1]:8000/",
        "http://[64:ff9b::7f00:1]:8000/",
        "http://0.0.0.0:8000/",
        "https://10.0.0.1/",
        "https://192.168.1.1/",
        "https://172.16.0.1/",
        "https://169.254.1.1/",
        "https://[fe80::1]/",
        "https://[fd00::1]/",
        "https://100.64.0.1/",
    ],
)
async def test_addresses_that_are_not_the_internets_are_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Gate().read(url)
    assert refused.value.field == "webhook"
    answer = await post(url, private=())
    assert (answer.arrived, answer.final) == (False, True)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest",
        "http://[fd00:ec2::254]/",
        "http://100.100.100.200/",
        "http://0xa9fea9fe/",
    ],
)
def test_a_clouds_metadata_is_refused_whatever_is_allowed(url: str) -> None:
    with pytest.raises(InvalidRequest, match="metadata"):
        Gate(["0.0.0.0/0", "::/0"]).read(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://",
        "https://user:secret@example.com/",
        "https://exa mple.com/",
        "https://example.com/\nHost: other",
        "https://exam\tple.com/",
        "https://example.com:0x50/",
        "https://example.com:99999/",
        "https://example.com:25/",
        "https://example.com:6000/",
        "https://[::1/",
        "https://1.2.3.4.5/",
        "https://" + "a" * 300 + ".com/",
    ],
)
def test_what_is_no_url_for_it_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Gate().read(url)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com:8443/a?b=c#d",
        "http://1.1.1.1/",
        "https://[2606:4700::1111]/x",
    ],
)
def test_what_is_fine(url: str) -> None:
    assert Gate().read(url)


async def test_a_name_that_leads_inside_is_refused_for_good() -> None:
    for address in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fe80::1%eth0", "::ffff:127.0.0.1"):
        answer = await post("http://inner.example:8000/", private=(), resolver=Names([address]))
        assert (answer.arrived, answer.final) == (False, True), address
        assert "leads to" in answer.why


async def test_a_name_that_leads_elsewhere_a_moment_later_leads_nowhere() -> None:
    """DNS rebinding: what is connected to are the very addresses that were judged."""
    async with a_receiver() as receiver:
        port = receiver.url.rsplit(":", 1)[1].split("/")[0]
        names = Names(["192.0.2.1"], ["127.0.0.1"])
        for _ in range(2):
            answer = await post(f"http://rebound.example:{port}/hook", private=(), resolver=names)
            assert answer.final
        assert names.asked == ["rebound.example"] * 2
        assert not receiver.received


async def test_of_several_addresses_only_those_that_are_fine_are_used() -> None:
    async with a_receiver() as receiver:
        url = receiver.url.replace("127.0.0.1", "mixed.example")
        answer = await post(
            url, private=["127.0.0.1"], resolver=Names(["127.0.0.2", "10.0.0.1", "127.0.0.1"])
        )
        assert answer.arrived
        assert len(receiver.received) == 1


async def test_a_name_that_cannot_be_looked_up_may_be_there_later() -> None:
    class Nowhere(Names):
        async def addresses(self, host: str) -> Sequence[str]:
            raise OSError(-2, "Name or service not known")

    answer = await post("https://nowhere.example/", resolver=Nowhere())
    assert (answer.arrived, answer.final) == (False, False)


def test_what_is_no_network_is_refused_when_it_is_set() -> None:
    with pytest.raises(ConfigurationError, match=r"10\.0\.0\.0/99"):
        Gate(["10.0.0.0/99"])
