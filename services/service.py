"""What all services have in common: they are started before they are used, and stopped once."""

from __future__ import annotations

from typing import Protocol

from greenroom.actors.errors import ConfigurationError


class Service(Protocol):
    """Something sessions use that outlives them."""

    async def start(self) -> None:
        """Be ready for use. Doing it twice is fine."""
        ...

    async def stop(self) -> None:
        """Let go of everything. Doing it twice is fine."""
        ...

    async def health(self) -> bool:
        """Whether it is ready for use."""
        ...


def not_started(service: object) -> ConfigurationError:
    """The error for use before `start` or after `stop`."""
    return ConfigurationError(
        f"{type(service).__name__} is used while it is not started; `await service.start()` in @app.init, "
        "and stop it in @app.shutdown, not before"
    )
