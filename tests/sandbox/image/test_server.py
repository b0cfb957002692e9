"""The tool server itself: its token, its routes, its start and its end."""

import asyncio
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from greenroom.sandbox import image
from greenroom.sandbox.backend import BoxAddress
from greenroom.sandbox.client import BoxClient
from greenroom.sandbox.image.options import BoxOptions, options_of
from greenroom.sandbox.image.refusals import Refused, _let_in
from kits.box_process import BoxProcess, box_process, running_with

ROUTES = [
    ("GET", "/healthz"),
    ("GET", "/mcp/list_tools"),
    ("POST", "/mcp/call_tool"),
    ("POST", "/mcp/add_servers"),
    ("POST", "/tools/run_ipython_cell"),
    ("POST", "/tools/run_shell_command"),
    ("POST", "/reset"),
    ("GET", "/live"),
    ("GET", "/workspace/file"),
    ("PUT", "/workspace/file"),
    ("GET", "/workspace/list"),
    ("GET", "/workspace/exists"),
    ("DELETE", "/workspace/entry"),
    ("POST", "/workspace/move"),
    ("POST", "/workspace/mkdir"),
    ("POST", "/workspace/files:batch"),
    ("GET", "/desktop"),
]


class Http:
    """Plain requests, as any client might send them."""

    def __init__(self, session: aiohttp.ClientSession, token: str) -> None:
        self.session = session
        self.token = token

    async def __call__(self, method: str, path: str, **given: Any) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {self.token}", **given.pop("headers", {})}
        async with self.session.request(
            method, f"http://box/fastapi{path}", headers=headers, **given
        ) as response:
            return response.status, await response.text()

    async def detail(self, method: str, path: str, status: int, **given: Any) -> str:
        """The reason of a refusal with this status."""
        found, body = await self(method, path, **given)
        assert found == status, body
        detail: str = json.loads(body)["detail"]
        return detail


@pytest.fixture(scope="module")
def server() -> Iterator[BoxProcess]:
    with box_process() as server:
        yield server


@pytest.fixture
async def http(server: BoxProcess) -> AsyncIterator[Http]:
    async with (
        server.connected(),
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(server.address.socket))) as session,
    ):
        yield Http(session, server.token)


# ------------------------------------------------------------------------------------------------------ the token


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_nothing_is_done_without_the_token(http: Http, method: str, path: str) -> None:
    for shown in (
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {http.token}x",
        f"Basic {http.token}",
        f"Bearer {http.token[:-1]}",
    ):
        detail = await http.detail(method, path, 403, headers={"Authorization": shown})
        assert detail in {"Invalid secret token", "Missing or invalid authorization header"}


@pytest.mark.parametrize("shown", ["Bearer é", "Bearer \udcff", "Bearer " + "x" * 7000])
def test_odd_tokens_are_wrong_ones(shown: str) -> None:
    with pytest.raises(Refused) as refused:
        _let_in(shown, b"token")
    assert refused.value.status == 403


async def test_the_token_is_nowhere_to_be_found(server: BoxProcess, http: Http) -> None:
    pid = server.process.pid
    token = server.token.encode()
    await http("GET", "/healthz", headers={"Authorization": f"Bearer {server.token}x"})

    assert token not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert token not in Path(f"/proc/{pid}/environ").read_bytes()
    assert not (server.directory / "token").exists()
    assert server.token not in server.log
    assert server.token not in repr(BoxOptions(token=server.token))


async def test_the_servers_memory_and_environment_are_closed_to_what_runs_in_the_box(
    server: BoxProcess,
) -> None:
    async with server.connected():
        shown = Path(f"/proc/{server.process.pid}/environ").stat()

        assert (shown.st_uid, shown.st_mode & 0o077) == (0, 0)


def test_a_token_from_the_environment_is_taken_out_of_it() -> None:
    environ = {"SECRET_TOKEN": "t", "GREENROOM_BOX_LISTEN": "127.0.0.1:0", "HOME": "/"}
    options = options_of(environ)

    assert options.token == "t"
    assert "SECRET_TOKEN" not in environ
    assert (options.listen, options.kind, options.workspace) == (
        ("127.0.0.1", 0),
        "browser",
        Path("/workspace"),
    )


