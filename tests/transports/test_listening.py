"""Where a server listens, and why it cannot; what is said to clients that look in the wrong place."""

from __future__ import annotations

import errno
from typing import Any

import openai
import pytest

from greenroom import AgentApp, AiohttpServer, ConfigurationError
from kits.http_client import served
from kits.transport_kit import Script


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"port": 99999}, "port=99999 cannot be"),
        ({"port": -1}, "port=-1 cannot be"),
        ({"port": "80a"}, "port cannot be: expected `int`, got `str`"),
        ({"port": None}, "port=None cannot be"),
        ({"port": True}, "port=True cannot be"),
        ({"host": 5}, "host=5 cannot be: expected `str`, got `int`"),
        ({"host": None}, "host=None cannot be"),
    ],
)
def test_what_is_no_place_is_refused_by_name(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"AiohttpServer: {words}"):
        AiohttpServer(**setting)
    app = AgentApp()
    app.query()(lambda: "hello")
    with pytest.raises(ConfigurationError, match=words):
        app.run(**setting)


async def refused(monkeypatch: pytest.MonkeyPatch, error: OSError, host: str = "127.0.0.1") -> str:
    """What the start says where listening fails with this error."""

    async def create_server(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("asyncio.BaseEventLoop.create_server", create_server)
    with pytest.raises(ConfigurationError) as caught:
        await Script().app.start(AiohttpServer(host, 8090))
    return caught.value.message


async def test_only_a_port_that_is_taken_is_to_be_changed() -> None:
    async with served(Script().app) as client:
        port = int(client.url.rsplit(":", 1)[1])
        with pytest.raises(
            ConfigurationError, match=r"another server listens there.*--port, app\.run.*make serve PORT="
        ):
            await Script().app.start(AiohttpServer(port=port))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EADDRNOTAVAIL, "this machine has no such address"),
        (errno.EACCES, "ports from 1024 on"),
        (errno.ENOBUFS, "No buffer"),
    ],
)
async def test_other_reasons_have_words_of_their_own(
    monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    said = await refused(monkeypatch, OSError(number, "No buffer"))
    assert words in said
    assert "another server" not in said


async def test_a_host_that_is_not_known_is_said() -> None:
    with pytest.raises(ConfigurationError, match=r"no such host"):
        await Script().app.start(AiohttpServer("no such host.invalid", 0))


@pytest.mark.parametrize("path", ["", "/v1", "/compatible-mode"])
async def test_an_sdk_with_another_base_url_is_told_how_it_ends(path: str) -> None:
    async with (
        served(Script().app) as client,
        openai.AsyncOpenAI(base_url=client.url + path, api_key="any") as sdk,
    ):
        for asking in (
            sdk.models.list(),
            sdk.responses.create(model="any", input="hello"),
            sdk.chat.completions.create(model="any", messages=[{"role": "user", "content": "hello"}]),
        ):
            with pytest.raises(openai.NotFoundError, match="ends in /compatible-mode/v1"):
                await asking


async def test_who_asks_for_something_else_is_not_told_of_sdks() -> None:
    async with served(Script().app) as client:
        _, answer = await client.json("POST", "/proces", json={})
    assert answer["error"]["message"] == "there is nothing at POST /proces; GET / names the routes"
