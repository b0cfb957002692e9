"""A PostgreSQL server whose databases have a small disk of their own, in the memory, which a test fills."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kits.needs import needs_bubblewrap
from kits.postgres_server import START_SECONDS, PostgresServer, children, is_ready, private_folder, run, start

BYTES: Final = 90_000_000
"""What there is when databases were just made takes 40 MB, and each file of the server's own log 16."""
SERVING: Final = "cp -a {template}/. {data} && while true; do {server}; sleep 0.1; done"
"""A server that has stopped by itself is started again, as a machine's service manager does."""


class SmallDisk:
    """`folder`: what is on it, as it is seen from outside. What is done there the server's user does: it is his."""

    def __init__(self, folder: Path) -> None:
        self._filler = shlex.quote(str(folder / "filler"))

    def fill(self) -> None:
        """Write until there is no room."""
        run("sh", "-c", f"! cat /dev/zero > {self._filler}")

    def make_room(self) -> None:
        """As it was before."""
        run("sh", "-c", f"rm {self._filler}")


@contextmanager
def postgres_on_small_disk(template: Path, **settings: str) -> Iterator[tuple[PostgresServer, SmallDisk]]:
    """A server that runs, with what is in `template`, and its disk, which lasts as long. Skips without bubblewrap."""
    needs_bubblewrap()
    with private_folder() as folder:
        server = PostgresServer(folder, settings)
        server.data.mkdir()
        with (folder / "log").open("ab") as log:
            process = start(_command(server, template), log)
        try:
            yield server, _disk(process, server)
        finally:
            process.kill()  # and all that it runs goes with it
            process.wait(START_SECONDS)


def _command(server: PostgresServer, template: Path) -> list[str]:
    own = ("--die-with-parent", "--unshare-pid", "--unshare-ipc", "--dev-bind", "/", "/")
    small = ("--perms", "0700", "--size", str(BYTES), "--tmpfs", str(server.data))
    words = {"template": template, "data": server.data}
    serving = SERVING.format(
        server=shlex.join(server.command), **{name: shlex.quote(str(word)) for name, word in words.items()}
    )
    return ["bwrap", *own, *small, "--", "sh", "-c", serving]


def _disk(process: subprocess.Popen[bytes], server: PostgresServer) -> SmallDisk:
    """The server's, when it is there, and the server on it."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, (server.folder / "log").read_text(encoding="utf-8")
        for inside in children(process.pid):
            seen = Path(f"/proc/{inside}/root{server.data}")
            if is_ready(seen):
                return SmallDisk(seen)
        time.sleep(0.01)
    raise AssertionError("the server does not start")
