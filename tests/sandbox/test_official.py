"""Our client drives the official image's own application: the protocol is theirs and not our idea of it."""

from __future__ import annotations

import base64
import re
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from greenroom.actors.errors import SandboxError, SandboxFileNotFound, SandboxUnavailable
from greenroom.sandbox.backend import BoxAddress, BoxSpec
from greenroom.sandbox.browser_sandbox import BrowserSandbox
from greenroom.sandbox.client import BoxClient
from greenroom.sandbox.image.tool_schemas import BASE_TOOLS, BROWSER_TOOLS
from greenroom.sandbox.remote.backend import RemoteBackend
from greenroom.sandbox.result import ToolResult
from greenroom.sandbox.settings import SandboxSettings
from kits.browser_here import BROWSERS
from kits.node_clients import NodeMissing
from kits.official_box import OfficialBox, official_box
from kits.site import site

pytestmark = pytest.mark.slow

START_SECONDS = 90.0
CALL_SECONDS = 60.0

ONLY_OURS = {"browser_snapshot": {"ref", "depth"}}
"""What models find in our descriptions and the official server does not look at."""

SHOP = """
<title>Shop</title><h1>Tea</h1>
<label>How many <input name=count></label>
<select aria-label=Kind><option>green<option>black</select>
<button onclick="document.querySelector('p').textContent =
    document.querySelector('input').value + ' ' + document.querySelector('select').value">Order</button>
<p>nothing ordered</p>
"""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OfficialBox]:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("needs a browser: apt-get install chromium-headless-shell")
    try:
        with official_box(tmp_path_factory.mktemp("official"), browser) as running:
            yield running
    except NodeMissing as missing:
        pytest.skip(f"needs node: {missing}")


@pytest_asyncio.fixture
async def client(box: OfficialBox) -> AsyncIterator[BoxClient]:
    client = BoxClient(BoxAddress(token=box.token, url=box.url + "/fastapi"))
    try:
        await client.ready(START_SECONDS)
        yield client
    finally:
        await client.close()


class Calls:
    """Calls tools, which must succeed."""

    def __init__(self, client: BoxClient) -> None:
        self.client = client

    async def __call__(self, tool: str, **arguments: Any) -> ToolResult:
        result = await self.client.call(tool, arguments, CALL_SECONDS)
        assert not result.is_error, result.text
        return result


@pytest.fixture
def call(client: BoxClient) -> Calls:
    return Calls(client)


def ref_of(snapshot: ToolResult, what: str) -> str:
    """The reference of the element whose line in the snapshot begins so."""
    found = re.search(re.escape(what) + r".*?\[ref=(\w+)\]", snapshot.text)
    assert found, snapshot.text
    return found[1]


async def test_it_is_healthy_for_who_shows_the_token(client: BoxClient, box: OfficialBox) -> None:
    assert await client.healthy(10.0)
    stranger = BoxClient(BoxAddress(token="guessed", url=box.url + "/fastapi"))
    try:
        assert not await stranger.healthy(10.0)
        with pytest.raises(SandboxUnavailable, match="refused our token"):
            await stranger.tools()
    finally:
        await stranger.close()


async def test_the_browsers_tools_have_the_names_and_arguments_that_ours_have(client: BoxClient) -> None:
    theirs = (await client.tools())["playwright"]
    assert set(BROWSER_TOOLS) <= set(theirs)
    for name, ours in BROWSER_TOOLS.items():
        parameters = theirs[name]["json_schema"]["function"]["parameters"]
        properties = set(ours["parameters"]["properties"])

        assert set(parameters["required"]) <= set(ours["parameters"]["required"]), name
        assert properties - set(parameters["properties"]) <= ONLY_OURS.get(name, set()), name


async def test_a_page_is_read_and_used(call: Calls) -> None:
    async with site({"/shop": SHOP}) as served:
        opened = await call("browser_navigate", url=served("/shop"))
        for line in [f"- Page URL: {served('/shop')}", "- Page Title: Shop", "- Page Snapshot"]:
            assert line in opened.text
        seen = await call("browser_snapshot")
        assert "```yaml" in seen.text
        await call(
            "browser_type",
            element="How many",
            ref=ref_of(seen, "textbox"),
            text="3",
            submit=None,
            slowly=None,
        )
        await call("browser_select_option", element="Kind", ref=ref_of(seen, "combobox"), values=["black"])
        after = await call("browser_click", element="Order", ref=ref_of(seen, 'button "Order"'))
        assert "3 black" in after.text
        await call("browser_hover", element="Order", ref=ref_of(seen, 'button "Order"'))
        waited = await call("browser_wait_for", time=None, text="3 black", textGone="")
        assert "3 black" in waited.text
        await call("browser_press_key", key="Tab")
        requests = await call("browser_network_requests")
        assert "/shop" in requests.text


async def test_a_screenshot_is_the_first_part(call: Calls) -> None:
    async with site() as served:
        await call("browser_navigate", url=served("/"))
        for raw, kind in [(None, "image/jpeg"), (True, "image/png")]:
            shot = await call("browser_take_screenshot", raw=raw, filename="", element=None, ref=None)
            ((media_type, data),) = shot.images
            assert (media_type, shot["content"][0]["type"]) == (kind, "image")
            assert base64.b64decode(data)


async def test_tabs_are_counted_from_one(call: Calls) -> None:
    async with site({"/two": "<title>Two</title>second"}) as served:
        await call("browser_navigate", url=served("/"))
        await call("browser_tab_new", url=served("/two"))
        listed = await call("browser_tab_list")
        assert "- 1: [Home]" in listed.text
        assert "- 2: (current) [Two]" in listed.text
        back = await call("browser_tab_select", index=1)
        assert "- 1: (current) [Home]" in back.text
        await call("browser_tab_close", index=2)
        assert "Two" not in (await call("browser_tab_list")).text


