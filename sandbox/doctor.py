"""Looks whether sandboxes can be made here, and how well: every finding says what was seen and what to do about it."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

import anyio
import msgspec
from anyio import to_thread
from msgspec import Struct

from greenroom.actors.errors import GreenroomError
from greenroom.sandbox.backend import BOX_SECONDS, MIB, Backend
from greenroom.sandbox.browsers import find_browser
from greenroom.sandbox.building.build import image_digest
from greenroom.sandbox.building.context import inputs_digest
from greenroom.sandbox.choose import named_backend
from greenroom.sandbox.docker.engine import Engine, engine_url
from greenroom.sandbox.keeper import Keeper
from greenroom.sandbox.leases import LeaseKey
from greenroom.sandbox.settings import OUR_IMAGE, SandboxSettings

PAGE: Final = "data:text/html,<title>greenroom</title><h1>a page</h1>"


class Finding(Struct, frozen=True):
    """One thing that was looked at. `text`: what was seen, or, when it is not `ok`, what is wrong and what to do.
    `chosen`: an application with these settings takes this backend, whether its boxes work or not."""

    subject: str
    ok: bool
    text: str
    chosen: bool = False


async def examine(settings: SandboxSettings) -> AsyncIterator[Finding]:
    """Look at what the backend needs that the settings name, and try a box of it; `auto`: at that of each. The last
    finding is which one an application takes, and whether it works."""
    tried: list[Finding] = []
    for name in ("docker", "local") if settings.backend == "auto" else (settings.backend,):
        findings = _of_backend(name, settings)
        last = await anext(findings)
        yield last
        async for last in findings:
            yield last
        tried.append(last)
    yield _verdict(settings, tried)


async def _of_backend(name: str, settings: SandboxSettings) -> AsyncIterator[Finding]:
    """What it needs, then the backend itself."""
    if name == "docker":
        engine = await _look("engine", lambda: _engine(settings))
        yield engine
        if engine.ok:
            yield await _look("image", lambda: _image(settings))
        else:
            yield await _look("base of the image", _base)
    elif name == "local":
        yield await _look("bubblewrap", _bubblewrap)
        yield await _look("browser", lambda: _browser(settings))
    if name in {"docker", "local"}:
        yield await _tried(name, settings)
    else:
        yield await _look("remote", lambda: _remote(settings))


def _verdict(settings: SandboxSettings, tried: Sequence[Finding]) -> Finding:
    if settings.backend != "auto":
        [one] = tried
        named = f"{settings.backend!r}, as the settings name it (GREENROOM_SANDBOX)"
        if one.ok:
            return Finding("chosen", True, f"sandboxes come from {named}")
        return Finding(
            "chosen",
            False,
            f"sandboxes are to come from {named}, and that does not work: see `{one.subject}` above, or name another",
        )
    taken = next((finding for finding in tried if finding.chosen), None)
    if taken is None:
        return Finding(
            "auto", False, "no sandbox can be made here: one of `docker` and `local` above has to work"
        )
    if taken.ok:
        return Finding("auto", True, f"sandboxes come from {taken.subject}")
    works = [finding.subject for finding in tried if finding.ok]
    other = f", or set GREENROOM_SANDBOX={works[0]}, which works" if works else ""
    return Finding(
        "auto",
        False,
        f"sandboxes come from {taken.subject}, as it starts, and its boxes do not work: see `{taken.subject}` above"
        f"{other}",
    )


async def _look(subject: str, look: Callable[[], Awaitable[str | None]]) -> Finding:
    try:
        return Finding(subject, True, await look() or "")
    except GreenroomError as error:
        return Finding(subject, False, error.message)


async def _engine(settings: SandboxSettings) -> str:
    engine = Engine(await engine_url(settings.docker_host))
    try:
        facts = await engine.open()
    finally:
        await engine.close()
    rootless = ", rootless" if facts.rootless else ""
    return f"{facts.name} {facts.version} on {facts.machine}{rootless} at {engine.url}"


async def _image(settings: SandboxSettings) -> str:
    engine = Engine(await engine_url(settings.docker_host))
    try:
        await engine.open()
        found = await engine.image(settings.image)
    finally:
        await engine.close()
    if found is None:
        how = "greenroom sandbox build" if settings.image == OUR_IMAGE else f"docker pull {settings.image}"
        raise GreenroomError(f"{settings.image} is not there; {how}")
    built_from = image_digest(found)
    if built_from and built_from != await to_thread.run_sync(inputs_digest):
        raise GreenroomError(
            f"{settings.image} was built for another version of Greenroom; greenroom sandbox build"
        )
    whose = "" if built_from else ", which is not ours: it needs root and a network"
    return f"{settings.image}, {int(found['Size']) // MIB} MiB{whose}"


async def _base() -> str:
    if await to_thread.run_sync(shutil.which, "mmdebstrap") is None:
        raise GreenroomError(
            "mmdebstrap is not installed: without a registry of images there is nothing to begin with; "
            "on Debian or Ubuntu: apt-get install mmdebstrap"
        )
    return "mmdebstrap can make it where no registry is reachable"


async def _bubblewrap() -> str:
    found = await to_thread.run_sync(shutil.which, "bwrap")
    if found is None:
        raise GreenroomError(
            "bwrap is not on the path, which the local backend isolates with; apt-get install bubblewrap"
        )
    return found


async def _browser(settings: SandboxSettings) -> str:
    found = await to_thread.run_sync(find_browser, settings.browser)
    return str(found.program)


async def _remote(settings: SandboxSettings) -> str:
    """Nothing is run in the box: a session may have it, and one that cannot be reset is given to the first only."""
    backend = await to_thread.run_sync(named_backend, settings.backend, settings)
    try:
        await backend.start()
        return f"it answers, and takes the token: {backend!r}"
    finally:
        with anyio.CancelScope(shield=True):
            await backend.stop()


async def _tried(name: str, settings: SandboxSettings) -> Finding:
    backend = await to_thread.run_sync(named_backend, name, settings)
    try:
        started = await _look(name, backend.start)
        if not started.ok:
            return started
        made = await _look(name, lambda: _box(backend, settings))
        return msgspec.structs.replace(made, chosen=True)
    finally:
        with anyio.CancelScope(shield=True):
            await backend.stop()


async def _box(backend: Backend, settings: SandboxSettings) -> str:
    """Make a box, have its browser show a page, and remove it. By a keeper, as sessions have theirs: if this process is
    killed meanwhile, the next one finds what it left."""
    began = time.monotonic()
    which = repr(backend)
    keeper = Keeper(backend, msgspec.structs.replace(settings, boxes=1, warm=0))
    key = LeaseKey("", f"doctor-{secrets.token_hex(8)}", "browser")  # of several at once each has its own
    try:
        await keeper.start()
        shown = await keeper.call(key, "browser_navigate", {"url": PAGE}, BOX_SECONDS)
    finally:
        with anyio.CancelScope(shield=True):
            await keeper.stop()
    if shown.is_error:
        raise GreenroomError(f"a box was made, and its browser shows no page: {shown.text}")
    return f"a box was made and its browser showed a page, in {time.monotonic() - began:.1f} s: {which}"
