"""A keeper at work, on the backend that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from greenroom.sandbox.settings import SandboxSettings

if TYPE_CHECKING:
    from greenroom.sandbox.keeper import Keeper


async def started_keeper(settings: SandboxSettings) -> Keeper:
    """A keeper at work. Raises `SandboxUnavailable`, which says what is missing and what to do."""
    from greenroom.sandbox.choose import choose_backend
    from greenroom.sandbox.keeper import Keeper

    backend = await choose_backend(settings)
    try:
        keeper = Keeper(backend, settings)
    except BaseException:
        await backend.stop()
        raise
    await keeper.start()
    return keeper
