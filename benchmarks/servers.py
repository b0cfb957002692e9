"""Server processes: started, asked about themselves, stopped."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

ROOT = Path(__file__).resolve().parent.parent
SERVER_CORE = 0
CLIENT_CORE = 1


class Server(Struct, frozen=True):
    """A running server of either kind."""

    name: str
    port: int
    pid: int

    def ask(self, what: str) -> float:
        """`cpu` (seconds used so far) or `memory` (bytes resident)."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{what}", timeout=30) as answer:
            return msgspec.json.decode(answer.read(), type=float)


@contextlib.contextmanager
def running(name: str, *arguments: str) -> Iterator[Server]:
    """The module `benchmarks.{name}` as a process of its own, on the servers' core."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments, str(SERVER_CORE)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    try:
        yield Server(name, int(process.stdout.readline()), process.pid)
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
