"""An event loop whose clock jumps to the next timer: an hour passes in a moment, in the order in which it would.

For tests that touch no sockets and no threads. Mark a module or a test with `pytestmark = virtual_time`.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

import pytest

LONGEST = 1_000_000
"""Seconds."""


class JumpingSelector(selectors.SelectSelector):
    """Instead of waiting for `timeout` seconds it moves the clock by so many."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("nothing is left that could happen: the test waits for ever")
            self.now += timeout
            if self.now > LONGEST:  # what recurs, as renewals do, would go on while the test waits
                raise RuntimeError(f"the test has waited for {LONGEST:,} s: for what will not happen")
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 0 and goes on only when everything waits."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """For `tests/conftest.py`: tests marked `virtual_time` get this loop."""
    if item.get_closest_marker("virtual_time"):
        return {"virtual": VirtualTimeLoop}
    return {"real": asyncio.new_event_loop}


virtual_time = pytest.mark.virtual_time
