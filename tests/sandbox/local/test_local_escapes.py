"""Nothing gets out of the local backend's boxes."""

import shutil

import pytest

from greenroom.sandbox.backend import Backend
from greenroom.sandbox.local.backend import LocalBackend
from greenroom.sandbox.scopes import find_groups
from greenroom.sandbox.settings import SandboxSettings
from kits.escape_kit import EscapeKit

if shutil.which("bwrap") is None:
    pytest.skip("needs bubblewrap: apt-get install bubblewrap", allow_module_level=True)


class TestLocalEscapes(EscapeKit):
    groups = find_groups()
    bounded = groups.controllers if groups else ()

    def backend(self) -> Backend:
        return LocalBackend(SandboxSettings())
