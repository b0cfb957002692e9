"""An image like the official browser image, in the tests' own engine: what cannot be pulled where there is no registry.

Official in it are the application, unpacked from its wheel on PyPI, and npm's MCP server; around them, as the official
Dockerfile lays it out, nginx on port 80, supervisord, root. It begins with our image, for the browser's sake.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from greenroom.sandbox.building.build import INPUTS_LABEL, proxies
from greenroom.sandbox.building.context import fetch_packages
from greenroom.sandbox.docker.engine import Engine
from kits.engine import OwnEngine, alone, forget_old, in_a_loop, places
from kits.official_box import SOURCE, install, servers

NAME = "greenroom-test/official"
IMAGE_FILES = SOURCE / "image"
BROWSER = "/usr/lib/chromium/chromium-headless-shell"
MODULES = "/agentscope_runtime/node_modules"


def official_image(own: OwnEngine) -> OwnEngine:
    """Build it, unless it is there: the engine, with that image in place of ours. Raises NodeMissing."""
    installed = install()
    contents = hashlib.sha256(f"{own.image} {installed.name} {servers(MODULES, BROWSER)}".encode())
    for path in sorted(IMAGE_FILES.iterdir()):
        contents.update(path.read_bytes())
    name = f"{NAME}:{contents.hexdigest()[:16]}"

    async def build() -> None:
        engine = Engine(own.url)
        try:
            facts = await engine.open()
            if not await engine.has_image(name):
                await asyncio.to_thread(_write_context, archive, installed, facts.machine)
                async for _ in engine.stream("build", params=_options(name, own.image), body=archive):
                    pass
            await forget_old(engine, name)
        finally:
            await engine.close()

    with tempfile.TemporaryDirectory() as folder, alone(places("docker").run / "build.lock"):
        archive = Path(folder) / "context.tar"
        in_a_loop(build)
    return OwnEngine(own.url, name, podman=False)


def _options(name: str, base: str) -> Mapping[str, str]:
    return {
        "t": name,
        "rm": "1",
        "forcerm": "1",
        "networkmode": "host",
        "buildargs": msgspec.json.encode({"BASE": base, **proxies()}).decode(),
        "labels": msgspec.json.encode({INPUTS_LABEL: ""}).decode(),  # the base's would make it one of ours
    }


def _write_context(archive: Path, installed: Path, machine: str) -> None:
    wanted = [
        line for line in (SOURCE / "requirements.txt").read_text().splitlines() if line[:1] not in {"", "#"}
    ]
    packages = fetch_packages(machine, on_line=lambda _: None, requirements=wanted)
    with tarfile.open(archive, "w") as tar:
        for path in IMAGE_FILES.iterdir():
            tar.add(path, path.name, filter=_roots)
        tar.add(packages, "packages", filter=_roots)
        for folder in ("application", "node_modules"):
            tar.add(installed / folder, folder, filter=_roots)
        described = Path(archive.parent) / "servers.json"
        described.write_text(json.dumps(servers(MODULES, BROWSER)))
        tar.add(described, "mcp_server_configs.json", filter=_roots)


def _roots(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    return None if "__pycache__" in info.name else info


@dataclass(frozen=True)
class OfficialEngine:
    """An engine with the image and a network that its boxes have: `gateway` is this machine's address in it."""

    own: OwnEngine
    network: str
    gateway: str


@contextmanager
def official_engine(own: OwnEngine) -> Iterator[OfficialEngine]:
    """Make the image and the network, which tests' engines have none of by themselves. Raises NodeMissing."""
    named = official_image(own)
    name = f"greenroom-{secrets.token_hex(4)}"
    wanted = {"Name": name, "Driver": "bridge", "CheckDuplicate": True}
    _ask(own, "POST", "networks/create", wanted)
    try:
        (address,) = _ask(own, "GET", f"networks/{name}")["IPAM"]["Config"]
        yield OfficialEngine(named, name, address["Gateway"])
    finally:
        _ask(own, "DELETE", f"networks/{name}")


def _ask(own: OwnEngine, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    async def ask() -> Any:
        engine = Engine(own.url)
        await engine.open()
        try:
            return await engine.json(method, path, body)
        finally:
            await engine.close()

    return in_a_loop(ask)
