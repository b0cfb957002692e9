"""Agent states and session histories in a PostgreSQL database."""

from __future__ import annotations

from greenroom.services.durable_history import DurableSessionHistoryService
from greenroom.services.durable_state import DurableStateService
from greenroom.services.session_map import DEFAULT_BOUNDS
from greenroom.services.store_urls import storage_at


class PostgresStateService(DurableStateService):
    """A `StateService` in a PostgreSQL database: `postgresql://user:password@host/database`.

    An application with the same URL as its `state` writes a turn's states together with the turn.
    """

    def __init__(
        self,
        url: str,
        *,
        rounds_kept: int = 20,
        turns_kept: int = 50,
        session_bytes: int = DEFAULT_BOUNDS.session_bytes,
    ) -> None:
        super().__init__(
            storage_at(url), rounds_kept=rounds_kept, turns_kept=turns_kept, session_bytes=session_bytes
        )


class PostgresSessionHistoryService(DurableSessionHistoryService):
    """A `SessionHistoryService` in a PostgreSQL database; see `PostgresStateService`."""

    def __init__(
        self,
        url: str,
        *,
        messages_kept: int = 2_000,
        turns_kept: int = 50,
        session_bytes: int = DEFAULT_BOUNDS.session_bytes,
    ) -> None:
        super().__init__(
            storage_at(url), messages_kept=messages_kept, turns_kept=turns_kept, session_bytes=session_bytes
        )