def test_a_token_file_that_is_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("t")
    (tmp_path / "token").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="symbolic links"):
        options_of({"GREENROOM_BOX": str(tmp_path)})


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"GREENROOM_BOX_LISTEN": "127.0.0.1:80"},
        {"GREENROOM_BOX_LISTEN": "nowhere", "SECRET_TOKEN": "t"},
        {"GREENROOM_BOX_LISTEN": "127.0.0.1:99999", "SECRET_TOKEN": "t"},
        {"GREENROOM_BOX_LISTEN": "127.0.0.1:80", "SECRET_TOKEN": "t", "GREENROOM_BOX_KIND": "mobile"},
        {"GREENROOM_BOX_LISTEN": "127.0.0.1:80", "SECRET_TOKEN": "t", "GREENROOM_BOX_RELAY": "x"},
    ],
)
def test_what_is_told_wrongly_is_refused_in_words(environ: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"GREENROOM_BOX|token"):
        options_of(environ)

    ended = subprocess.run(
        [sys.executable, "-m", "greenroom.sandbox.image"],
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("the box's tool server cannot start: ")


# ------------------------------------------------------------------------------------------------------ routes


async def test_health_is_one_word(http: Http) -> None:
    assert await http("GET", "/healthz") == (200, "OK")
    assert await http("GET", "/healthz?warm=1") == (200, "OK")


async def test_routes_that_there_are_not(http: Http) -> None:
    assert await http.detail("GET", "/desktop", 404) == "Not Found"
    assert await http.detail("GET", "/tools/run_shell_command", 405) == "Method Not Allowed"
    assert await http.detail("POST", "/tools/else", 404) == "Not Found"
    assert "no other MCP servers" in await http.detail(
        "POST", "/mcp/add_servers", 501, json={"server_configs": {}}
    )
    assert "no browser" in await http.detail("GET", "/live", 503)


async def test_bodies_that_are_no_calls(http: Http) -> None:
    assert "JSON object" in await http.detail("POST", "/mcp/call_tool", 422, data=b"{")
    assert "JSON object" in await http.detail("POST", "/mcp/call_tool", 422, json=[])
    assert "tool_name" in await http.detail("POST", "/mcp/call_tool", 422, json={"arguments": {}})
    assert "object" in await http.detail(
        "POST", "/mcp/call_tool", 422, json={"tool_name": "x", "arguments": [1]}
    )
    assert "'x' not found" in await http.detail("POST", "/mcp/call_tool", 500, json={"tool_name": "x"})
    assert "command" in await http.detail("POST", "/tools/run_shell_command", 400, json={"command": 7})
    status, _ = await http("POST", "/mcp/call_tool", data=io.BytesIO(b"x" * 17_000_000))
    assert status == 413


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "0", "x", "1e9"])
async def test_seconds_are_bounded(http: Http, seconds: str) -> None:
    headers = {"X-Greenroom-Seconds": seconds}
    detail = await http.detail(
        "POST", "/tools/run_shell_command", 400, json={"command": "true"}, headers=headers
    )

    assert "X-Greenroom-Seconds" in detail


async def test_base_tools_can_be_called_by_the_common_route_too(http: Http) -> None:
    body = {"tool_name": "run_shell_command", "arguments": {"command": "echo hi"}}
    status, answer = await http("POST", "/mcp/call_tool", json=body)

    assert status == 200
    assert json.loads(answer) == {
        "meta": None,
        "content": [
            {"type": "text", "text": "hi\n", "description": "stdout"},
            {"type": "text", "text": "0", "description": "returncode"},
        ],
        "isError": False,
    }


async def test_files_as_the_official_client_sends_them(http: Http, server: BoxProcess) -> None:
    assert (await http("PUT", "/workspace/file?path=a%2Fb.txt", data="text ü".encode()))[0] == 200
    assert await http("GET", "/workspace/file?path=a/b.txt") == (200, "text ü")
    form = aiohttp.FormData(default_to_multipart=True, quote_fields=False)
    form.add_field("files", b"1", filename="named/by-file")
    assert (await http("POST", "/workspace/files:batch", data=form))[0] == 200
    assert (server.workspace / "named" / "by-file").read_bytes() == b"1"
    assert "path is missing" in await http.detail("GET", "/workspace/file", 400)
    assert "depth" in await http.detail("GET", "/workspace/list?path=.&depth=0", 400)
    assert "NUL" in await http.detail("GET", "/workspace/file?path=%00", 400)
    assert (await http("DELETE", "/workspace/entry?path=a"))[0] == 204
    assert "object" in await http.detail("POST", "/workspace/mkdir", 422, json=[])


