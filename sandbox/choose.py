"""Which backend the sandboxes of this process come from."""

from __future__ import annotations

import logging

from anyio import to_thread

from greenroom.actors.errors import ConfigurationError, SandboxUnavailable
from greenroom.sandbox.backend import Backend
from greenroom.sandbox.settings import SandboxSettings

log = logging.getLogger(__name__)


async def choose_backend(settings: SandboxSettings) -> Backend:
    """The backend that the settings name, started; `auto`: docker, where its engine and image are there, then local.
    The log says which, and why.

    Raises `SandboxUnavailable` when it cannot be used, or none can, and says what to do for each; `ConfigurationError`
    when there is none of that name.
    """
    if settings.backend != "auto":
        backend = await to_thread.run_sync(named_backend, settings.backend, settings)
        await backend.start()
        log.info("sandboxes come from %r, as the settings say", backend)
        return backend
    reasons: dict[str, str] = {}
    for name in ("docker", "local"):
        backend = await to_thread.run_sync(
            named_backend, name, settings
        )  # engines' libraries take long to import
        try:
            await backend.start()
        except SandboxUnavailable as error:
            await backend.stop()
            reasons[name] = str(error)
            log.debug("no sandboxes from %s: %s", name, error)
            continue
        log.info(
            "sandboxes come from %r%s", backend, "".join(f"; not from {a}: {b}" for a, b in reasons.items())
        )
        return backend
    raise SandboxUnavailable(
        "no sandbox can be made here. "
        + " ".join(f"{name.capitalize()}: {reason.rstrip('.')}." for name, reason in reasons.items())
        + " `greenroom sandbox doctor` looks into each."
    )


def named_backend(name: str, settings: SandboxSettings) -> Backend:
    """The backend of that name, or for that URL, not yet started. Raises `ConfigurationError` when there is none."""
    if name == "docker":
        from greenroom.sandbox.docker.backend import DockerBackend

        return DockerBackend(settings)
    if name == "local":
        from greenroom.sandbox.local.backend import LocalBackend

        return LocalBackend(settings)
    if name.startswith(("http://", "https://")):
        from greenroom.sandbox.remote.backend import RemoteBackend

        return RemoteBackend(settings)
    raise ConfigurationError(
        f"there is no sandbox backend {name!r}: it is `auto`, `docker`, `local`, or the URL of a box that runs "
        "elsewhere (GREENROOM_SANDBOX, or SandboxSettings(backend=...))"
    )
