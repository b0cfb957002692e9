"""An application whose turns leave traces outside of it: what is begun and done is written to a file at once.

Environment: `DURABLE_STATE` (the store's URL), `DURABLE_TRACE` (that file), `DURABLE_LEASE` (seconds), `DURABLE_AT` (a
fault point at which the process kills itself), `DURABLE_IDEMPOTENT` (set: the handler is declared so),
`DURABLE_TURNS_KEPT` (for so many of a session's turns it is known what its state was), `DURABLE_BOXES` (set: the
backend of the boxes that sessions have), `DURABLE_PAGES` (the address of pages that these may open).

A turn's text is what its handler does, word by word: `say:x`, `nap:0.2` (a slow model), `hold` (forever),
`tool` (a call and its result), `use` (the session's box, which counts how often), `open:URL`, `write:x` (into the only
text field of the session's page) and `look` (at that page). It begins with the number of turns its session had before.
Its session's state says how many turns came to their end, and which was the last.

`GET /tasks` tells how many tasks there are.
"""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

from greenroom import AgentApp, SandboxService, SandboxSettings
from greenroom.actors.errors import SandboxLost, SandboxUnavailable, StoreUnavailable
from greenroom.actors.events import Event, ItemDone, ItemStarted, PartDone, TextDelta
from greenroom.actors.limits import Limits
from greenroom.actors.messages import AgentRequest, Text, ToolCall, ToolOutput
from greenroom.sandbox.settings import EgressRules
from greenroom.services.durable_leases import DurableLeases
from greenroom.services.durable_state import DurableStateService
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.store_urls import storage_at

LIMITS = Limits(recovery_seconds=0.3, journal_seconds=0.05, elsewhere_seconds=8.0, cancel_seconds=1.0)


def reached(point: str) -> None:
    if point == os.environ.get("DURABLE_AT"):
        os.kill(os.getpid(), signal.SIGKILL)


def note(word: str, turn: str) -> None:
    handle = os.open(os.environ["DURABLE_TRACE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, f"{word} {turn} {os.getpid()}\n".encode())
    os.close(handle)


storage = storage_at(os.environ["DURABLE_STATE"])
states = DurableStateService(
    storage, rounds_kept=1, turns_kept=int(os.environ.get("DURABLE_TURNS_KEPT", "1"))
)
lease_seconds = float(os.environ.get("DURABLE_LEASE", "2"))
boxes: SandboxService | None = None
if "DURABLE_BOXES" in os.environ:
    boxes = SandboxService(
        settings=SandboxSettings(
            backend=os.environ["DURABLE_BOXES"],
            grace_seconds=2.0,
            egress=EgressRules(private=tuple(os.environ.get("DURABLE_PAGES", "").split())),
        ),
        leases=DurableLeases(storage, lease_seconds=lease_seconds),
    )
app = AgentApp(
    "Durable",
    state=DurableSessions(
        storage,
        lease_seconds=lease_seconds,
        reached=reached,
        turns_kept=100_000,  # the checker looks at all there ever were
        logs_kept=100_000,
    ),
    sandboxes=boxes,
    limits=LIMITS,
    drain_seconds=float(os.environ.get("DURABLE_DRAIN", "10")),
)


@app.init
async def start(self: AgentApp) -> None:
    await states.start()


@app.shutdown
async def stop(self: AgentApp) -> None:
    await states.stop()


@app.endpoint("/tasks", methods=["GET"])
async def tasks() -> dict[str, int]:
    return {"tasks": len(asyncio.all_tasks())}


@app.query("events", idempotent="DURABLE_IDEMPOTENT" in os.environ)
async def answer(request: AgentRequest, session: Any) -> AsyncIterator[Event]:
    note("begun", session.turn_id)
    part = request.input[0].content[0]
    assert isinstance(part, Text)
    yield ItemStarted("words")
    yield TextDelta(f"{len(await patiently(session.history))}", "words")
    for place, word in enumerate(part.text.split()):
        kind, _, argument = word.partition(":")
        if kind == "nap":
            await asyncio.sleep(float(argument))
        elif kind == "hold":
            await asyncio.Event().wait()
        elif kind == "tool":
            for event in tool(f"call_{place}"):
                yield event
        elif kind == "use":
            yield TextDelta(f" {await patiently(partial(used, session))}", "words")
        elif kind in {"open", "write", "look"}:
            yield TextDelta(f" {await patiently(partial(seen, session, kind, argument))}", "words")
        else:
            yield TextDelta(f" {argument}", "words")
    yield ItemDone("words")
    await patiently(partial(count, session))
    note("done", session.turn_id)


async def count(session: Any) -> None:
    """One turn more has come to its end."""
    before = await states.export_state(*session.key) or {"turns": 0}
    turns = before["turns"] + 1
    await states.save_state(
        session.user_id, {"turns": turns, "last": session.turn_id}, session.session_id, turns
    )


async def used(session: Any) -> str:
    """How often the session has used its box, this time too. Says so where it has lost another one."""
    count = partial(session.browser.run_shell_command, "echo >> uses; wc -l < uses")
    try:
        said = await count()
    except SandboxLost:
        return f"lost {await used(session)}"
    assert not said.is_error, said.text
    note("used", session.turn_id)
    return str(said.text).split()[0]


async def seen(session: Any, kind: str, argument: str) -> str:
    """What the session's page shows then. Says so where it has lost another one."""
    browser = session.browser
    try:
        if kind == "open":
            shown = await browser.browser_navigate(argument)
        else:
            shown = await browser.browser_snapshot()
        if kind == "write":
            field = re.search(r"textbox.*?\[ref=(\w+)\]", str(shown.text))
            assert field is not None, shown.text
            shown = await browser.browser_type("the field", field[1], argument)
    except SandboxLost as error:
        return f"lost, as {error} {await seen(session, kind, argument)}"
    assert not shown.is_error, shown.text
    note("used", session.turn_id)
    return str(shown.text)


async def patiently(use: Callable[[], Awaitable[Any]]) -> Any:
    """Use the store as soon as it is there."""
    while True:
        try:
            return await use()
        except (StoreUnavailable, SandboxUnavailable):
            await asyncio.sleep(0.05)


def tool(call: str) -> list[Event]:
    """A call and its result."""
    return [
        ItemStarted(f"{call}_in", "tool_call", call_id=call, name="act"),
        PartDone(ToolCall(call, "act", "{}"), f"{call}_in"),
        ItemDone(f"{call}_in"),
        ItemStarted(f"{call}_out", "tool_output", "tool", call_id=call, name="act"),
        PartDone(ToolOutput(call, "act", (Text("acted"),)), f"{call}_out"),
        ItemDone(f"{call}_out"),
    ]
