"""Sessions in a SQLite file: they outlive the process, and the machine's power.

`DurableStore` over `SqliteStorage`: each write returns when it is on the disk. Several processes may use one file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.sqlite.storage import SqliteStorage


class SqliteStore(DurableSessions):
    """A `DurableStore` in the file `path`, which is made if need be; or in a `SqliteStorage`, which has the three
    options of the file itself.

    It forgets turns over `turns_kept` of a session, the states after all but the last `states_kept` turns, the oldest
    of a session over `session_bytes`, and a session that nobody wrote to for `idle_seconds`. `busy_seconds`: how long
    to wait for another process to be done writing. `now`: seconds since the epoch. `options`: those of
    `DurableSessions`.
    """

    def __init__(
        self,
        path: str | Path | SqliteStorage,
        *,
        idle_seconds: float = 365 * 86_400.0,
        busy_seconds: float = 10.0,
        now: Callable[[], float] = time.time,
        **options: Any,
    ) -> None:
        if not isinstance(path, SqliteStorage):
            path = SqliteStorage(path, idle_seconds=idle_seconds, busy_seconds=busy_seconds, now=now)
        self.file = path
        super().__init__(path, **options)

    def __repr__(self) -> str:
        return f"<SqliteStore {self.path}>"

    @property
    def path(self) -> Path:
        """The file."""
        return self.file.path
