"""What tests need of the machine, and how its lack is said."""

from __future__ import annotations

import shutil

import pytest


def needs_bubblewrap() -> None:
    """Skip where the local backend cannot run."""
    if shutil.which("bwrap") is None:
        pytest.skip("needs bubblewrap: apt-get install bubblewrap", allow_module_level=True)
