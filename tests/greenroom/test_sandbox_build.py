"""What `greenroom sandbox build` shows while it builds: on a terminal and without one."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from greenroom.sandbox.building.context import REQUIREMENTS
from greenroom.sandbox.docker.engine import Engine
from kits.building_engine import BuildingEngine, building_engine
from kits.engine import OwnEngine
from kits.small_wheel import index_settings, write_empty_wheel
from kits.terminal import OnTerminal, on_terminal

pytestmark = pytest.mark.slow

COMMAND = [str(Path(sys.executable).with_name("greenroom")), "sandbox", "build"]
NAME = "greenroom-test/shown:now"
PARTS = ["fetching Python packages", "getting Debian", "building the image"]

PULLED = [{"status": "Pulling fs layer"}, {"status": "Downloading", "progress": "[====>   ] 12MB/29MB"}]
BUILT = [
    {"stream": "Step 1/4 : FROM debian:bookworm-slim"},
    {
        "stream": "Step 2/4 : RUN apt-get update -qq     && apt-get install -y chromium-headless-shell fonts-liberation"
    },
    {"stream": "\n"},
    {"stream": " ---> Running [/bold] 4711"},
    {"stream": "Step 4/4 : ENTRYPOINT"},
]


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """In which nothing is in the cache, and the Python packages are empty ones, in a folder; `DOCKER_HOST` names no
    engine yet."""
    for requirement in REQUIREMENTS:
        name, version = re.findall(r"^([\w-]+)>=([\d.]+)", requirement)[0]
        write_empty_wheel(tmp_path / "index", name, version)
    with tempfile.TemporaryDirectory(prefix="gr-") as folder:  # its path is short: a socket lies in it
        yield {
            **{name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}},
            **index_settings(tmp_path / "index"),
            "GREENROOM_CACHE": str(tmp_path / "cache"),
            "GREENROOM_SANDBOX_IMAGE": NAME,
            "DOCKER_HOST": f"unix://{folder}/engine.sock",
        }


@asynccontextmanager
async def building(
    environ: Mapping[str, str], built: list[dict[str, str]] = BUILT
) -> AsyncIterator[tuple[BuildingEngine, OnTerminal]]:
    """The command on a terminal, and the engine that builds for it."""
    socket = Path(environ["DOCKER_HOST"].removeprefix("unix://"))
    async with (
        building_engine(socket, pulled=PULLED, built=built) as engine,
        on_terminal(COMMAND, environ) as command,
    ):
        yield engine, command


def lines_of(screen: str) -> list[str]:
    """What each line says, without the spinner or bar, which move."""
    return [re.sub(r"^[^A-Za-z]+", "", line) for line in screen.splitlines()]


async def test_a_terminal_shows_each_part_with_its_newest_line_and_is_clean_at_the_end(
    environ: Mapping[str, str],
) -> None:
    async with building(environ) as (engine, command):
        await command.until(lambda screen: "pulling debian" in screen)
        engine.go_on(2)
        pulling = await command.until(lambda screen: "12MB/29MB" in screen)
        assert [line[: len(part)] for line, part in zip(lines_of(pulling), PARTS, strict=False)] == PARTS[:2]
        assert not command.screen.cursor_shown

        engine.go_on(3)  # the pulling's end, too
        installing = await command.until(lambda screen: "Step 2/4" in screen)
        assert [line[: len(part)] for line, part in zip(lines_of(installing), PARTS, strict=True)] == PARTS
        assert "12MB" not in installing  # what is done says no more

        engine.go_on(2)
        await command.until(lambda screen: "---> Running [/bold] 4711" in screen)
        engine.go_on()
        await command.until(lambda screen: "Step 4/4" in screen)
        engine.go_on()
        assert await command.end() == (0, f"{NAME} (123 MB, built)\n")

    assert (command.screen.text, command.screen.row, command.screen.column) == ("", 0, 0)
    assert command.screen.cursor_shown
    first = [next(n for n, screen in enumerate(command.seen) if part in screen) for part in PARTS]
    assert first == sorted(set(first))
    assert any("4 packages" in screen for screen in command.seen)


async def test_a_build_that_fails_leaves_its_error_alone_on_the_terminal(environ: Mapping[str, str]) -> None:
    async with building(environ, [*BUILT[:2], {"error": "no space left"}]) as (engine, command):
        engine.go_on(6)
        code, output = await command.end()
    assert (code, output) == (1, "")
    assert command.screen.text.startswith("Error: the image could not be built")
    assert "no space left" in command.screen.text
    assert not any(part in command.screen.text for part in PARTS)
    assert command.screen.cursor_shown


async def test_without_a_terminal_each_part_is_a_line_and_the_name_alone_on_standard_output(
    environ: Mapping[str, str],
) -> None:
    socket = Path(environ["DOCKER_HOST"].removeprefix("unix://"))
    async with building_engine(socket, pulled=PULLED, built=BUILT) as engine:
        engine.go_on(len(PULLED) + len(BUILT) + 2)
        process = await asyncio.create_subprocess_exec(
            *COMMAND, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, said = await process.communicate()
    assert output.decode() == f"{NAME} (123 MB, built)\n"
    assert said.decode() == "".join(f"- {part}\n" for part in PARTS)


async def test_a_real_build_shows_the_engines_steps_and_leaves_nothing(docker_engine: OwnEngine) -> None:
    """Of layers that the engine has: all of it but the waiting."""
    name = f"greenroom-test/shown:{secrets.token_hex(4)}"
    environ = {**os.environ, "DOCKER_HOST": docker_engine.url, "GREENROOM_SANDBOX_IMAGE": name}
    try:
        async with on_terminal(COMMAND, environ) as command:
            code, output = await command.end()
    finally:
        with anyio.CancelScope(shield=True):
            await forget(docker_engine, name)
    assert code == 0, command.screen.text
    assert re.fullmatch(re.escape(name) + r" \(\d+ MB, built\)\n", output)
    steps = [
        step for screen in command.seen for step in re.findall(r"building the image.*Step (\d+)/\d+", screen)
    ]
    assert steps
    assert steps == sorted(steps, key=int)
    assert (command.screen.text, command.screen.row) == ("", 0)


async def forget(own: OwnEngine, name: str) -> None:
    engine = Engine(own.url)
    await engine.open()
    try:
        if await engine.has_image(name):
            await engine.json("DELETE", f"images/{name}")
    finally:
        await engine.close()
