"""A keeper for one sandbox object that belongs to no service."""

from __future__ import annotations

from greenroom.sandbox.keeper import Keeper
from greenroom.sandbox.settings import SandboxSettings


async def started_keeper(settings: SandboxSettings) -> Keeper:
    """A keeper at work. Raises `SandboxUnavailable`, which says what is missing and what to do."""
    from greenroom.sandbox.choose import choose_backend

    keeper = Keeper(await choose_backend(settings), settings)
    await keeper.start()
    return keeper
