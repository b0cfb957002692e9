"""A scripted OpenAI-compatible model server on loopback: `POST /v1/chat/completions` and `GET /v1/models`.

In the test's own loop:

    async with ScriptedModel(["Hello.", CallTool("clock", {})]) as model:
        client = openai.AsyncOpenAI(base_url=model.base_url, api_key="any", max_retries=0)

In a process of its own, for load (from Python: `kits.scripted_model_child`); once it listens it prints one line
of JSON, `{"url": …, "base_url": …, "pid": …}`:

    python tests/kits/scripted_model.py --port 0 --script friday --delay 0.02

What a model can say, and the scripts that choose it, are in `kits.scripted_model_script`.
Nothing waits by the clock unless the script says so: tests await `wait_open`, `wait_aborted`, `wait_at`,
`wait_idle`.
"""

import sys
from pathlib import Path

if (
    __name__ == "__main__"
):  # run as a file: Python looked for modules beside it, `kits` is found one folder up
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import asyncio
import importlib
import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Self, TypeAlias

import msgspec
from aiohttp import web

from kits.scripted_model_output import Output, StreamedOutput, WholeOutput, drop, json_response
from kits.scripted_model_script import (
    Break,
    Fail,
    Gate,
    Hang,
    Pause,
    Reply,
    Request,
    Script,
    ScriptError,
    Step,
    as_script,
    counter,
    friday,
    steady,
    steps_of,
)
from kits.scripted_model_wire import BadRequest, Delta, Envelope, beats, decode_request, error_body

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

BODY_LIMIT = 64 * 1024**2
"""Bytes of a request: a long conversation with images still fits."""

HANG = "hang"
"""The gate that every `Hang` waits at."""


