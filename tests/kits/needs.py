"""What tests need of the machine, and how its lack is said."""

from __future__ import annotations

import os
import shutil

import pytest

SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Not on every user's path."""


def needs_bubblewrap() -> None:
    """Skip where the local backend cannot run."""
    if shutil.which("bwrap") is None:
        pytest.skip("needs bubblewrap: apt-get install bubblewrap", allow_module_level=True)


def needed_program(name: str, package: str) -> str:
    """Where this program is; skip where there is none."""
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *SYSTEM_FOLDERS)))
    if found is None:
        pytest.skip(f"needs {name}: apt-get install {package}")
    return found
