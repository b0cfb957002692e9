"""Boxes in scopes of systemd's: what is asked of it, with a program in its place that starts the command as it does."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from anyio import to_thread

from greenroom.sandbox.backend import MIB, BoxLimits
from greenroom.sandbox.local.place import find_place
from greenroom.sandbox.local.trial import try_a_box
from greenroom.sandbox.local.users import told_bounds
from greenroom.sandbox.scopes import Scopes, find_scopes
from greenroom.sandbox.settings import SandboxSettings

STARTER = """#!/bin/sh
echo "$XDG_RUNTIME_DIR $*" >> ASKED
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""

USER = 1000


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What was asked, a line each."""
    program, asked = tmp_path / "bin/systemd-run", tmp_path / "asked"
    program.parent.mkdir()
    program.write_text(STARTER.replace("ASKED", str(asked)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    return asked


def delegated(root: Path, controllers: str) -> Path:
    folder = root / f"user.slice/user-{USER}.slice/user@{USER}.service"
    folder.mkdir(parents=True)
    (folder / "cgroup.controllers").write_text(controllers)
    return root


def test_what_the_manager_may_bound_is_found_out(tmp_path: Path, asked: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": "/run/user/1000"}
    assert find_scopes(environ, tmp_path, USER) is None
    root = delegated(tmp_path / "cgroup", "cpu io memory pids\n")
    assert find_scopes(environ, root, USER) == Scopes(("memory", "pids", "cpu"))
    assert "--user --scope --quiet --collect" in asked.read_text()
    assert find_scopes({}, root, USER) is None
    assert find_scopes(environ, root, 0) is None
    assert find_scopes(environ, delegated(tmp_path / "none", "\n"), USER) is None


def test_the_limits_are_wished_for() -> None:
    command = Scopes(("memory",)).before("ab", BoxLimits(memory=700 * MIB, pids=99, cpus=1.5))
    wishes = [command[number + 1] for number, word in enumerate(command) if word == "-p"]
    assert wishes == [f"MemoryMax={700 * MIB}", "MemorySwapMax=0", "TasksMax=99", "CPUQuota=150%"]
    assert "--unit=greenroom-ab" in command
    assert told_bounds(Scopes(("memory", "pids"))) == (
        "scopes of systemd bound memory, pids; processor time is not bounded"
    )


async def test_a_box_is_made_in_a_scope(asked: Path) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("needs bubblewrap: apt-get install bubblewrap")
    place = await to_thread.run_sync(find_place, SandboxSettings())
    await to_thread.run_sync(try_a_box, place, Scopes(("memory", "pids", "cpu")))
    said = await to_thread.run_sync(asked.read_text)
    assert said.startswith("/run/user/1000 --user --scope")
    assert "-- env -i PATH=" in said
    assert "/bwrap --args" in said
