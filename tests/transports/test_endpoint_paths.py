"""Where endpoints of the user's own may be, and what is said of those that nobody could ask."""

import pytest

from greenroom import AgentApp
from greenroom.actors.errors import ConfigurationError
from greenroom.sandbox.settings import SandboxSettings
from greenroom.transports.view_tickets import BrowserView
from kits.http_client import served


def application(**settings: object) -> AgentApp:
    app = AgentApp("Paths", **settings)  # type: ignore[arg-type]

    @app.query()
    async def answer() -> str:
        return "hello"

    return app


async def mine(x: str = "") -> dict[str, str]:
    return {"mine": x}


@pytest.mark.parametrize(
    ("methods", "path"),
    [
        ("POST", "/process"),
        ("GET", "/process/{id}"),
        ("GET", "/process/{number:[0-9]+}"),
        ("HEAD", "/process/{id}/events"),
        ("POST", "/process/task"),
        ("GET", "/"),
        ("GET", "/health"),
        ("HEAD", "/ready"),
        ("GET", "/openapi.json"),
        ("POST", "/compatible-mode/v1/responses"),
        ("PUT", "/compatible-mode/v1/mine"),
    ],
)
async def test_what_greenroom_answers_itself_is_refused_at_the_start(methods: str, path: str) -> None:
    app = application()
    app.endpoint(path, methods)(mine)
    with pytest.raises(ConfigurationError) as caught:
        async with served(app):
            pytest.fail("it served")
    assert path in caught.value.message
    with pytest.raises(ConfigurationError):
        app.aiohttp_application()


async def test_what_is_served_only_sometimes_is_refused_then() -> None:
    app = application()
    app.endpoint("/sessions/{x}/browser", "GET")(mine)
    async with served(app) as client:
        assert await client.json("GET", "/sessions/x/browser") == (200, {"mine": "x"})
    looking = application(
        browser_view=BrowserView(secret="0123456789abcdef"),
        sandboxes=SandboxSettings(backend="http://box.test"),
    )
    looking.endpoint("/sessions/{x}/browser", "GET")(mine)
    with pytest.raises(ConfigurationError, match=r"GET /sessions/\{session\}/browser"):
        looking.aiohttp_application()


async def test_other_methods_of_our_paths_are_free_and_what_takes_any_path_takes_none_of_ours() -> None:
    app = application()
    app.endpoint("/process", "PUT")(mine)
    app.endpoint("/{x}", ["get", "POST"])(mine)
    async with served(app) as client:
        assert await client.json("PUT", "/process") == (200, {"mine": ""})
        assert await client.json("GET", "/anything") == (200, {"mine": "anything"})
        assert (await client.json("GET", "/health"))[1]["status"] == "healthy"
        assert (await (await client.ask("hi")).ending()) == ("completed", "hello")


@pytest.mark.parametrize("path", ["/mine/{a}", "/mine/{b}"])
def test_a_path_and_a_method_have_one_endpoint(path: str) -> None:
    app = application()
    app.endpoint("/mine/{a}", ["GET", "PUT"])(mine)
    app.endpoint(path, "POST")(mine)
    with pytest.raises(ConfigurationError) as caught:
        app.endpoint(path, ["PUT"])(mine)
    assert path in caught.value.message
    assert "PUT" in caught.value.message


@pytest.mark.parametrize(("first", "second"), [("GET", "HEAD"), ("HEAD", "GET")])
def test_what_answers_get_answers_head(first: str, second: str) -> None:
    app = application()
    app.endpoint("/mine", first)(mine)
    with pytest.raises(ConfigurationError, match="HEAD"):
        app.endpoint("/mine", second)(mine)


@pytest.mark.parametrize("methods", [["GET", "HEAD"], ["HEAD", "GET"]])
async def test_both_may_be_named_of_one(methods: list[str]) -> None:
    app = application()
    app.endpoint("/mine", methods)(mine)
    async with served(app) as client:
        assert await client.json("GET", "/mine") == (200, {"mine": ""})
        async with client.http.head(f"{client.url}/mine") as response:
            assert response.status == 200


async def test_paths_whose_variables_take_other_texts_are_two() -> None:
    app = application()

    @app.endpoint(r"/a/{id:\d+}", "GET")
    async def number(id: int) -> dict[str, int]:
        return {"number": id}

    @app.endpoint("/a/{name:[a-z]+}", "GET")
    async def name(name: str) -> dict[str, str]:
        return {"name": name}

    with pytest.raises(ConfigurationError, match="one"):
        app.endpoint("/a/{word:[a-z]+}", "GET")(mine)
    async with served(app) as client:
        assert await client.json("GET", "/a/5") == (200, {"number": 5})
        assert await client.json("GET", "/a/b") == (200, {"name": "b"})


async def test_a_path_in_words_may_be_beside_ours_with_a_variable() -> None:
    app = application()
    app.endpoint("/process/stats", "GET")(mine)
    app.endpoint("/process/stats/{x}", "GET")(mine)
    async with served(app) as client:
        assert await client.json("GET", "/process/stats") == (200, {"mine": ""})
        assert await client.json("GET", "/process/stats/events") == (200, {"mine": "events"})
        status, body = await client.json("GET", "/process/other")
        assert (status, body["error"]["code"]) == (404, "turn_not_found")


async def test_a_method_may_be_given_alone() -> None:
    app = application()
    app.endpoint("/mine", methods="GET")(mine)
    async with served(app) as client:
        assert await client.json("GET", "/mine") == (200, {"mine": ""})
        _, about = await client.json("GET", "/")
    assert {"method": "GET", "path": "/mine"} in about["routes"]
    assert not any(route["method"] in "ET" for route in about["routes"])


@pytest.mark.parametrize("methods", ["FETCH", ["FETCH"], ["GET", 5], []])
def test_what_is_no_method_is_refused(methods: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="/mine"):
        application().endpoint("/mine", methods=methods)


def test_a_decorator_without_its_path_is_explained() -> None:
    with pytest.raises(ConfigurationError, match="with its path"):
        application().endpoint(mine)  # type: ignore[arg-type]
