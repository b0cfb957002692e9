"""Shell and Python in boxes that are containers."""

import pytest

from greenroom.sandbox.backend import Backend
from greenroom.sandbox.docker.backend import DockerBackend
from greenroom.sandbox.settings import SandboxSettings
from kits.engine import OwnEngine
from kits.tools_kit import ToolsKit

pytestmark = pytest.mark.slow


class TestDockerTools(ToolsKit):
    @pytest.fixture(autouse=True)
    def its_engine(self, docker_engine: OwnEngine) -> None:
        self.engine = docker_engine

    def backend(self) -> Backend:
        return DockerBackend(SandboxSettings(docker_host=self.engine.url, image=self.engine.image))
