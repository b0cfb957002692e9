"""A language model on this machine, behind an OpenAI-compatible address: for trying things without a key."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import TypedDict

import anyio
from anyio import CancelScope, fail_after
from anyio.to_thread import run_sync

from greenroom.actors.errors import ConfigurationError, MissingDependency
from greenroom.services.local_model import child as script
from greenroom.services.local_model.cache import installed_model

LOAD_TIMEOUT = 120.0  # seconds; the small model takes two, one of several GB on a slow disk takes a minute
STOP_TIMEOUT = 2.0  # seconds for the child to go by itself before it is killed


class _Settings(TypedDict):
    path: str
    name: str
    api_key: str
    slots: int
    context: int
    max_tokens: int
    threads: int
    temperature: float


def local_model_warning(model: str = "SmolLM2-135M-Instruct") -> str:
    """What a user should know who talks to the small model, and how to have a better one."""
    return (
        f"no API key is set, so the answers come from {model}, a tiny model on this machine: it shows that everything "
        "works, but it is often wrong, forgets what was said and uses no tools. Set DASHSCOPE_API_KEY or "
        "OPENAI_API_KEY (with OPENAI_BASE_URL and OPENAI_MODEL for anything that speaks its protocol) for a real one."
    )


class LocalModel:
    """Runs a GGUF model from `start` to `stop`, or inside `async with`, in a process of its own.

    `path` names the file; without it, the one that `greenroom model install` fetches is used. `context` is the
    longest conversation and `max_tokens` the longest answer, in tokens; `slots` is how many answers are worked on at
    once, others wait their turn; `threads` are one or two unless given, and one fewer than there are processors.
    `temperature` is 0 unless given, or sent with a request:
    a small model that picks its second choice is wrong more often. While it runs, `base_url`, `model` and `api_key`
    are what an OpenAI client needs. Several applications may use one; a stopped one can be started again.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        context: int = 4096,
        slots: int = 2,
        threads: int | None = None,
        max_tokens: int = 512,
        temperature: float = 0.0,
    ) -> None:
        self._path = None if path is None else Path(path)
        self.context = context
        self._slots = slots
        self._threads = threads or _threads_to_spare(_processors())
        self._max_tokens = max_tokens
        self._temperature = temperature
        self._lock = anyio.Lock()
        self._running: _Running | None = None

    def __repr__(self) -> str:
        running = self._running
        return "<LocalModel, stopped>" if running is None else f"<LocalModel {running.name} on {running.url}>"

    @property
    def base_url(self) -> str:
        """The OpenAI-compatible address, with its `/v1`."""
        return f"{self._started.url}/v1"

    @property
    def model(self) -> str:
        """The model's name: the file's, without its ending."""
        return self._started.name

    @property
    def api_key(self) -> str:
        """A new one at each start; without it the address answers 401."""
        return self._started.api_key

    async def start(self) -> None:
        """Load the model; it answers when this returns. Does nothing when it runs already, and starts anew one whose
        process has died.

        Raises `MissingDependency` without xllamacpp, `ConfigurationError` when the file is missing or is no model,
        `TimeoutError` when loading takes longer than two minutes.
        """
        async with self._lock:
            if not await self.health():
                await self._end()
                settings = await run_sync(self._settings)
                self._running = await _launch(settings)

    async def stop(self) -> None:
        """End the model's process, whatever it does, and free its memory. Does nothing when it does not run."""
        with CancelScope(shield=True):
            async with self._lock:
                await self._end()

    async def health(self) -> bool:
        """Whether it is started and its process lives."""
        return self._running is not None and self._running.child.poll() is None

    async def __aenter__(self) -> LocalModel:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def _end(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            await run_sync(_end, running.child)

    @property
    def _started(self) -> _Running:
        if self._running is None:
            raise ConfigurationError(
                "this LocalModel does not run, so it has no address yet: await its start() first, in @app.init for one "
                "that an application uses"
            )
        return self._running

    def _settings(self) -> _Settings:
        path = self._path or installed_model()
        if not path.is_file():
            raise ConfigurationError(
                f"there is no model file at {path}: name a GGUF file, or none for the default one"
            )
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ConfigurationError(f"{path} is no model that llama.cpp reads: it has to be a GGUF file")
        if importlib.util.find_spec("xllamacpp") is None:
            raise MissingDependency(
                "a local model needs xllamacpp, which is not installed here: pip install 'greenroom[local]'"
            )
        return _Settings(
            path=str(path.absolute()),
            name=path.stem,
            api_key=secrets.token_urlsafe(16),
            slots=self._slots,
            context=self.context,
            max_tokens=self._max_tokens,
            threads=self._threads,
            temperature=self._temperature,
        )


class _Running:
    __slots__ = ("api_key", "child", "name", "url")

    def __init__(self, child: subprocess.Popen[bytes], settings: _Settings, url: str) -> None:
        self.child = child
        self.name = settings["name"]
        self.api_key = settings["api_key"]
        self.url = url


async def _launch(settings: _Settings) -> _Running:
    child = await run_sync(_spawn)
    try:
        with fail_after(LOAD_TIMEOUT):
            answer = await run_sync(_ask, child, settings, abandon_on_cancel=True)
        if "url" not in answer:
            raise ConfigurationError(_why_not(settings["path"], answer))
    except BaseException:  # cancelled too: nobody else knows of the process yet
        child.kill()
        with CancelScope(shield=True):
            await run_sync(_end, child)
        raise
    return _Running(child, settings, answer["url"])


def _spawn() -> subprocess.Popen[bytes]:
    # By its file, not by `-m`: the child needs nothing of Greenroom, wherever that was imported from. -P keeps the
    # file's own folder out of its imports.
    command = [sys.executable, "-P", script.__file__]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _ask(child: subprocess.Popen[bytes], settings: _Settings) -> dict[str, str]:
    """What the child answers to its settings; empty when it ended without an answer."""
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(json.dumps(settings).encode() + b"\n")
        child.stdin.flush()
    except BrokenPipeError:
        return {}
    answer: dict[str, str] = json.loads(child.stdout.readline() or b"{}")
    return answer


def _end(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    assert child.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended already
        child.stdin.close()
    try:
        child.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    child.stdout.close()


def _why_not(path: str, answer: dict[str, str]) -> str:
    reason = answer.get("error", "its process ended without an answer; what it said, if anything, is above")
    return (
        f"llama.cpp could not load {path}: {reason}\nIs the file whole, of a kind that this llama.cpp knows, and is "
        "there memory for it? Without a path, the model that `greenroom model install` fetches is used."
    )


def _threads_to_spare(processors: int) -> int:
    """llama.cpp's threads wait for each other by spinning: as soon as one has to share its processor, all of them are
    ten times slower. So one processor is left for the program that serves, and few threads do for a small model."""
    return max(1, min(2, processors - 1))


def _processors() -> int:
    """How many this process may use, where the system can say."""
    allowed = getattr(os, "sched_getaffinity", None)
    return os.cpu_count() or 1 if allowed is None else len(allowed(0))
