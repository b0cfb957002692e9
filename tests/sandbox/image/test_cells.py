"""Cells of Python in a box: variables stay, outputs do not mix, what is stopped leaves nothing."""

import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from kits.box_process import BoxProcess, box_process, running_with

LOOK_SECONDS = 20.0

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture(scope="module")
def server() -> Iterator[BoxProcess]:
    with box_process() as server:
        yield server


@pytest.fixture
async def box(server: BoxProcess) -> AsyncIterator[BoxProcess]:
    async with server.connected():
        yield server


async def gone(word: str) -> None:
    deadline = time.monotonic() + LOOK_SECONDS
    while running_with(word):
        assert time.monotonic() < deadline, "processes were left"
        await asyncio.sleep(0.02)


async def begun(word: str) -> None:
    deadline = time.monotonic() + LOOK_SECONDS
    while not running_with(word):
        assert time.monotonic() < deadline, "the cell did not start"
        await asyncio.sleep(0.02)


async def test_variables_stay_from_cell_to_cell(box: BoxProcess) -> None:
    await box.cell("x = 20")
    result = await box.cell("print('said')\nx + 1")

    assert not result.is_error
    assert result.part("stdout").startswith("said\nOut[")
    assert result.part("stdout").endswith("]: 21\n")


async def test_the_two_outputs_are_told_apart(box: BoxProcess) -> None:
    result = await box.cell("import sys\nprint('out')\nprint('err', file=sys.stderr)")

    assert not result.is_error
    assert result.part("stdout") == "out\n"
    assert result.part("stderr") == "err\n"


async def test_an_exception_is_an_error_with_its_traceback(box: BoxProcess) -> None:
    result = await box.cell("print('before')\n1 / 0")

    assert result.is_error
    assert result.part("stdout").startswith("before\n")
    assert "ZeroDivisionError: division by zero" in result.part("stdout")
    assert "\x1b" not in result.text


async def test_code_that_is_none_is_an_error(box: BoxProcess) -> None:
    result = await box.cell("this is no Python")

    assert result.is_error
    assert "SyntaxError" in result.part("stdout")


async def test_concurrent_cells_do_not_mix(box: BoxProcess) -> None:
    results = await asyncio.gather(
        *(box.cell(f"for i in range(200): print('cell {number}')") for number in range(6))
    )

    for number, result in enumerate(results):
        assert result.part("stdout") == f"cell {number}\n" * 200


async def test_what_an_earlier_cells_thread_prints_is_in_no_other_cell(box: BoxProcess) -> None:
    await box.cell(
        "import threading, time\n"
        "stop = threading.Event()\n"
        "def chatter():\n"
        "    while not stop.wait(0.01): print('chatter')\n"
        "thread = threading.Thread(target=chatter)\n"
        "thread.start()"
    )
    result = await box.cell("for i in range(20): print('mine'); time.sleep(0.01)")
    await box.cell("stop.set(); thread.join()")

    assert result.part("stdout") == "mine\n" * 20


async def test_shell_lines_awaits_and_help_work(box: BoxProcess) -> None:
    assert "hello" in (await box.cell("!echo hello")).part("stdout")
    assert (await box.cell("import asyncio\nawait asyncio.sleep(0, 7)")).part("stdout").endswith(": 7\n")
    assert "Prints the values to a stream" in (await box.cell("print?")).part("stdout")


async def test_cells_run_in_the_workspace(box: BoxProcess) -> None:
    (box.workspace / "beside.py").write_text("WORD = 'imported'")

    assert "imported" in (await box.cell("import beside; beside.WORD")).part("stdout")


async def test_pictures_are_pictures(box: BoxProcess) -> None:
    code = f"import base64\nfrom IPython.display import Image\nImage(base64.b64decode('{PNG}'))"
    result = await box.cell(code)

    assert not result.is_error
    assert [(kind, base64.b64decode(data)) for kind, data in result.images] == [
        ("image/png", base64.b64decode(PNG))
    ]


async def test_long_output_loses_its_middle_and_says_so(box: BoxProcess) -> None:
    out = (await box.cell("print('first'); print('x' * 3_000_000); print('last')")).part("stdout")

    assert out.startswith("first\nxxx")
    assert out.endswith("xxx\nlast\n")
    assert "bytes left out" in out


async def test_half_characters_do_not_break_the_answer(box: BoxProcess) -> None:
    result = await box.cell("'\\ud800'")

    assert "Out[" in result.part("stdout")


async def test_nothing_can_be_asked_of_a_person(box: BoxProcess) -> None:
    result = await box.cell("input()")

    assert result.is_error
    assert "StdinNotImplementedError" in result.text


async def test_a_cell_whose_time_is_over_is_interrupted_and_variables_stay(box: BoxProcess) -> None:
    await box.cell("kept = 5")
    word = f"3610.{os.getpid()}"
    result = await box.cell(
        f"print('before', flush=True)\nimport subprocess\nsubprocess.run(['sleep', '{word}'])", 1.0
    )

    assert result.is_error
    assert result.part("stdout").startswith("before\n")
    assert "interrupted" in result.part("stderr")
    assert not running_with(word)
    assert "5" in (await box.cell("kept")).part("stdout")


