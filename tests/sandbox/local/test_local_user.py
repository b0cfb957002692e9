"""The local backend for an ordinary user: the same tests once more, in a process that is not root's."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kits.other_user import TESTS, as_other_user, environment

pytestmark = pytest.mark.slow

if shutil.which("bwrap") is None:
    pytest.skip("needs bubblewrap: apt-get install bubblewrap", allow_module_level=True)


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder with a short path, which is what a socket's may be."""
    path = Path(tempfile.mkdtemp(prefix="gr-"))
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("part", ["test_local.py", "test_local_escapes.py", "test_local_faults.py"])
async def test_an_ordinary_user_has_isolated_boxes_too(home: Path, part: str) -> None:
    if os.geteuid() != 0:
        return  # the tests themselves run as one
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-rs",
        "-q",
        str(TESTS / "sandbox" / "local" / part),
    ]
    process = await asyncio.create_subprocess_exec(
        *as_other_user(command),
        env=environment(home),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    assert int(re.findall(r"(\d+) passed", said)[-1]) >= 10, said
    skipped = re.findall(r"^SKIPPED .*", said, re.MULTILINE)
    assert all("needs control groups" in line for line in skipped), said
