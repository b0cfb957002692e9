"""The local backend: bubblewrap's boxes pass the kit of backends."""

import os
import shutil
import signal
from pathlib import Path

import anyio
import pytest

from greenroom.sandbox.backend import Adopting, Backend
from greenroom.sandbox.local.backend import LocalBackend
from greenroom.sandbox.local.records import Records
from greenroom.sandbox.settings import SandboxSettings
from kits.backend_kit import BackendKit

if shutil.which("bwrap") is None:
    pytest.skip("needs bubblewrap: apt-get install bubblewrap", allow_module_level=True)


class TestLocalBackend(BackendKit):
    def backend(self) -> Backend:
        return LocalBackend(SandboxSettings())

    async def kill(self, backend: Backend, lease: str) -> None:
        record = await anyio.to_thread.run_sync(Records().read, lease)
        assert record is not None
        assert record.first is not None
        os.kill(record.first.pid, signal.SIGKILL)

    async def test_another_process_goes_on_with_a_box_that_was_let_go(self, folder: Path) -> None:
        async with self.started() as backend:
            assert not isinstance(backend, Adopting), "boxes end with their process"

    async def test_a_box_that_is_gone_cannot_be_gone_on_with(self, folder: Path) -> None:
        await self.test_another_process_goes_on_with_a_box_that_was_let_go(folder)
