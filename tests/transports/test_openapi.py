"""The OpenAPI document says what is served: all of it, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from aiohttp import web
from schemathesis.specs.openapi.definitions import OPENAPI_31

from greenroom import AgentApp, BrowserView
from greenroom.actors.errors import StoreUnavailable
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.storage import Change, Fence, Folder, FolderKey, Named, Span
from greenroom.transports.aiohttp_server import make_application
from kits.flaky_storage import FlakyStorage
from kits.http_client import http_client, served
from kits.transport_kit import Script


class Book(msgspec.Struct):
    """A model of the user's."""

    title: str
    pages: int = 0


def application(**options: Any) -> AgentApp:
    """One with all kinds of routes."""
    app = Script(**options).app

    @app.endpoint("/books/{shelf:[a-z]+}/{place}", methods=["GET", "PUT"])
    async def books(shelf: str, place: int, title: str = "") -> dict[str, Any]:
        """What stands there."""
        return {"shelf": shelf, "place": place, "title": title}

    @app.endpoint("/book")
    async def book(book: Book) -> Book:
        return book

    @app.endpoint("/count", methods=["GET"])
    async def count(to: int) -> Any:
        for number in range(to):
            yield number

    @app.endpoint("/anything")
    async def anything(request: web.Request) -> web.Response:
        return web.Response(text=await request.text())

    return app


def with_views() -> AgentApp:
    return application(browser_view=BrowserView(secret="s" * 32), sandboxes="local")


async def fetched(app: AgentApp) -> dict[str, Any]:
    async with served(app) as client:
        status, document = await client.json("GET", "/openapi.json")
    assert status == 200
    assert isinstance(document, dict)
    return document


def table(app: web.Application) -> set[tuple[str, str]]:
    """The routes as aiohttp has them, without those that answer only what nothing else takes."""
    return {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "*"
    }


def documented(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}


def operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for methods in document["paths"].values():
        yield from methods.values()


@pytest.mark.parametrize("make", [application, with_views])
async def test_every_route_is_documented_and_nothing_else(make: Any) -> None:
    app = make()
    document = await fetched(app)
    routes = table(make_application(app._prepare()))
    assert documented(document) == routes
    assert ("GET", "/process/{id}/events") in routes
    assert (("GET", "/sessions/{session}/browser/live") in routes) is (make is with_views)


async def test_mounted_in_another_application_its_paths_are_its_own() -> None:
    script = Script()
    inner = script.app.aiohttp_application()
    outer = web.Application()
    outer.add_subapp("/agent", inner)
    runner = web.AppRunner(outer)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with http_client(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
        _, document = await client.json("GET", "/agent/openapi.json")
        url = client.url + document["servers"][0]["url"]
        async with client.http.get(f"{url}/health") as answer:
            assert answer.status == 200
    await runner.cleanup()
    assert {("/agent" + path) for _, path in documented(document)} == {path for _, path in table(inner)}


async def test_the_document_is_one_of_openapi_3_1() -> None:
    document = await fetched(with_views())
    jsonschema_rs.Draft202012Validator(OPENAPI_31).validate(document)
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


async def test_whatever_the_document_refers_to_is_in_it() -> None:
    document = await fetched(with_views())
    text = json.dumps(document)
    for kind, components in document["components"].items():
        for name in components:
            assert f'"#/components/{kind}/{name}"' in text, f"nothing refers to {name}"
    for reference in set(_references(document)):
        found = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


async def test_operations_have_names_of_their_own_and_say_how_they_refuse() -> None:
    document = await fetched(with_views())
    names = [operation["operationId"] for operation in operations(document)]
    assert len(names) == len(set(names))
    for operation in operations(document):
        refused = {status for status in operation["responses"] if status >= "4"}
        assert {"429", "500"} <= refused
        if "requestBody" in operation:
            assert {"400", "413", "415"} <= refused
    for name, response in document["components"]["responses"].items():
        assert ("Retry-After" in response.get("headers", {})) is name.endswith(("429", "503"))


class Away(FlakyStorage):
    """A storage that cannot be reached any more, once `away` is set."""

    away = False

    async def write(self, changes: Sequence[Change]) -> tuple[Fence, ...]:
        self._reach()
        return await super().write(changes)

    async def read(self, key: FolderKey, spans: Sequence[Span] = ()) -> Folder | None:
        self._reach()
        return await super().read(key, spans)

    async def lookup(self, name: bytes) -> Named | None:
        self._reach()
        return await super().lookup(name)

    def _reach(self) -> None:
        if self.away:
            raise StoreUnavailable("out of reach")


async def test_what_a_store_that_is_away_makes_of_a_request_is_documented() -> None:
    storage = Away(MemoryStorage())
    app = Script(state=DurableSessions(storage)).app
    document = await fetched(app)
    said = [{"role": "user", "content": "x"}]
    refused = set()
    async with served(app) as client:
        storage.away = True
        for method, path in documented(document):
            operation = document["paths"][path][method.lower()]
            body = {"input": said, "messages": said} if method == "POST" else None
            url = client.url + re.sub(r"\{\w+\}", "x", path)
            async with client.http.request(method, url, json=body) as answer:
                assert str(answer.status) in operation["responses"], f"{method} {path}: {answer.status}"
            if answer.status == 503:
                refused.add(operation["operationId"])
    assert {"process", "beginTask", "showTask", "showTurn", "followTurn", "cancelTurn"} <= refused


async def test_a_users_route_is_described_by_its_parameters() -> None:
    document = await fetched(application())
    show, put = (document["paths"]["/books/{shelf}/{place}"][method] for method in ("get", "put"))
    assert [(each["name"], each["in"], each["required"]) for each in show["parameters"]] == [
        ("shelf", "path", True),
        ("place", "path", True),
        ("title", "query", False),
    ]
    assert show["parameters"][1]["schema"] == {"type": "integer"}
    assert show["summary"] == "What stands there."
    assert [each["name"] for each in put["parameters"]] == ["shelf", "place"]
    body = put["requestBody"]["content"]["application/json"]["schema"]
    assert (put["requestBody"]["required"], list(body["anyOf"][0]["properties"])) == (False, ["title"])
    assert body["anyOf"][1] == {"type": "null"}
    whole = document["paths"]["/book"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert whole == {"$ref": "#/components/schemas/Book"}
    assert document["components"]["schemas"]["Book"]["required"] == ["title"]
    count = document["paths"]["/count"]["get"]
    assert count["parameters"][0]["required"]
    assert list(count["responses"]["200"]["content"]) == ["text/event-stream"]


@pytest.mark.slow
def test_the_document_costs_nothing_before_it_is_asked_for() -> None:
    code = (
        "import sys, greenroom, greenroom.transports.aiohttp_server;"
        "print([name for name in sys.modules if name.startswith('greenroom.transports.openapi')])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
