"""The command line, as its user meets it."""

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from greenroom import compat
from greenroom.cli import main

ECHO = """
import asyncio
from agentscope_runtime.engine import AgentApp
from agentscope_runtime.engine.schemas.agent_schemas import AgentRequest

app = AgentApp(app_name="Echo")

@app.query(framework="text")
async def answer(self, msgs, request: AgentRequest = None, **kwargs):
    text = request.input[0].content[0].text
    yield f"you said {text}"
    if text == "wait":
        await asyncio.Event().wait()
"""
BROKEN = (
    ECHO
    + """
@app.init
def connect(self):
    raise ConnectionError("the database is away")
"""
)
SECONDS = 30.0


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    compat.uninstall()


def greenroom(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, arguments)


IN_MEMORY = {**os.environ, "GREENROOM_SESSIONS": "memory"}
"""Else applications that say nothing would leave a file in the working folder."""


COUNTING = """
from greenroom import AgentApp

app = AgentApp("My Counter!")

@app.query()
async def answer(self, session):
    return f"{len(await session.history())} turns before"
"""


def run(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "greenroom.cli", *arguments],
        input=typed,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env=IN_MEMORY,
    )


@contextmanager
def served(
    file: Path, *options: str, env: dict[str, str] = IN_MEMORY
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The application served by a process of its own, and its URL."""
    command = [sys.executable, "-m", "greenroom.cli", "serve", str(file), "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
        try:
            assert process.stderr is not None
            lines: list[str] = []
            for line in process.stderr:
                lines.append(line)
                if found := re.search(r"curl -N (\S+)/process", line):
                    yield process, found[1]
                    break
            else:
                pytest.fail("".join(lines))
        finally:
            process.kill()


# -- without a server --------------------------------------------------------------------------------------------------


def test_version_and_help() -> None:
    assert greenroom("--version").output == f"greenroom {version('greenroom')}\n"
    shown = greenroom("--help")
    assert shown.exit_code == 0
    assert re.findall(r"^  (\w+)  ", shown.output, re.MULTILINE) == ["chat", "model", "sandbox", "serve"]
    assert "--drain-seconds" in greenroom("serve", "-h").output


def test_starting_loads_nothing_that_is_not_needed() -> None:
    code = (
        "import sys, greenroom.cli;"
        "print([name for name in ('aiohttp', 'rich', 'msgspec', 'greenroom.app') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve",),
        ("serve", "app.py", "--port", "99999"),
        ("serve", "app.py", "--log-level", "loud"),
        ("chat",),
        ("nothing",),
    ],
)
def test_a_wrong_command_line_is_2(arguments: tuple[str, ...]) -> None:
    result = greenroom(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.output


def test_a_file_that_is_not_there_is_2(folder: Path) -> None:
    result = run("serve", "missing.py")
    assert result.returncode == 2
    assert result.stderr.startswith("greenroom: there is no file missing.py")
    assert result.stderr.count("\n") == 1


def test_a_file_without_an_application_says_what_it_has(folder: Path) -> None:
    (folder / "app.py").write_text("agent = 3")
    result = run("serve", "app.py")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "greenroom: app.py has no AgentApp at its top level; it has agent (an int); make one: `app = AgentApp()`\n"
    )


def test_a_file_that_fails_shows_the_users_lines_only(folder: Path) -> None:
    (folder / "app.py").write_text("import nonexistent_package")
    result = run("serve", "app.py")
    assert result.returncode == 1
    assert 'app.py", line 1' in result.stderr
    assert "pip install nonexistent_package" in result.stderr
    assert result.stderr.count('File "') == 1
    assert "load.py" in run("serve", "app.py", "--debug").stderr


def test_an_init_hook_that_fails_stops_the_start(folder: Path) -> None:
    (folder / "app.py").write_text(BROKEN)
    result = run("serve", "app.py", "--port", "0")
    assert result.returncode == 1
    assert "ConnectionError: the database is away" in result.stderr
    assert "in connect" in result.stderr
    assert result.stderr.count('File "') == 1


def test_what_went_wrong_first_is_shown_first(folder: Path) -> None:
    shutdown = "@app.shutdown\ndef disconnect(self):\n    self.never_made.close()\n"
    (folder / "app.py").write_text(BROKEN + shutdown)
    result = run("serve", "app.py", "--port", "0")
    assert result.returncode == 1
    assert "the database is away" in result.stderr


def test_a_port_that_is_taken_is_said(folder: Path) -> None:
    (folder / "app.py").write_text(ECHO)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("serve", "app.py", "--port", port)
    assert result.returncode == 1
    assert port in result.stderr
    assert "--port" in result.stderr
    assert "Traceback" not in result.stderr


def test_where_no_sandbox_can_be_made_serving_says_what_to_do(folder: Path) -> None:
    sandboxed = ECHO + (
        "\nfrom agentscope_runtime.engine.services.sandbox import SandboxService\n"
        "from greenroom import SandboxSettings\n"
        "@app.init\nasync def up(self):\n"
        "    nowhere = SandboxSettings(backend='docker', docker_host='unix:///nowhere/docker.sock')\n"
        "    self.sandboxes = SandboxService(settings=nowhere)\n"
        "    await self.sandboxes.start()\n"
    )
    (folder / "app.py").write_text(sandboxed)
    result = run("serve", "app.py", "--port", "0")
    assert result.returncode == 1
    assert "the engine at unix:///nowhere/docker.sock does not answer" in result.stderr
    assert "apt-get install docker.io" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ftp://x", "--once", "hi"), "no URL of a server"),
        (("127.0.0.1:9", "--once", "hi"), "nobody answers"),
        (("127.0.0.1:9", "--once", "hi", "-H", "nonsense"), "no header"),
    ],
)
def test_a_chat_that_fails_is_1(arguments: tuple[str, ...], words: str) -> None:
    result = run("chat", *arguments)
    assert result.returncode == 1
    assert words in result.stderr
    assert "Traceback" not in result.stderr


# -- with one ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_serve_chat_and_stop(folder: Path) -> None:
    (folder / "app.py").write_text(ECHO)
    with served(folder / "app.py") as (process, url):
        lines = run("chat", url, "--session", "s", typed="one\n\ntwo\n")
        assert (lines.returncode, lines.stdout, lines.stderr) == (0, "you said one\nyou said two\n", "")
        once = run("chat", url, "--once", "three")
        assert (once.returncode, once.stdout) == (0, "you said three\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0


@pytest.mark.slow
def test_sessions_are_kept_in_a_file_of_the_applications_name_unless_somebody_says_where(
    folder: Path,
) -> None:
    (folder / "app.py").write_text(COUNTING)
    nothing_said = {name: value for name, value in os.environ.items() if name != "GREENROOM_SESSIONS"}
    for turns in (0, 1):
        with served(folder / "app.py", env=nothing_said) as (process, url):
            assert run("chat", url, "--session", "s", "--once", "hi").stdout == f"{turns} turns before\n"
            process.kill()
            process.wait(SECONDS)
    assert (folder / "my-counter.db").exists()
    with served(folder / "app.py", "--state", "sqlite:///other.db", env=IN_MEMORY) as (_, url):
        assert run("chat", url, "--session", "s", "--once", "hi").stdout == "0 turns before\n"
    assert (folder / "other.db").exists()
    with served(folder / "app.py", env=IN_MEMORY) as (_, url):
        assert run("chat", url, "--session", "s", "--once", "hi").stdout == "0 turns before\n"


@pytest.mark.slow
def test_logs_as_json_are_all_that_is_written_and_say_where_it_serves_and_keeps_sessions(
    folder: Path,
) -> None:
    (folder / "app.py").write_text(ECHO)
    command = [
        sys.executable,
        "-m",
        "greenroom.cli",
        "serve",
        "app.py",
        "--port",
        "0",
        "--log-format",
        "json",
    ]
    env = {**os.environ, "GREENROOM_SESSIONS": "sqlite:///e.db"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stderr is not None
        messages = []
        try:
            for line in process.stderr:
                messages.append(json.loads(line)["message"])
                if "served at" in messages[-1]:
                    process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()
    assert re.fullmatch(
        r"Echo is served at http://127\.0\.0\.1:\d+ with its sessions in sqlite:///e\.db", messages[0]
    )
    assert messages[-1] == "stopped"


@pytest.mark.slow
def test_drain_seconds_bound_how_long_turns_run_on(folder: Path) -> None:
    (folder / "app.py").write_text(ECHO)
    with served(folder / "app.py", "--drain-seconds", "0") as (process, url):
        command = [sys.executable, "-m", "greenroom.cli", "chat", url, "--once", "wait"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as chat:
            assert chat.stdout is not None
            assert chat.stdout.read(len("you said wait")) == "you said wait"
            process.send_signal(signal.SIGTERM)
            _, said = chat.communicate(timeout=SECONDS)
            assert "(stopped)" in said
            assert chat.returncode == 1
        assert process.wait(SECONDS) == 0


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        # The leader of a new session that opens a terminal gets it as its own, so that Ctrl-C on it is a signal.
        code = (
            "import os; os.close(os.open(os.ttyname(0), os.O_RDWR)); from greenroom.cli import main; main()"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._unread = ""

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def press_until(self, key: str, expected: str) -> None:
        """As a person does: readline loses an interruption that comes after its prompt and before it listens, and the
        terminal has echoed it all the same."""
        for _ in range(int(SECONDS)):
            self.type(key)
            while select.select([self._ours], [], [], 1)[0]:
                self._unread += os.read(self._ours, 1024).decode()
                if expected in self._unread:
                    self.read_to(expected)
                    return
        pytest.fail(f"{key!r} never brought {expected!r}, only {self._unread!r}")

    def read_to(self, expected: str) -> str:
        """What is shown next, up to and with what is expected."""
        while expected not in self._unread:
            assert select.select([self._ours], [], [], SECONDS)[0], (
                f"waiting for {expected!r} after {self._unread!r}"
            )
            self._unread += os.read(self._ours, 1024).decode()
        shown, _, self._unread = self._unread.partition(expected)
        return shown + expected


@pytest.mark.slow
def test_a_conversation_in_a_terminal(folder: Path) -> None:
    (folder / "app.py").write_text(ECHO)
    with served(folder / "app.py") as (_, url), Terminal("chat", url) as terminal:
        assert "/quit" in terminal.read_to("> ")
        terminal.type("hello\n")
        assert "you said hello\r\n" in terminal.read_to("> ")
        terminal.type("wait\n")
        terminal.read_to("you said wait")
        terminal.type("\x03")  # Ctrl-C stops the answer
        assert "(stopped)" in terminal.read_to("> ")
        terminal.press_until("\x03", "leaves")  # and at the prompt begins the line anew
        terminal.type("/new\n")
        terminal.read_to("session")
        terminal.type("/help\n")
        terminal.read_to("no command")
        terminal.read_to("> ")
        terminal.type("\x04")  # Ctrl-D leaves
        assert terminal.process.wait(SECONDS) == 0