class ScriptedModel:
    """A model server that answers by a script, and records what it was asked.

    Args:
        script: a list of replies, a callable from request to reply, or a ready one; `friday()` by default.
        host, port: where to listen; port 0 takes a free one.
        models: the ids that `/v1/models` lists; requests may name any.
        api_key: when given, other bearer tokens are refused with 401.
        keep_alive: whether connections serve more than one request. Off, as the clients inside agents are seldom
            closed, and what they keep open outlives the test that made it.
        sleep, clock: seconds to wait and seconds since the epoch; a test that owns time passes its own.

    Leaving the `async with` raises ScriptError if the script ran out or failed, unless the body has raised.
    """

    def __init__(
        self,
        script: Script | Sequence[Reply] | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        models: Sequence[str] = ("scripted",),
        api_key: str | None = None,
        keep_alive: bool = False,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._script = friday() if script is None else as_script(script)
        self._host, self._port, self._models = host, port, models
        self._api_key, self._keep_alive = api_key, keep_alive
        self._sleep, self._clock = sleep, clock
        self._numbers, self._call_numbers = itertools.count(1), itertools.count(1)
        self._gates: dict[str, asyncio.Event] = {}
        self._waiting_at: Counter[str] = Counter()
        self._changed = _Changes()
        self._answering: set[asyncio.Task[object]] = set()
        self._runner: web.AppRunner | None = None
        self.requests: list[Request] = []
        """The bodies of all good requests, in order of arrival."""
        self.open_streams = 0
        """Requests being answered now, streamed or not."""
        self.aborted = 0
        """Requests whose client went before the answer was complete."""
        self.completed = 0
        """Requests answered to the end; what the script itself failed or broke off counts nowhere."""
        self.script_error: ScriptError | None = None
        """The first fault of the script itself."""

    def __repr__(self) -> str:
        where = self.url if self._runner else "stopped"
        ended = f"completed={self.completed} aborted={self.aborted}"
        return f"<ScriptedModel {where} requests={len(self.requests)} open={self.open_streams} {ended}>"

    async def __aenter__(self) -> Self:
        app = web.Application(
            middlewares=[self._close_connections, _error_envelopes], client_max_size=BODY_LIMIT
        )
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_get("/stats", self._show_stats)
        # Without handler_cancellation a client that goes is noticed at the next write, which a Hang never makes.
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await self._runner.setup()
        # aiohttp's own backlog, 128, makes a crowd that comes at once connect a second late.
        await web.TCPSite(self._runner, self._host, self._port, backlog=1024).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        runner, self._runner = self._runner, None
        for task in self._answering:
            task.cancel()
        if runner is not None:
            await runner.cleanup()
        if kind is None and self.script_error is not None:
            raise self.script_error

    @property
    def url(self) -> str:
        """`http://host:port`. Raises RuntimeError while the server is not running."""
        if self._runner is None or not self._runner.addresses:
            raise RuntimeError(
                "The model is not running: use its address inside `async with ScriptedModel(…) as model`."
            )
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    @property
    def base_url(self) -> str:
        """What OpenAI clients take as `base_url`."""
        return f"{self.url}/v1"

    # What a test steers and waits for

    def open(self, gate: str) -> None:
        """Let replies through the `Gate` of this name, those waiting and those to come."""
        self._gate(gate).set()

    def release(self) -> None:
        """Let replies go on after `Hang`, those hanging and those to come."""
        self.open(HANG)

    async def wait_open(self, count: int = 1) -> None:
        """Wait until at least `count` requests are being answered."""
        await self._changed.until(lambda: self.open_streams >= count)

    async def wait_aborted(self, count: int = 1) -> None:
        """Wait until at least `count` clients have gone before their answer was complete."""
        await self._changed.until(lambda: self.aborted >= count)

    async def wait_at(self, gate: str = HANG, count: int = 1) -> None:
        """Wait until at least `count` replies wait at this `Gate`; without a name, at a `Hang`."""
        await self._changed.until(lambda: self._waiting_at[gate] >= count)

    async def wait_idle(self) -> None:
        """Wait until nothing is being answered."""
        await self._changed.until(lambda: self.open_streams == 0)

    # Routes

    @web.middleware
    async def _close_connections(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if not (self._keep_alive or response.prepared):
            response.force_close()
        return response

    async def _complete(self, http: web.Request) -> web.StreamResponse:
        self._check_key(http)
        known, request = decode_request(await http.read())
        self.requests.append(request)
        steps = self._ask_script(request)
        envelope = Envelope(f"chatcmpl-{next(self._numbers)}", int(self._clock()), known.model)
        output: Output = (
            StreamedOutput(http, known, envelope, self._keep_alive) if known.stream else WholeOutput(envelope)
        )
        async with self._counted(output):
            return await self._answer(http, request, steps, output)

    def _check_key(self, http: web.Request) -> None:
        if self._api_key is not None and http.headers.get("Authorization") != f"Bearer {self._api_key}":
            raise BadRequest("The API key is wrong or missing.", code="invalid_api_key", status=401)

    def _ask_script(self, request: Request) -> tuple[Step, ...]:
        try:
            return steps_of(self._script(request))
        except ScriptError as error:
            raise self._blame(error) from error
        except Exception as error:
            told = ScriptError(f"the script raised {type(error).__name__}: {error}")
            told.__cause__ = error
            raise self._blame(told) from error

    def _blame(self, error: ScriptError) -> BadRequest:
        """A fault of the script is told to the client now and to the test at the end of the `async with`."""
        self.script_error = self.script_error or error
        # Not a 5xx: clients would try again, and again hit the same fault.
        return BadRequest(f"Scripted model: {error}", code="script_error")

    @asynccontextmanager
    async def _counted(self, output: Output) -> AsyncIterator[None]:
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        self.open_streams += 1
        self._changed.tell()
        try:
            yield
        except (asyncio.CancelledError, ConnectionError):
            self.aborted += not output.ended and self._runner is not None
            raise
        finally:
            self._answering.discard(task)
            self.open_streams -= 1
            self._changed.tell()

    async def _answer(
        self, http: web.Request, request: Request, steps: tuple[Step, ...], output: Output
    ) -> web.StreamResponse:
        for beat in beats(steps, lambda: f"call_{next(self._call_numbers)}"):
            match beat:
                case Delta():
                    await output.send(beat)
                case Pause():
                    await self._sleep(beat.seconds)
                case Gate():
                    await self._pass(beat.name)
                case Hang():
                    await self._pass(HANG)
                case Fail():
                    return await output.fail(beat)
                case Break():
                    return drop(http, output)
        response = await output.end(steps, request)
        self.completed += 1
        return response

    async def _pass(self, gate: str) -> None:
        self._waiting_at[gate] += 1
        self._changed.tell()
        try:
            await self._gate(gate).wait()
        finally:
            self._waiting_at[gate] -= 1
            self._changed.tell()

    def _gate(self, name: str) -> asyncio.Event:
        return self._gates.setdefault(name, asyncio.Event())

    async def _list_models(self, http: web.Request) -> web.Response:
        self._check_key(http)
        created = int(self._clock())
        data = [
            {"id": name, "object": "model", "created": created, "owned_by": "greenroom"}
            for name in self._models
        ]
        return json_response({"object": "list", "data": data})

    async def _show_stats(self, http: web.Request) -> web.Response:
        """The counts, for a test that runs the model in another process."""
        counts = {"open": self.open_streams, "completed": self.completed, "aborted": self.aborted}
        return json_response({"requests": len(self.requests), **counts})


class _Changes:
    """Lets waiters look again whenever a count has changed."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            await self._changed.wait()


@web.middleware
async def _error_envelopes(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except BadRequest as error:
        body = error_body(error.status, error.message, param=error.param, code=error.code)
        return json_response(body, error.status)
    except web.HTTPException as error:
        body = error_body(error.status, f"{error.reason}: {request.method} {request.path}")
        return json_response(body, error.status)


# The command

SCRIPTS: dict[str, Callable[[argparse.Namespace], Script]] = {
    "friday": lambda options: friday(delay=options.delay, chunk_size=options.chunk_size),
    "counter": lambda options: counter(delay=options.delay),
    "steady": lambda options: steady(options.deltas, size=options.chunk_size or 20, delay=options.delay),
}


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Serve a scripted OpenAI-compatible model; prints its address as one JSON line."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument(
        "--script", default="friday", help=f"{', '.join(SCRIPTS)}, or module:name of a script of yours"
    )
    parser.add_argument("--delay", type=float, default=0.0, help="seconds between two deltas")
    parser.add_argument(
        "--chunk-size", type=int, default=0, help="characters in a delta; 0: a word (steady: 20)"
    )
    parser.add_argument("--deltas", type=int, default=50, help="deltas of an answer of the steady script")
    parser.add_argument("--keep-alive", action="store_true", help="let a connection serve many requests")
    parser.add_argument(
        "--with-parent",
        action="store_true",
        help="stop when standard input closes, as it does when the parent dies",
    )
    return parser.parse_args(arguments)


def _named_script(options: argparse.Namespace) -> Script | Sequence[Reply]:
    if options.script in SCRIPTS:
        return SCRIPTS[options.script](options)
    module, colon, name = options.script.partition(":")
    if not colon:
        raise SystemExit(f"No script is called {options.script!r}: use {', '.join(SCRIPTS)} or module:name.")
    script: Script | Sequence[Reply] = getattr(importlib.import_module(module), name)
    return script


def _stop_at_end_of_input(stopped: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 1024):
        stopped.set()


async def _serve(options: argparse.Namespace) -> None:
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    if options.with_parent:
        loop.add_reader(sys.stdin.fileno(), _stop_at_end_of_input, stopped)
    async with ScriptedModel(
        _named_script(options), host=options.host, port=options.port, keep_alive=options.keep_alive
    ) as model:
        line = {"url": model.url, "base_url": model.base_url, "pid": os.getpid()}
        sys.stdout.write(f"{msgspec.json.encode(line).decode()}\n")
        sys.stdout.flush()
        await stopped.wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # one that comes before the loop took over the signal
        asyncio.run(_serve(_options(sys.argv[1:])))