async def test_a_form_that_does_not_fit_writes_what_came_and_says_so(http: Http) -> None:
    form = aiohttp.FormData(default_to_multipart=True)
    form.add_field("paths", "one")
    form.add_field("paths", "two")
    form.add_field("files", b"1", filename="x")

    assert "2 paths for 1 files" in await http.detail("POST", "/workspace/files:batch", 400, data=form)


async def test_an_upload_that_breaks_off_leaves_nothing(http: Http, server: BoxProcess) -> None:
    (server.workspace / "kept").write_bytes(b"old")
    begun = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 1_000_000
        begun.set()
        await asyncio.sleep(60)

    call = asyncio.create_task(http("PUT", "/workspace/file?path=kept", data=pieces()))
    await begun.wait()
    call.cancel()
    await asyncio.wait({call})

    deadline = time.monotonic() + 10
    while [path.name for path in server.workspace.iterdir() if path.name.endswith(".part")]:
        assert time.monotonic() < deadline, "a part of a file was left"
        await asyncio.sleep(0.02)
    assert (server.workspace / "kept").read_bytes() == b"old"


async def test_more_calls_than_may_are_refused(http: Http, server: BoxProcess) -> None:
    calls = [
        asyncio.create_task(server.client.call("run_shell_command", {"command": "sleep 1"}, 20))
        for _ in range(64)
    ]
    try:
        deadline = time.monotonic() + 10
        while (await http("GET", "/healthz"))[0] != 503:
            assert time.monotonic() < deadline, "all were let in"
        assert "calls are under way" in await http.detail("GET", "/healthz", 503)
    finally:
        await asyncio.gather(*calls)


# ------------------------------------------------------------------------------------------------------ start and end


async def test_a_server_can_listen_at_a_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    token = "from-the-environment"
    with box_process(environ={"GREENROOM_BOX_LISTEN": f"127.0.0.1:{port}", "SECRET_TOKEN": token}) as server:
        client = BoxClient(BoxAddress(token=server.token, url=f"http://127.0.0.1:{port}/fastapi"))
        await client.ready(60)
        result = await client.call("run_shell_command", {"command": "env"}, 20)
        await client.close()

    assert "SECRET_TOKEN" not in result.text
    assert token not in result.text


def test_connections_are_accepted_before_everything_is_imported() -> None:
    directory = Path(tempfile.mkdtemp(prefix="box-"))
    code = (
        "import os, sys; from greenroom.sandbox.image.options import listener, options_of; "
        "listener(options_of(os.environ)); print(sorted({'aiohttp', 'asyncio', 'ssl', 'jupyter_client', "
        "'playwright'} & set(sys.modules)))"
    )
    # The parent packages of an installation may import more; an image's are empty.
    bare = directory / "greenroom" / "sandbox"
    bare.mkdir(parents=True)
    (directory / "greenroom" / "__init__.py").touch()
    (bare / "__init__.py").touch()
    (bare / "image").symlink_to(Path(str(image.__file__)).parent)
    environ = {"PYTHONPATH": str(directory), "GREENROOM_BOX": str(directory), "SECRET_TOKEN": "t"}
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-S", "-c", code], env=environ, capture_output=True, text=True, check=False
        )
        assert ended.stdout == "[]\n", ended.stderr
        assert (directory / "api.sock").stat().st_mode & 0o777 == 0o666
    finally:
        shutil.rmtree(directory)


async def test_a_server_that_is_told_to_end_ends_its_calls() -> None:
    word = f"3620.{os.getpid()}"
    with box_process() as server:
        async with server.connected() as box:
            cell = asyncio.create_task(box.cell(f"import subprocess; subprocess.run(['sleep', '{word}'])"))
            command = asyncio.create_task(box.run(f"sleep {word}; sleep {word}"))
            deadline = time.monotonic() + 30
            while len(running_with(word)) < 2:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
            server.process.send_signal(signal.SIGTERM)
            await asyncio.wait({cell, command})

    assert not running_with(word)
