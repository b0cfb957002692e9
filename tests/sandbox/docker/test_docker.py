"""The docker backend, on an engine of the tests' own: the kit, with Docker and with Podman."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from greenroom.sandbox.backend import Backend
from greenroom.sandbox.docker.backend import DockerBackend
from greenroom.sandbox.docker.config import container_name
from greenroom.sandbox.docker.engine import Engine
from greenroom.sandbox.settings import SandboxSettings
from kits.backend_kit import BackendKit
from kits.engine import OwnEngine

pytestmark = pytest.mark.slow


class EngineKit(BackendKit):
    """The kit for boxes that are containers of `engine`."""

    engine: OwnEngine

    def backend(self) -> Backend:
        return DockerBackend(SandboxSettings(docker_host=self.engine.url, image=self.engine.image))

    async def kill(self, backend: Backend, lease: str) -> None:
        async with opened(self.engine) as engine:
            await engine.json("POST", f"containers/{container_name(lease)}/kill")


class TestDocker(EngineKit):
    @pytest.fixture(autouse=True)
    def its_engine(self, docker_engine: OwnEngine) -> None:
        self.engine = docker_engine


class TestPodman(EngineKit):
    @pytest.fixture(autouse=True)
    def its_engine(self, podman_engine: OwnEngine) -> None:
        self.engine = podman_engine


@asynccontextmanager
async def opened(own: OwnEngine) -> AsyncIterator[Engine]:
    """The engine itself, to look at what the backend made of it."""
    engine = Engine(own.url)
    await engine.open()
    try:
        yield engine
    finally:
        await engine.close()
