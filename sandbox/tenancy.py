"""What a keeper knows of one key: its box, who uses it, and whether a person has the browser."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import anyio

from greenroom.actors.errors import SandboxLost
from greenroom.sandbox.kept_box import KeptBox
from greenroom.sandbox.leases import LeaseKey, Person
from greenroom.sandbox.result import ToolResult

ACTS: Final = frozenset(
    {
        "browser_click",
        "browser_close",
        "browser_drag",
        "browser_file_upload",
        "browser_handle_dialog",
        "browser_hover",
        "browser_navigate_back",
        "browser_navigate_forward",
        "browser_press_key",
        "browser_select_option",
        "browser_tab_close",
        "browser_tab_select",
        "browser_type",
    }
)
"""Tools that act on what was seen before."""

BLIND: Final = frozenset(
    {"browser_console_messages", "browser_network_requests", "browser_pdf_save", "browser_tab_list"}
)
"""Tools whose answers do not show the page."""

HANDED_BACK: Final = (
    "{tool} was not carried out: a person used this browser meanwhile, and the page may be another than you saw. "
    "Below is what it is now; go on from there."
)


class Tenancy:
    """Of one key. `holds`: turns that are under way; `visits`: calls, and people who look; `person`: one has the
    browser; `must_look`: he had it, and the agent has not seen the page since. `asked`: another process
    wants the box. `missing`: when the person is given up who has not come back since the box was taken over."""

    def __init__(self, key: LeaseKey) -> None:
        self.key = key
        self.box: KeptBox | None = None
        self.making: asyncio.Task[None] | None = None
        self.holds = 0
        self.visits = 0
        self.person = False
        self.must_look = False
        self.asked = False
        self.missing: asyncio.TimerHandle | None = None
        self.idle_since = 0.0
        self.handed_back = anyio.Event()
        self._browsing = 0
        self._quiet = anyio.Event()

    def __repr__(self) -> str:
        return f"<Tenancy of {self.key}, {self.box}>"

    @property
    def idle(self) -> bool:
        """Whether nobody uses the box or is about to."""
        return not (self.holds or self.visits or self.person or self.making)

    @contextmanager
    def browsing(self) -> Iterator[None]:
        """A call of the browser's is under way."""
        self._browsing += 1
        try:
            yield
        finally:
            self._browsing -= 1
            if not self._browsing:
                self._quiet.set()

    async def browsing_over(self) -> None:
        """Wait until no call of the browser's is under way."""
        while self._browsing:
            self._quiet = anyio.Event()
            await self._quiet.wait()

    def let_go(self) -> None:
        """It has no box any more, and there is nothing to look at."""
        self.box = None
        self.must_look = self.asked = False

    def take_over(self) -> bool:
        """A person has the browser. False: one had it."""
        self.comes_back()
        had, self.person = self.person, True
        if not had:
            self.handed_back = anyio.Event()
        return not had

    def hand_back(self) -> None:
        """He is done."""
        self.comes_back()
        if self.person:
            self.person, self.must_look = False, self.box is not None
            self.handed_back.set()

    def comes_back(self) -> None:
        """The person is not missing."""
        if self.missing is not None:
            self.missing.cancel()
            self.missing = None

    @property
    def told(self) -> Person:
        """What its lease says of a person."""
        return "has" if self.person else "had" if self.must_look else "no"


def lost(key: LeaseKey, why: str) -> SandboxLost:
    """What a model is told when its box is gone: plainly, and what to do."""
    return SandboxLost(
        f"the {key.kind} sandbox of this session is gone: {why}. What it held (pages, logins, files, variables) is "
        "lost. The next call gets a new, empty one: begin anew there, by navigating for a start"
    )


def handed_back(tool: str, snapshot: ToolResult) -> ToolResult:
    """The answer to a tool that would have acted on a page that a person has used meanwhile."""
    words = {"type": "text", "text": HANDED_BACK.format(tool=tool)}
    return ToolResult(meta=None, content=[words, *snapshot.get("content", ())], isError=True)
