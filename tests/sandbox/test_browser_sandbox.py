"""The objects that users have: their tools, their files, their life."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import anyio.to_thread
import pytest

import greenroom.sandbox
from greenroom.actors.errors import ConfigurationError, LeaseOver, MissingDependency, SandboxUnavailable
from greenroom.sandbox import BaseSandbox, BrowserSandbox, SandboxSettings, standalone
from greenroom.sandbox.calling import ToolAnswer
from greenroom.sandbox.image.tool_schemas import BASE_TOOLS, BROWSER_TOOLS, TOOLS
from greenroom.sandbox.leases import LeaseKey
from kits.fake_keeper import FakeKeeper

KEY = LeaseKey("ann", "s1", "browser")
JSON_TYPES = {"string": "str", "boolean": "bool", "integer": "int", "number": "float", "array": "list[str]"}


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> FakeKeeper:
    """What sandboxes that belong to no service are kept by."""
    keeper = FakeKeeper()

    async def started(settings: object) -> FakeKeeper:
        keeper.__dict__["settings"] = settings
        return keeper

    monkeypatch.setattr(standalone, "started_keeper", started)
    return keeper


# -- the tools ---------------------------------------------------------------------------------------------------------


def in_words(docstring: str) -> tuple[str, dict[str, tuple[str, str]]]:
    """A docstring's description, and of each argument what stands in parentheses and what is said of it."""
    before, _, arguments = inspect.cleandoc(docstring).partition("\nArgs:\n")
    found: dict[str, tuple[str, str]] = {}
    for entry in re.split(r"\n(?=    \w)", "\n" + arguments):
        if match := re.fullmatch(r"\s*(\w+) \(([^)]*)\): (.*)", entry, re.DOTALL):
            found[match[1]] = match[2], " ".join(match[3].split())
    return " ".join(before.split()), found


def on_the_wire(name: str) -> str:
    return re.sub(r"_(\w)", lambda match: match[1].upper(), name)


@pytest.mark.parametrize("name", TOOLS)
def test_a_method_its_docstring_and_its_schema_say_the_same(name: str) -> None:
    method: Any = getattr(BrowserSandbox, name)
    schema = TOOLS[name]
    properties, required = schema["parameters"]["properties"], schema["parameters"]["required"]
    description, arguments = in_words(method.__doc__)
    assert description == schema["description"]
    parameters = list(inspect.signature(method).parameters.values())[1:]
    assert [on_the_wire(parameter.name) for parameter in parameters] == list(properties)
    assert list(arguments) == [parameter.name for parameter in parameters]
    hints = get_type_hints(method)
    assert hints.pop("return") is ToolAnswer
    for parameter in parameters:
        wanted = properties[on_the_wire(parameter.name)]
        optional = on_the_wire(parameter.name) not in required
        plain = JSON_TYPES[wanted["type"]]
        told, said = arguments[parameter.name]
        assert said == wanted["description"]
        assert told == (f"{plain}, optional" if optional else plain)
        written = hints[parameter.name]
        shown = (
            written.__name__
            if isinstance(written, type) and not hasattr(written, "__args__")
            else str(written)
        )
        assert shown in {plain, f"{plain} | None"}
        assert (parameter.default is not parameter.empty) == optional
        if optional:
            assert parameter.default in {None, "", wanted.get("default", "")}


@pytest.mark.parametrize("name", TOOLS)
async def test_a_method_calls_the_tool_of_its_name_with_all_it_got(name: str) -> None:
    keeper = FakeKeeper()
    box = BrowserSandbox.leased(keeper, KEY)
    properties = TOOLS[name]["parameters"]["properties"]
    method: Any = getattr(box, name)
    given = {
        parameter: f"the {parameter}" for parameter in inspect.signature(method).parameters
    }  # of whatever type: what is wrong is said in the box
    await method(**given)
    assert keeper.calls == [(name, {on_the_wire(key): value for key, value in given.items()})]
    assert set(keeper.calls[0][1]) == set(properties)


def test_a_base_sandbox_has_no_browser() -> None:
    assert [name for name in TOOLS if hasattr(BaseSandbox, name)] == list(BASE_TOOLS)


def test_methods_are_marked_as_what_may_be_called_on_a_loop() -> None:
    for name in TOOLS:
        assert getattr(BrowserSandbox(), name).never_blocks


