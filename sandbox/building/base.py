"""The Debian that our image begins with: the registry's, or one made here from the machine's own package archive."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import anyio

from greenroom.actors.errors import SandboxUnavailable
from greenroom.sandbox.building.context import tail
from greenroom.sandbox.docker.engine import Engine, EngineError

REGISTRY_BASE: Final = "debian:bookworm-slim"
OWN_BASE: Final = "localhost/greenroom/debian-bookworm:latest"
"""The one made here. It has a name of its own, so that nobody takes it for the registry's; Podman calls all it imports
`latest`."""

PULL_SECONDS: Final = 300.0
ANSWER_SECONDS: Final = 15.0
"""How long a registry may be silent before the base is made here."""

SUITE: Final = "bookworm"
ARCHIVE: Final = (
    f"deb http://deb.debian.org/debian {SUITE} main",
    f"deb http://deb.debian.org/debian {SUITE}-updates main",
    f"deb http://deb.debian.org/debian-security {SUITE}-security main",
)
"""Where Debian's packages come from when this machine's own sources are another system's."""

LEFT_OUT: Final = ("/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*")
"""What nobody reads in a box: 50 MB."""

OnLine = Callable[[str], None]


async def find_base(engine: Engine, *, fresh: bool = False, on_line: OnLine) -> str:
    """The name of a base image that the engine has, after pulling or making one if need be; `fresh`: in any case.

    Raises `SandboxUnavailable` when neither the registry nor Debian's archive gives one.
    """
    for name in (REGISTRY_BASE, OWN_BASE):
        if not fresh and await engine.has_image(name):
            return name
    on_line(f"pulling {REGISTRY_BASE}")
    try:
        await _pull(engine, on_line)
    except (EngineError, TimeoutError) as error:
        on_line(f"the registry does not give it ({_short(error)}); making one from Debian's archive")
        await _make(engine, on_line, why=_short(error))
        return OWN_BASE
    return REGISTRY_BASE


async def _pull(engine: Engine, on_line: OnLine) -> None:
    with anyio.fail_after(PULL_SECONDS):
        async with asyncio.timeout(ANSWER_SECONDS) as silence:
            params = {"fromImage": "docker.io/library/debian", "tag": REGISTRY_BASE.partition(":")[2]}
            async for line in engine.stream("images/create", params=params):
                silence.reschedule(asyncio.get_running_loop().time() + ANSWER_SECONDS)
                on_line(f"{line.get('status', '')} {line.get('progress', '')}".strip())


async def _make(engine: Engine, on_line: OnLine, *, why: str) -> None:
    if await anyio.to_thread.run_sync(shutil.which, "mmdebstrap") is None:
        raise SandboxUnavailable(
            f"the image has nothing to begin with: {REGISTRY_BASE} could not be pulled ({why}), and mmdebstrap, which "
            "makes it from Debian's archive, is not installed; make the registry reachable, or, on Debian or Ubuntu, "
            "`apt-get install mmdebstrap`"
        )
    work = await anyio.to_thread.run_sync(lambda: tempfile.mkdtemp(prefix="greenroom-base-"))
    archive = Path(work) / "base.tar"
    try:
        await _run_mmdebstrap(archive, on_line)
        on_line("giving it to the engine")
        repository, _, tag = OWN_BASE.rpartition(":")
        params = {"fromSrc": "-", "repo": repository, "tag": tag}
        async for line in engine.stream("images/create", params=params, body=archive):
            on_line(str(line.get("status", "")))
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(lambda: shutil.rmtree(work))


async def _run_mmdebstrap(archive: Path, on_line: OnLine) -> None:
    left_out = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    command = ("mmdebstrap", "--variant=minbase", "--include=ca-certificates", *left_out)
    sources = await _sources()
    said: list[str] = []
    process = await asyncio.create_subprocess_exec(
        *command,
        SUITE,
        str(archive),
        *sources,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        async for raw in process.stdout:
            said.append(raw.decode(errors="replace"))
            on_line(said[-1].strip().removeprefix("I: "))
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()  # it unmounts and removes what it made
            with anyio.CancelScope(shield=True):
                await process.wait()
    if code:
        raise SandboxUnavailable(
            f"mmdebstrap made no base image from {', '.join(sources)}: exit code {code}. It needs root or unprivileged "
            f"user namespaces, and Debian's archive. Its last words:\n{tail(''.join(said))}"
        )


async def _sources() -> Sequence[str]:
    """The machine's own sources of this Debian, which reach the archive or its mirror; else the public ones."""
    if await anyio.to_thread.run_sync(shutil.which, "apt-get") is None:
        return ARCHIVE
    listing = await anyio.run_process(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE) $(COMPONENT)",
            "Created-By: Packages",
        ],
        check=False,
    )
    targets = [line.split() for line in listing.stdout.decode().splitlines()]
    lines = {
        f"deb {words[0]} {words[1]} main"
        for words in targets
        if len(words) == 3 and words[2] == "main" and words[1].partition("-")[0] == SUITE
    }
    has_release = any(line.split()[2] == SUITE for line in lines)
    return sorted(lines) if has_release else ARCHIVE


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__
