"""Errors over HTTP: whose words go out, and what stays in the log under an id."""

import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from greenroom import AgentApp
from greenroom.actors.errors import ConfigurationError
from kits.http_client import served


def application(authenticate: Callable[[Any], Any] | None = None) -> AgentApp:
    app = AgentApp("Errors", authenticate=authenticate)

    @app.query()
    async def answer() -> str:
        return "hello"

    return app


@pytest.mark.parametrize("path", ["/process", "/compatible-mode/v1/responses", "/mine"])
async def test_who_authenticates_wrongly_finds_it_in_the_log_and_nobody_else_sees_it(
    caplog: pytest.LogCaptureFixture, path: str
) -> None:
    app = application(lambda headers: {"id": "ann"})

    @app.endpoint("/mine")
    async def mine() -> str:
        return "mine"

    async with served(app) as client:
        status, body = await client.json("POST", path, json={"input": "hi"})
    assert status == 500
    assert "ann" not in str(body)
    assert "authenticate" not in str(body)
    found = re.search(r"err_[\w-]+", str(body))
    assert found is not None
    assert f"POST {path} failed [{found[0]}]" in caplog.text
    assert "authenticate() returned a value of type dict" in caplog.text


async def test_an_endpoint_that_uses_what_is_not_started_is_told_so_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = application()

    @app.endpoint("/mine", "GET")
    async def mine() -> None:
        raise ConfigurationError("start the service")

    async with served(app) as client:
        status, body = await client.json("GET", "/mine")
    assert (status, body["error"]["code"]) == (500, "internal_error")
    assert body["error"]["id"] in caplog.text
    assert "start the service" in caplog.text


def my_words(error: type[web.HTTPException], **more: Any) -> web.HTTPException:
    return error(text="my words", **more)


@pytest.mark.parametrize(
    ("error", "status", "code", "message"),
    [
        (my_words(web.HTTPBadRequest), 400, "bad_request", "my words"),
        (my_words(web.HTTPUnauthorized), 401, "unauthorized", "my words"),
        (my_words(web.HTTPForbidden), 403, "forbidden", "my words"),
        (my_words(web.HTTPNotFound), 404, "not_found", "my words"),
        (my_words(web.HTTPConflict), 409, "conflict", "my words"),
        (my_words(web.HTTPConflict, reason="Elsewhere"), 409, "conflict", "my words"),
        (my_words(web.HTTPInternalServerError), 500, "internal_server_error", "my words"),
        (web.HTTPNotFound(reason="No such book"), 404, "not_found", "No such book"),
        (web.HTTPNotFound(), 404, "not_found", "Not Found"),
    ],
)
async def test_what_an_endpoint_says_by_raising_goes_out(
    error: web.HTTPException, status: int, code: str, message: str
) -> None:
    app = application()

    @app.endpoint("/mine", "GET")
    async def mine() -> None:
        raise error

    async with served(app) as client:
        assert await client.json("GET", "/mine") == (status, {"error": {"code": code, "message": message}})


async def test_the_headers_and_the_form_of_what_is_raised_are_kept() -> None:
    app = application()

    @app.endpoint("/locked", "GET")
    async def locked() -> None:
        error = web.HTTPUnauthorized(text="who?", headers={"WWW-Authenticate": "Bearer"})
        error.set_cookie("seen", "1")
        raise error

    @app.endpoint("/own", "GET")
    async def own() -> None:
        raise web.HTTPConflict(text='{"mine":1}', content_type="application/json")

    @app.endpoint("/late", "GET")
    async def late() -> None:
        raise web.HTTPServiceUnavailable(text="later", headers={"Retry-After": "7"})

    @app.endpoint("/away", "GET")
    async def away() -> None:
        raise web.HTTPFound("/own")

    async with served(app) as client:
        async with client.http.get(f"{client.url}/locked") as response:
            assert response.headers["WWW-Authenticate"] == "Bearer"
            assert response.headers.getall("Content-Type") == ["application/json"]
            assert response.cookies["seen"].value == "1"
        assert await client.json("GET", "/own") == (409, {"mine": 1})
        assert await client.json("GET", "/away") == (409, {"mine": 1})
        async with client.http.get(f"{client.url}/late") as response:
            assert response.headers.getall("Retry-After") == ["7"]


@pytest.mark.parametrize(
    "path",
    ["/v1/models", "/v1/responses/resp_1", "/responses/resp_1/cancel", "/v1/conversations/conv_1/items"],
)
async def test_who_asks_for_openais_protocols_elsewhere_is_told_where_they_are(path: str) -> None:
    async with served(application()) as client:
        _, body = await client.json("GET", path)
    assert body["error"]["message"].endswith("; the base_url of OpenAI's clients ends in /compatible-mode/v1")


async def test_aiohttps_own_words_stay_ours(caplog: pytest.LogCaptureFixture) -> None:
    async with served(application()) as client:
        status, body = await client.json("GET", "/nowhere")
    assert (status, body["error"]["message"]) == (
        404,
        "there is nothing at GET /nowhere; GET / names the routes",
    )
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