async def test_any_tool_by_name(keeper: FakeKeeper) -> None:
    async with BrowserSandbox() as box:
        answer = await box.call_tool("browser_tab_new", {"url": "https://example.com/"}, seconds=3)
    assert answer.text == "browser_tab_new {'url': 'https://example.com/'}"


# -- what it tells of itself -------------------------------------------------------------------------------------------


def test_the_list_of_tools_is_there_without_a_box() -> None:
    tools = BrowserSandbox().list_tools()
    assert set(tools) == {"playwright", "generic"}
    assert set(tools["playwright"]) == set(BROWSER_TOOLS)
    navigate = tools["playwright"]["browser_navigate"]
    assert navigate["name"] == "browser_navigate"
    assert navigate["json_schema"]["function"]["parameters"]["required"] == ["url"]
    printed = str(tools)
    assert "  browser_click(element, ref): Click an element" in printed
    assert set(BaseSandbox().list_tools()) == {"generic"}
    assert set(BrowserSandbox().list_tools("generic")) == {"generic"}


async def test_the_list_of_tools_may_be_awaited() -> None:
    assert await BrowserSandbox().list_tools() == BrowserSandbox().list_tools()


async def test_what_it_shows_has_no_secret(keeper: FakeKeeper) -> None:
    box = BrowserSandbox(base_url="http://elsewhere:8000/fastapi", bearer_token="hidden")
    assert "hidden" not in f"{box!r}{box.get_info()}"
    assert box.get_info()["state"] == "not started"
    async with box:
        assert box.get_info()["state"] == "started"
        assert "hidden" not in f"{box!r}{box.get_info()}"
    settings = keeper.__dict__["settings"]
    assert (settings.backend, settings.token) == ("http://elsewhere:8000/fastapi", "hidden")
    leased = BrowserSandbox.leased(keeper, KEY)
    assert (leased.get_info()["user_id"], leased.get_info()["session_id"]) == ("ann", "s1")
    assert repr(leased) == "<BrowserSandbox of session 's1'>"
    assert len(leased.sandbox_id) == 32


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sandbox_id": "abc"}, "SandboxService.connect"),
        ({"workspace_dir": "/tmp"}, r"box\.fs\.write_from_path"),
        ({"sandbox_type": "gui"}, "of the kind 'browser'"),
        ({"base_url": "http://x", "settings": SandboxSettings()}, "give one of them"),
    ],
)
def test_what_it_cannot_be_is_refused_with_words(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        BrowserSandbox(**options)


def test_the_predecessors_type_is_taken() -> None:
    assert BrowserSandbox(sandbox_type=SimpleNamespace(value="browser_async")).kind == "browser"
    assert greenroom.sandbox.BrowserSandboxAsync is BrowserSandbox
    assert greenroom.sandbox.BaseSandboxAsync is BaseSandbox


@pytest.mark.parametrize(
    "name", [name for name in greenroom.sandbox.__all__ if name[:3] in {"Gui", "Mob", "Fil"}]
)
def test_making_other_kinds_says_what_to_use(name: str) -> None:
    with pytest.raises(MissingDependency, match=f"{name}: .* use BrowserSandbox or BaseSandbox"):
        getattr(greenroom.sandbox, name)(timeout=3)


def test_importing_sandboxes_is_light() -> None:
    heavy = ("agentscope", "aiodocker", "aiohttp", "IPython", "playwright", "pydantic", "sqlite3")
    code = f"import greenroom.sandbox, sys; print([name for name in {heavy!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# -- life --------------------------------------------------------------------------------------------------------------


async def test_async_with(keeper: FakeKeeper) -> None:
    async with BrowserSandbox() as box:
        _ = box.browser_navigate("https://example.com/")
        assert not keeper.stopped
    assert keeper.done == [("browser_navigate", "answered")]
    assert keeper.stopped
    (key,) = keeper.keys
    assert (key.user_id, key.kind) == ("", "browser")
    assert key.session_id == f"alone-{box.sandbox_id}"
    with pytest.raises(LeaseOver, match="this BrowserSandbox was closed"):
        _ = box.browser_snapshot()


async def test_start_and_close_in_asyncio(keeper: FakeKeeper) -> None:
    box = BaseSandbox()
    assert await box.start() is box
    assert "ls" in (await box.run_shell_command("ls")).text
    await box.close()
    await box.close()
    assert keeper.stopped


async def test_start_and_close_in_a_thread(keeper: FakeKeeper) -> None:
    def script() -> str:
        box = BaseSandbox().start()
        text: str = box.run_shell_command("ls").text
        box.close()
        box.close()
        return text

    assert "ls" in await anyio.to_thread.run_sync(script)
    assert keeper.stopped


async def test_with_is_refused_where_a_loop_runs(keeper: FakeKeeper) -> None:
    with pytest.raises(ConfigurationError, match=r"write `async with BrowserSandbox\(\) as box:`"):
        BrowserSandbox().__enter__()
    assert not keeper.calls


@pytest.mark.blocks_loop
async def test_with_may_block_the_kernel_of_a_notebook(
    keeper: FakeKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    with BrowserSandbox() as box:
        assert box.browser_snapshot().text == "browser_snapshot {'ref': '', 'depth': None}"
        assert (await box.browser_tab_list()).text.startswith("browser_tab_list")
        box.fs.write("a.txt", "hello")
        assert box.fs.read("a.txt") == "hello"
    assert keeper.stopped


async def test_where_there_can_be_none_with_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def started(settings: object) -> FakeKeeper:
        raise SandboxUnavailable("install bubblewrap")

    monkeypatch.setattr(standalone, "started_keeper", started)
    with pytest.raises(SandboxUnavailable, match="install bubblewrap"):
        await anyio.to_thread.run_sync(BrowserSandbox().__enter__)
    with pytest.raises(SandboxUnavailable, match="install bubblewrap"):
        await BrowserSandbox().__aenter__()


async def test_closing_a_sessions_sandbox_releases_its_box(keeper: FakeKeeper) -> None:
    async with BrowserSandbox.leased(keeper, KEY) as box:
        _ = box.browser_snapshot()
    assert keeper.released == [KEY]
    assert not keeper.stopped
    assert (await box.browser_snapshot()).text


def test_a_script_that_never_closes_ends_all_the_same() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from greenroom.sandbox import BrowserSandbox, standalone\n"
        "from kits.fake_keeper import FakeKeeper\n"
        "keeper = FakeKeeper()\n"
        "async def started(settings): return keeper\n"
        "async def stop(): print('stopped')\n"
        "standalone.started_keeper, keeper.stop = started, stop\n"
        "print(BrowserSandbox().start().browser_snapshot().text)\n"
    )
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert found.stdout.splitlines() == ["browser_snapshot {'ref': '', 'depth': None}", "stopped"]
    assert not found.stderr


# -- files -------------------------------------------------------------------------------------------------------------


async def test_files(keeper: FakeKeeper, tmp_path: Path) -> None:
    local = tmp_path / "local.bin"
    await anyio.to_thread.run_sync(local.write_bytes, b"\x00\x01")
    async with BaseSandbox() as box:
        assert await box.fs.write("a.txt", "grün") == {
            "path": "a.txt",
            "name": "a.txt",
            "type": "file",
            "size": 5,
            "mtime_ms": 0,
        }
        assert await box.fs.read("a.txt") == "grün"
        assert await box.fs.read_async("a.txt", fmt="bytes") == "grün".encode()
        assert [entry["path"] for entry in await box.fs.list()] == ["a.txt"]
        await box.fs.write_many([{"path": "b", "data": b"1"}, {"path": "c", "data": "2"}])
        await box.fs.write_many({"d": bytearray(b"3")})
        with await anyio.to_thread.run_sync(local.open, "rb") as opened:
            await box.fs.write("e", opened)
        await box.fs.write_from_path("f", str(local))
        assert await box.fs.read("f", fmt="bytes") == await box.fs.read("e", fmt="bytes") == b"\x00\x01"
        assert (await box.fs.move("b", "g"))["path"] == "g"
        await box.fs.remove("c")
        assert [await box.fs.exists(name) for name in "bcdg"] == [False, False, True, True]
        assert await box.fs.mkdir("h")
        assert {entry["path"] for entry in await box.fs.list_async(".")} == {"a.txt", "d", "e", "f", "g"}
        with pytest.raises(ValueError, match="neither"):
            box.fs.read("a.txt", fmt="stream")  # type: ignore[arg-type]


async def test_files_wait_their_turn(keeper: FakeKeeper) -> None:
    async with BaseSandbox() as box:
        _ = box.run_shell_command("ls > listing")
        written = box.fs.write("a", "1")
        assert keeper.keys == []
        await written
        assert len(keeper.done) == 1
