"""Agent states and session histories in a SQLite file."""

from __future__ import annotations

import os
from urllib.parse import quote

from greenroom.services.durable_history import DurableSessionHistoryService
from greenroom.services.durable_state import DurableStateService
from greenroom.services.session_map import DEFAULT_BOUNDS
from greenroom.services.storage import Storage
from greenroom.services.store_urls import storage_at


class SqliteStateService(DurableStateService):
    """A `StateService` in a SQLite file, which processes of one machine share.

    An application that keeps its sessions in the same file (`AgentApp(state="sqlite:///friday.db")`) writes a turn's
    states together with the turn.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        rounds_kept: int = 20,
        turns_kept: int = 50,
        session_bytes: int = DEFAULT_BOUNDS.session_bytes,
    ) -> None:
        super().__init__(
            _storage(path), rounds_kept=rounds_kept, turns_kept=turns_kept, session_bytes=session_bytes
        )


class SqliteSessionHistoryService(DurableSessionHistoryService):
    """A `SessionHistoryService` in a SQLite file, which processes of one machine share; see `SqliteStateService`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        messages_kept: int = 2_000,
        turns_kept: int = 50,
        session_bytes: int = DEFAULT_BOUNDS.session_bytes,
    ) -> None:
        super().__init__(
            _storage(path), messages_kept=messages_kept, turns_kept=turns_kept, session_bytes=session_bytes
        )


def _storage(path: str | os.PathLike[str]) -> Storage:
    return storage_at(f"sqlite:///{quote(os.fspath(path))}")
