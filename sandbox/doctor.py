"""Looks whether sandboxes can be made here, and how well: every finding says what was seen and what to do about it."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import anyio
from anyio import to_thread
from msgspec import Struct

from greenroom.actors.errors import GreenroomError
from greenroom.sandbox.backend import BOX_SECONDS, MIB, Backend, BoxSpec
from greenroom.sandbox.browsers import find_browser
from greenroom.sandbox.client import BoxClient
from greenroom.sandbox.docker import DockerBackend
from greenroom.sandbox.docker_engine import Engine, engine_url
from greenroom.sandbox.image_build import image_digest
from greenroom.sandbox.image_context import inputs_digest
from greenroom.sandbox.local import LocalBackend
from greenroom.sandbox.settings import OUR_IMAGE, SandboxSettings

PAGE: Final = "data:text/html,<title>greenroom</title><h1>a page</h1>"
TRIAL_OWNER: Final = "doctor"


class Finding(Struct, frozen=True):
    """One thing that was looked at. `text`: what was seen, or, when it is not `ok`, what is wrong and what to do."""

    subject: str
    ok: bool
    text: str


async def examine(settings: SandboxSettings) -> AsyncIterator[Finding]:
    """Look at engine, image, browser and what isolates, and try a box of each backend. The last finding is which
    backend `auto` takes."""
    engine = await _look("engine", lambda: _engine(settings))
    yield engine
    if engine.ok:
        yield await _look("image", lambda: _image(settings))
    else:
        yield await _look("base of the image", _base)
    docker = await _look("docker", lambda: _box(DockerBackend(settings)))
    yield docker
    yield await _look("bubblewrap", _bubblewrap)
    yield await _look("browser", lambda: _browser(settings))
    local = await _look("local", lambda: _box(LocalBackend(settings)))
    yield local
    works = [finding.subject for finding in (docker, local) if finding.ok]
    if works:
        yield Finding("auto", True, f"sandboxes come from {works[0]}")
    else:
        yield Finding(
            "auto", False, "no sandbox can be made here: one of `docker` and `local` above has to work"
        )


async def _look(subject: str, look: Callable[[], Awaitable[str]]) -> Finding:
    try:
        return Finding(subject, True, await look())
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


async def _box(backend: Backend) -> str:
    """Make a box, have its browser show a page, and remove it."""
    began = time.monotonic()
    folder = Path(await to_thread.run_sync(lambda: mkdtemp(prefix="greenroom-doctor-")))
    lease = secrets.token_hex(16)
    try:
        await backend.start()
        which = repr(backend)
        directory = folder / lease
        await to_thread.run_sync(lambda: _make(folder, directory))
        spec = BoxSpec(
            lease=lease,
            owner=TRIAL_OWNER,
            kind="browser",
            token=secrets.token_urlsafe(32),
            directory=directory,
        )
        try:
            client = BoxClient(await backend.create(spec))
            try:
                await client.ready(BOX_SECONDS)
                shown = await client.call("browser_navigate", {"url": PAGE}, BOX_SECONDS)
            finally:
                await client.close()
        finally:
            with anyio.CancelScope(shield=True):
                await backend.remove(lease)
    finally:
        with anyio.CancelScope(shield=True):
            await backend.stop()
            await to_thread.run_sync(lambda: shutil.rmtree(folder))
    if shown.is_error:
        raise GreenroomError(f"a box was made, and its browser shows no page: {shown.text}")
    return f"a box was made and its browser showed a page, in {time.monotonic() - began:.1f} s: {which}"


def _make(folder: Path, directory: Path) -> None:
    folder.chmod(0o711)  # a box's user passes through it
    directory.mkdir(mode=0o700)
