"""Building our image with an engine, with or without a registry of images: what `greenroom sandbox build` does."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec
from msgspec import Struct

from greenroom.actors.errors import SandboxUnavailable
from greenroom.sandbox.building.base import find_base
from greenroom.sandbox.building.context import fetch_packages, inputs_digest, tail, write_context
from greenroom.sandbox.docker.engine import Engine, EngineError
from greenroom.sandbox.settings import OUR_IMAGE

INPUTS_LABEL: Final = "greenroom.inputs"
"""On the image: the digest of what it was built from."""

PROXY_VARIABLES: Final = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy")


class BuildStep(Struct, frozen=True):
    """How far a build is: which part of it runs, its newest line, and how much of it is done (0 to 1), if known."""

    part: str
    line: str = ""
    done: float | None = None


OnStep = Callable[[BuildStep], None]


class BuiltImage(Struct, frozen=True):
    """An image that is there. `size` is in bytes; `fresh`: it was built just now."""

    name: str
    id: str
    size: int
    fresh: bool


async def build_image(
    engine: Engine, *, name: str = OUR_IMAGE, again: bool = False, on_step: OnStep | None = None
) -> BuiltImage:
    """Build the image unless the engine has this very one. `again`: build it anew, with nothing that was kept, so that
    it has Debian's newest packages.

    Raises `SandboxUnavailable`, which quotes what went wrong.
    """
    tell = on_step or (lambda _step: None)
    facts = await engine.open()
    digest = await anyio.to_thread.run_sync(inputs_digest)
    if not again and (found := await current_image(engine, name, digest)):
        return found
    packages = await anyio.to_thread.run_sync(
        lambda: fetch_packages(facts.machine, on_line=lambda line: tell(BuildStep("packages", line)))
    )
    before = await engine.image(name)
    base = await find_base(engine, fresh=again, on_line=lambda line: tell(BuildStep("base", line)))
    work = await anyio.to_thread.run_sync(lambda: tempfile.mkdtemp(prefix="greenroom-build-"))
    try:
        archive = Path(work) / "context.tar"
        await anyio.to_thread.run_sync(write_context, archive, packages)
        await _build(engine, archive, _build_options(name, base, digest, again), tell)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(lambda: shutil.rmtree(work))
    found = await current_image(engine, name, digest)
    if found is None:
        raise SandboxUnavailable(f"the engine says that it built {name}, and has no such image; try again")
    if before is not None and before["Id"] != found.id and len(before.get("RepoTags") or ()) == 1:
        await _remove(engine, str(before["Id"]))
    return msgspec.structs.replace(found, fresh=True)


async def _remove(engine: Engine, image: str) -> None:
    """Take away what the new image stands in for. Boxes that still run keep it, for the engine's own cleaning."""
    try:
        await engine.json("DELETE", f"images/{image}")
    except EngineError as error:
        if error.status != 409:
            raise


async def current_image(engine: Engine, name: str, digest: str) -> BuiltImage | None:
    """The image, if the engine has it and it was built from these inputs."""
    found = await engine.image(name)
    if found is None or image_digest(found) != digest:
        return None
    return BuiltImage(name, str(found["Id"]), int(found["Size"]), fresh=False)


def image_digest(found: Mapping[str, Any]) -> str:
    """What the image was built from, of an engine's description of it; empty when it does not say."""
    labels = (found.get("Config") or {}).get("Labels") or {}
    return str(labels.get(INPUTS_LABEL, ""))


def _build_options(name: str, base: str, digest: str, again: bool) -> dict[str, str]:
    return {
        "t": name,
        "rm": "1",
        "forcerm": "1",
        "nocache": "1" if again else "0",
        "networkmode": "host",  # an engine without a bridge can build too
        "buildargs": msgspec.json.encode({"BASE": base, **proxies()}).decode(),
        "labels": msgspec.json.encode({INPUTS_LABEL: digest}).decode(),
    }


def proxies() -> dict[str, str]:
    """This process's, as build arguments. Engines know these: they end with the build, and are in no layer."""
    said = {name: os.environ.get(name) or os.environ.get(name.upper()) for name in PROXY_VARIABLES}
    return {name: value for name, value in said.items() if value}


async def _build(engine: Engine, archive: Path, options: Mapping[str, str], tell: OnStep) -> None:
    said: list[str] = []
    done: float | None = None
    try:
        async for line in engine.stream("build", params=options, body=archive):
            text = str(line.get("stream", "")).strip()
            if step := re.match(r"step (\d+)/(\d+)", text, re.IGNORECASE):
                done = _share(step)
            if text:
                said.append(text)
                tell(BuildStep("image", text.splitlines()[-1], done))
    except EngineError as error:
        raise SandboxUnavailable(
            "the image could not be built; most often it is Debian's archive that could not be reached. "
            f"Its last words:\n{tail(chr(10).join([*said, str(error)[-200:]]))}"
        ) from error


def _share(step: re.Match[str]) -> float:
    number, total = int(step[1]), int(step[2])
    return (number - 1) / total
