"""Engines of the tests' own, shared by runs: what the last one to leave knows of a process that another started."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import pytest

from kits.engine import _is_over

STARTS_ONE = """
import subprocess, sys
print(subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL).pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="engines run on Linux")
def test_a_process_whose_parent_lives_and_does_not_look_is_over_when_it_has_ended() -> None:
    command = [sys.executable, "-c", STARTS_ONE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not _is_over(pid)
        ended = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        select.select([ended], [], [])
        os.close(ended)
        assert _is_over(pid)
