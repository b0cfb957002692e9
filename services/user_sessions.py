"""Which sessions a user has, so that listing them does not look at everybody's."""

from __future__ import annotations

from greenroom.actors.messages import SessionKey


class UserSessions:
    """Session ids by user, in the order they were added.

    Most users have one session, and that one is kept without a container of its own.
    """

    __slots__ = ("_ids",)

    def __init__(self) -> None:
        self._ids: dict[str, str | dict[str, None]] = {}

    def __repr__(self) -> str:
        return f"<UserSessions of {len(self._ids)} users>"

    def of(self, user_id: str) -> tuple[str, ...]:
        """The user's session ids."""
        ids = self._ids.get(user_id, ())
        return (ids,) if isinstance(ids, str) else tuple(ids)

    def add(self, key: SessionKey) -> None:
        """Doing it twice is fine."""
        ids = self._ids.get(key.user_id)
        if ids is None:
            self._ids[key.user_id] = key.session_id
        elif isinstance(ids, dict):
            ids[key.session_id] = None
        elif ids != key.session_id:
            self._ids[key.user_id] = {ids: None, key.session_id: None}

    def discard(self, key: SessionKey) -> None:
        """One that is not there is fine."""
        ids = self._ids.get(key.user_id)
        if isinstance(ids, dict):
            ids.pop(key.session_id, None)
        if ids in ({}, key.session_id):
            del self._ids[key.user_id]
