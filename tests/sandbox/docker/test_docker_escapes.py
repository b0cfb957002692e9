"""Escape attempts in boxes that are containers of Docker's, and of Podman's."""

from __future__ import annotations

import pytest

from greenroom.sandbox.backend import Backend
from greenroom.sandbox.docker.backend import DockerBackend
from greenroom.sandbox.settings import SandboxSettings
from kits.engine import OwnEngine
from kits.escape_kit import EscapeKit

pytestmark = pytest.mark.slow


class TestDockerEscapes(EscapeKit):
    @pytest.fixture(autouse=True)
    def its_engine(self, docker_engine: OwnEngine) -> None:
        self.engine = docker_engine

    def backend(self) -> Backend:
        return DockerBackend(SandboxSettings(docker_host=self.engine.url, image=self.engine.image))


class TestPodmanEscapes(TestDockerEscapes):
    @pytest.fixture(autouse=True)
    def its_engine(self, podman_engine: OwnEngine) -> None:
        self.engine = podman_engine