async def test_going_back_and_forward_and_closing(call: Calls) -> None:
    async with site({"/two": "<title>Two</title>second"}) as served:
        await call("browser_navigate", url=served("/"))
        await call("browser_navigate", url=served("/two"))
        assert "Home" in (await call("browser_navigate_back")).text
        assert "Two" in (await call("browser_navigate_forward")).text
        await call("browser_resize", width=640, height=480)
        await call("browser_console_messages")
        await call("browser_close")


async def test_a_tool_that_fails_and_one_that_is_not_there_are_results(
    client: BoxClient, call: Calls
) -> None:
    async with site() as served:
        await call("browser_navigate", url=served("/"))
        stale = await client.call("browser_click", {"element": "x", "ref": "e999"}, CALL_SECONDS)
        assert stale.is_error
        assert "snapshot" in stale.text
    unknown = await client.call("browser_fly", {}, CALL_SECONDS)
    assert unknown.is_error
    assert "browser_fly" in unknown.text
    assert "Traceback" not in unknown.text


async def test_cells_keep_their_variables(call: Calls) -> None:
    await call("run_ipython_cell", code="tea = 6 * 7")
    said = await call("run_ipython_cell", code="print(tea)")
    assert said.part("stdout").strip() == "42"
    broken = await call("run_ipython_cell", code="1 / 0")
    assert "ZeroDivisionError" in broken.part("stdout")


async def test_a_commands_parts(client: BoxClient, call: Calls) -> None:
    said = await call("run_shell_command", command="echo $((6 * 7))")
    assert (said.part("stdout"), said.part("stderr"), said.part("returncode")) == ("42\n", "", "0")
    failed = await client.call("run_shell_command", {"command": "echo oh >&2; exit 3"}, CALL_SECONDS)
    assert (failed.part("stderr"), failed.part("returncode")) == ("oh\n", "3")
    empty = await client.call("run_shell_command", {"command": ""}, CALL_SECONDS)
    assert empty.is_error
    assert "required" in empty.text


async def test_the_workspace(client: BoxClient, box: OfficialBox) -> None:
    data = bytes(range(256))
    entry = await client.write("folder/a.bin", data)
    assert (entry.name, entry.type, entry.size) == ("a.bin", "file", 256)
    assert await client.read("folder/a.bin") == data
    assert await client.exists("folder/a.bin")
    assert not await client.exists("folder/b.bin")
    assert await client.mkdir("folder/below")
    many = await client.write_many({"folder/one.txt": b"1", "folder/two ä.txt": b"2"})
    assert [one.size for one in many] == [1, 1]
    names = {one.name for one in await client.list("folder")}
    assert names == {"a.bin", "below", "one.txt", "two ä.txt"}
    moved = await client.move("folder/one.txt", "folder/below/three.txt")
    assert moved.name == "three.txt"
    assert "three.txt" in {one.name for one in await client.list("folder", depth=2)}
    assert (box.workspace / "folder" / "below" / "three.txt").read_bytes() == b"1"
    await client.remove("folder")
    assert not await client.exists("folder")
    with pytest.raises(SandboxFileNotFound):
        await client.read("folder/a.bin")
    with pytest.raises(SandboxError):
        await client.read("/etc/passwd")


def new_spec(folder: Path) -> BoxSpec:
    lease = secrets.token_hex(8)
    directory = folder / lease
    directory.mkdir()
    return BoxSpec(lease=lease, owner="o", kind="browser", token=secrets.token_hex(8), directory=directory)


async def test_it_is_one_sessions_only(box: OfficialBox, client: BoxClient, tmp_path: Path) -> None:
    """The remote backend finds out that it cannot be reset."""
    with pytest.raises(SandboxFileNotFound):
        await client.reset()
    settings = SandboxSettings(backend=box.url, token=box.token)
    backend = RemoteBackend(settings, folder=tmp_path / "records")
    await backend.start()
    first, second = new_spec(tmp_path), new_spec(tmp_path)
    through = BoxClient(await backend.create(first))
    try:
        assert (await through.call("run_shell_command", {"command": "echo hi"}, 20.0)).part(
            "stdout"
        ) == "hi\n"
        async with site() as served:
            opened = await through.call("browser_navigate", {"url": served("/")}, CALL_SECONDS)
            assert "Welcome" in opened.text
        await backend.remove(first.lease)
        with pytest.raises(SandboxUnavailable, match="given to no other one"):
            await backend.create(second)
    finally:
        await through.close()
        await backend.stop()


async def test_a_browser_sandbox_of_ours_uses_it(box: OfficialBox, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="gr-") as short:  # sockets lie in it
        monkeypatch.setenv("GREENROOM_STATE", f"{short}/state")
        monkeypatch.setenv("GREENROOM_RUN", f"{short}/run")
        async with (
            site({"/shop": SHOP}) as served,
            BrowserSandbox(base_url=box.url, bearer_token=box.token) as tools,
        ):
            opened = await tools.browser_navigate(served("/shop"))
            await tools.browser_type("How many", ref_of(opened, "textbox"), "5")
            ordered = await tools.browser_click("Order", ref_of(opened, 'button "Order"'))
            assert "5 green" in ordered.text
            assert (await tools.browser_take_screenshot()).images
            assert "42" in (await tools.run_ipython_cell("6 * 7")).text


def test_its_base_tools_are_ours() -> None:
    assert set(BASE_TOOLS) == {"run_ipython_cell", "run_shell_command"}
