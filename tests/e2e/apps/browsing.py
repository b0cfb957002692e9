"""An application whose turns use their session's browser, word by word of their text: `open:URL`, `write:TEXT` (into
the page's only text field), `look`, `hold:FILE` (until it is there).

Environment: `BROWSING_STATE` (the store's URL), and what sandboxes are made with.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from greenroom import AgentApp
from greenroom.actors.events import Event, ItemDone, ItemStarted, TextDelta
from greenroom.actors.limits import Limits
from greenroom.actors.messages import AgentRequest, Text
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.store_urls import storage_at

app = AgentApp(
    "Browsing",
    state=DurableSessions(storage_at(os.environ["BROWSING_STATE"]), lease_seconds=2.0),
    sandboxes=os.environ["GREENROOM_SANDBOX"],
    limits=Limits(recovery_seconds=0.3, elsewhere_seconds=20.0),
    drain_seconds=20.0,
)


@app.query("events")
async def answer(request: AgentRequest, session: Any) -> AsyncIterator[Event]:
    part = request.input[0].content[0]
    assert isinstance(part, Text)
    yield ItemStarted("words")
    for word in part.text.split():
        kind, _, argument = word.partition(":")
        if kind == "hold":
            yield TextDelta(await until_there(Path(argument)), "words")
        else:
            yield TextDelta(await done(session.browser, kind, argument), "words")
    yield ItemDone("words")


async def until_there(path: Path) -> str:
    path.with_suffix(".reached").touch()
    while not path.exists():  # noqa: ASYNC110 - the test makes it
        await asyncio.sleep(0.02)
    return "held "


async def done(browser: Any, kind: str, argument: str) -> str:
    if kind == "open":
        result = await browser.browser_navigate(argument)
    else:
        result = await browser.browser_snapshot()
    if kind == "write":
        ref = re.search(r"textbox.*?\[ref=(\w+)\]", result.text)
        assert ref is not None, result.text
        result = await browser.browser_type("the field", ref[1], argument)
    assert not result.is_error, result.text
    return str(result.text)
