"""Commands in a box: outputs, exit codes, and nothing left of what was stopped."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from greenroom.sandbox.image.processes import end
from greenroom.sandbox.image.shell import Shell
from kits.box_process import BoxProcess, box_process, dead_children_of, running_with
from kits.tools_kit import HARD_TO_FIND

LOOK_SECONDS = 10.0


@pytest.fixture(scope="module")
def server() -> Iterator[BoxProcess]:
    with box_process() as server:
        yield server


@pytest.fixture
async def box(server: BoxProcess) -> AsyncIterator[BoxProcess]:
    async with server.connected():
        await server.client.reset()
        yield server


async def until(condition: object, what: str) -> None:
    assert callable(condition)
    deadline = time.monotonic() + LOOK_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


async def test_outputs_and_the_exit_code_are_told(box: BoxProcess) -> None:
    result = await box.run("echo out; echo err >&2; exit 3")

    assert result.is_error
    assert [part["description"] for part in result["content"]] == ["stdout", "stderr", "returncode"]
    assert result.part("stdout") == "out\n"
    assert result.part("stderr") == "err\n"
    assert result.part("returncode") == "3"


async def test_words_on_stderr_are_no_failure(box: BoxProcess) -> None:
    result = await box.run("echo warning >&2")

    assert not result.is_error
    assert result.part("returncode") == "0"


async def test_a_command_without_errors_has_no_such_part(box: BoxProcess) -> None:
    result = await box.run("true")

    assert [part["description"] for part in result["content"]] == ["stdout", "returncode"]


async def test_a_signal_is_no_exit_code(box: BoxProcess) -> None:
    result = await box.run("kill -SEGV $$")

    assert result.is_error
    assert result.part("returncode") == "-11"


async def test_commands_run_in_the_workspace_with_nothing_to_read(box: BoxProcess) -> None:
    (box.workspace / "note").write_text("here")

    assert await box.shell("cat note; cat") == "here"


async def test_concurrent_commands_do_not_mix(box: BoxProcess) -> None:
    words = [f"word{number}" for number in range(8)]
    results = await asyncio.gather(
        *(box.run(f"for i in $(seq 50); do echo {word}; done; exit {at}") for at, word in enumerate(words))
    )

    for at, (word, result) in enumerate(zip(words, results, strict=True)):
        assert result.part("stdout") == f"{word}\n" * 50
        assert result.part("returncode") == str(at)


async def test_long_output_loses_its_middle_and_says_so(box: BoxProcess) -> None:
    out = (await box.run("echo first; head -c 5000000 /dev/zero | tr '\\0' x; echo; echo last")).part(
        "stdout"
    )

    assert out.startswith("first\nxxx")
    assert out.endswith("xxx\nlast\n")
    assert "bytes left out" in out
    assert len(out) < 61_000


async def test_bytes_that_are_no_text_do_not_break_the_answer(box: BoxProcess) -> None:
    assert "�" in (await box.run("printf 'a\\xff\\xedb'")).part("stdout")


async def test_what_stays_in_the_background_goes_on_and_is_not_waited_for(box: BoxProcess) -> None:
    started = time.monotonic()
    result = await box.run(
        "(for i in $(seq 200); do echo tick; sleep 0.02; echo $i > beat; done) & echo started"
    )

    assert result.part("stdout").startswith("started\n") or "started" in result.part("stdout")
    assert time.monotonic() - started < 3
    beat = box.workspace / "beat"
    await until(lambda: beat.exists() and int(beat.read_text() or 0) > 10, "the background has ended")


@pytest.mark.parametrize("command", HARD_TO_FIND.values(), ids=HARD_TO_FIND.keys())
async def test_a_command_whose_time_is_over_leaves_no_process(box: BoxProcess, command: str) -> None:
    word = f"3600.{os.getpid()}"
    result = await box.run("echo before; " + command.format(word=word), 0.5)

    assert result.is_error
    assert result.part("stdout") == "before\n"
    assert "killed" in result.part("stderr")
    assert result.part("returncode") == "-9"
    assert not running_with(word)


@pytest.mark.parametrize("command", HARD_TO_FIND.values(), ids=HARD_TO_FIND.keys())
async def test_a_command_that_is_cancelled_leaves_no_process(box: BoxProcess, command: str) -> None:
    word = f"3601.{os.getpid()}"
    call = asyncio.create_task(box.run(command.format(word=word)))
    await until(lambda: running_with(word), "the command did not start")
    call.cancel()
    await asyncio.wait({call})

    assert call.cancelled()
    await until(lambda: not running_with(word), "processes were left")
    assert await box.shell("echo and the box goes on") == "and the box goes on\n"


async def test_a_stopped_script_does_not_go_on_with_its_next_command(box: BoxProcess) -> None:
    await box.run("sleep 3600; touch went-on; (sleep 3600; touch went-on) ; touch went-on", 0.3)

    assert not (box.workspace / "went-on").exists()


async def test_a_client_that_dies_cancels_its_commands(box: BoxProcess) -> None:
    word = f"3602.{os.getpid()}"
    call = asyncio.create_task(box.run(f"sleep {word}"))
    await until(lambda: running_with(word), "the command did not start")
    await box.client.close()
    await asyncio.wait({call})

    await until(lambda: not running_with(word), "processes were left")


async def test_stopping_one_command_leaves_the_others(box: BoxProcess) -> None:
    other = asyncio.create_task(box.run("sleep 1; echo done"))
    background = f"3603.{os.getpid()}"
    await box.shell(f"setsid sleep {background} > /dev/null 2>&1 &")
    await box.run("sleep 3604", 0.3)

    assert (await other).part("stdout") == "done\n"
    assert running_with(background)


async def test_a_box_that_ends_leaves_no_process() -> None:
    word = f"3605.{os.getpid()}"
    with box_process() as server:
        async with server.connected() as box:
            await box.shell(f"setsid env -i sleep {word} > /dev/null 2>&1 & sleep {word} > /dev/null 2>&1 &")
            await until(lambda: len(running_with(word)) == 2, "the commands did not start")

    assert not running_with(word)


async def test_orphans_that_ended_are_buried(box: BoxProcess) -> None:
    await box.shell("(setsid sh -c 'exit 0' > /dev/null 2>&1 &)")

    deadline = time.monotonic() + LOOK_SECONDS
    while dead_children_of(box.process.pid):
        assert time.monotonic() < deadline, "the dead are still counted"
        await box.shell("sleep 0.1")


async def test_commands_do_not_see_the_token_or_the_servers_memory(box: BoxProcess) -> None:
    pid = box.process.pid
    seen = await box.shell(f"env; cat /proc/{pid}/cmdline; ls {box.directory}")
    assert box.token not in seen
    assert "GREENROOM_BOX=" not in seen
    if os.geteuid() != 0:
        assert (await box.run(f"cat /proc/{pid}/environ")).is_error


@pytest.mark.parametrize("command", ["echo a\0b", "x" * 3_000_000])
async def test_a_command_that_cannot_be_one_is_told(box: BoxProcess, command: str) -> None:
    result = await box.run(command)

    assert result.is_error
    assert "NUL" in result.text or "too long" in result.text


async def test_a_command_waits_for_the_end_of_one_that_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, gate = threading.Event(), threading.Event()

    def held(which: Any) -> bool:
        began.set()
        gate.wait(LOOK_SECONDS)
        return end(which)

    monkeypatch.setattr("greenroom.sandbox.image.shell.end", held)
    shell = await asyncio.to_thread(Shell, tmp_path, os.environ, "test-")
    stopped = asyncio.create_task(shell.run("sleep 60", 0.1))
    await asyncio.to_thread(began.wait, LOOK_SECONDS)
    assert "not begun" in str(await shell.run("touch given-up", 0.1))
    waiting = asyncio.create_task(shell.run("touch begun", 60))
    gate.set()
    await asyncio.gather(stopped, waiting)
    await shell.stop()
    assert await asyncio.to_thread(os.listdir, tmp_path) == ["begun"]
