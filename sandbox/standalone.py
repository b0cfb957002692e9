"""A keeper at work, on the backend that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from greenroom.sandbox.settings import SandboxSettings

if TYPE_CHECKING:
    from greenroom.sandbox.keeper import Keeper
    from greenroom.sandbox.leases import Leases


async def started_keeper(settings: SandboxSettings, leases: Leases | None = None) -> Keeper:
    """A keeper at work. `leases`: where they are kept; none: in this user's file. Raises `SandboxUnavailable`, which
    says what is missing and what to do."""
    from greenroom.sandbox.choose import choose_backend
    from greenroom.sandbox.keeper import Keeper

    backend = await choose_backend(settings)
    try:
        keeper = Keeper(backend, settings, leases=leases)
    except BaseException:
        await backend.stop()
        raise
    await keeper.start()
    return keeper
