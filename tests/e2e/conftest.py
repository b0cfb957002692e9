"""The workshop: one server process for each level of use, and one script a test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from kits.stage import Stage, for_installed_line, stage_of


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["tutorial", "actor"])
async def workshop(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    """The workshop application, at each of the two levels of use."""
    async with stage_of(for_installed_line("workshop_for_{}.py") + f":{request.param}") as stage:
        yield stage


@pytest_asyncio.fixture(loop_scope="session")
async def stage(workshop: Stage) -> AsyncIterator[Stage]:
    """The workshop, for one test. At its end nothing may be left over."""
    workshop.begin()
    yield workshop
    await workshop.end()
