"""Shell and Python in the local backend's boxes."""

import shutil

import pytest

from greenroom.sandbox.backend import Backend
from greenroom.sandbox.local.backend import LocalBackend
from greenroom.sandbox.settings import SandboxSettings
from kits.tools_kit import ToolsKit

if shutil.which("bwrap") is None:
    pytest.skip("needs bubblewrap: apt-get install bubblewrap", allow_module_level=True)


class TestLocalTools(ToolsKit):
    def backend(self) -> Backend:
        return LocalBackend(SandboxSettings())