async def test_a_cell_that_is_cancelled_is_interrupted_and_leaves_no_process(box: BoxProcess) -> None:
    await box.cell("kept = 6")
    word = f"3611.{os.getpid()}"
    hiding = f"(setsid env -i sleep {word} &); sleep {word}"
    call = asyncio.create_task(box.cell(f"import subprocess\nsubprocess.run(['bash', '-c', '{hiding}'])"))
    await begun(word)
    call.cancel()
    await asyncio.wait({call})

    await gone(word)
    assert "6" in (await box.cell("kept")).part("stdout")


async def test_what_an_earlier_cell_started_is_not_hit(box: BoxProcess) -> None:
    word = f"3612.{os.getpid()}"
    await box.cell(f"import subprocess, time\nserver = subprocess.Popen(['sleep', '{word}'])")
    await box.cell("time.sleep(60)", 0.5)

    assert running_with(word)
    await box.cell("server.kill(); server.wait()")


async def test_cells_that_wait_are_cancelled_without_a_trace(box: BoxProcess) -> None:
    await box.cell("import time; seen = []")
    first = asyncio.create_task(box.cell("time.sleep(1); seen.append(1)"))
    await asyncio.sleep(0.2)
    second = asyncio.create_task(box.cell("seen.append(2)"))
    await asyncio.sleep(0.2)
    second.cancel()
    await first

    assert "[1]" in (await box.cell("seen")).part("stdout")


async def test_a_cell_that_waits_too_long_for_its_turn_is_told(box: BoxProcess) -> None:
    first = asyncio.create_task(box.cell("import time; time.sleep(2)"))
    await asyncio.sleep(0.3)
    second = await box.cell("'never'", 0.5)
    await first

    assert second.is_error
    assert "was not run" in second.text


async def test_a_cell_that_heeds_nothing_ends_python_and_says_so(box: BoxProcess) -> None:
    await box.cell("lost = 1")
    deaf = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
    result = await box.cell(deaf, 1.0)

    assert result.is_error
    assert "all variables are gone" in result.part("stderr")
    assert "NameError" in (await box.cell("lost")).text


async def test_a_cell_that_ends_python_says_so(box: BoxProcess) -> None:
    word = f"3613.{os.getpid()}"
    code = f"import os, subprocess\nsubprocess.Popen(['sleep', '{word}'])\nprint('last words', flush=True)\nos._exit(1)"
    result = await box.cell(code)

    assert result.is_error
    assert "Python ended in this cell" in result.part("stderr")
    assert not running_with(word)
    assert "2" in (await box.cell("1 + 1")).part("stdout")


@pytest.mark.parametrize(
    ("leaving", "code"),
    [
        ("exit()", 0),
        ("quit()", 0),
        ("exit(3)", 3),
        ("raise SystemExit", 0),
        ("raise SystemExit(0)", 0),
        ("import sys; sys.exit(-2)", -2),
        ("import sys; sys.exit('no more')", 1),
        ("import asyncio; await asyncio.sleep(0); exit()", 0),
        ("get_ipython().ask_exit()", 0),
    ],
)
async def test_a_cell_that_exits_says_so_and_python_goes_on(box: BoxProcess, leaving: str, code: int) -> None:
    await box.cell("kept = 8")
    result = await box.cell(f"print('before')\n{leaving}\nprint('after')")

    assert result.is_error == (code != 0)
    assert result.part("stdout") == "before\n"
    said = f"[the cell ended itself, with exit code {code}; Python goes on: variables are kept]"
    assert result.part("stderr") == ("no more\n" if "no more" in leaving else "") + said
    assert "8" in (await box.cell("import time; time.sleep(0.1); kept")).part("stdout")


async def test_exit_needs_no_brackets_and_ends_functions_and_outlives_a_reset_of_the_names(
    box: BoxProcess,
) -> None:
    assert "with exit code 0;" in (await box.cell("exit")).part("stderr")
    await box.cell("%reset -f")
    result = await box.cell("def leave():\n    exit(5)\n    print('after')\nleave()")

    assert "with exit code 5;" in result.part("stderr")
    assert "after" not in result.text


async def test_a_reset_ends_what_is_under_way(box: BoxProcess) -> None:
    word = f"3615.{os.getpid()}"
    deaf = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    code = f"{deaf}import subprocess\nwhile True: subprocess.run(['sleep', '{word}'])"
    cell, waiting = asyncio.create_task(box.cell(code)), asyncio.create_task(box.cell("'never'"))
    command = asyncio.create_task(box.run(f"while true; do sleep {word}; done"))
    await begun(word)
    await box.client.reset()

    assert not running_with(word)
    ended = await asyncio.gather(cell, waiting, command)
    assert [result.is_error for result in ended] == [True, True, True]
    assert "2" in (await box.cell("1 + 1")).part("stdout")


async def test_a_reset_forgets_variables_files_and_processes(box: BoxProcess) -> None:
    word = f"3614.{os.getpid()}"
    await box.cell(f"import subprocess\nlost = 1\nsubprocess.Popen(['sleep', '{word}'])")
    await box.shell("mkdir -p deep/er; ln -s / link; echo x > deep/file")
    await box.client.reset()

    assert not running_with(word)
    assert list(box.workspace.iterdir()) == []
    assert "NameError" in (await box.cell("lost")).text
