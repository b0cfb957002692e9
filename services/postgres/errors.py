"""What PostgreSQL's errors mean: for the caller of a turn in words, and for a call that could be sent again.

Imports asyncpg, so whoever imports this is using it.
"""

from __future__ import annotations

from typing import Final

import asyncpg

from greenroom.actors.errors import StoreUnavailable

OPERATORS_SECONDS: Final = 30.0
"""When to try again after what only a person can mend."""
SOON_SECONDS: Final = 2.0
"""After what ends by itself: a server that starts, one that has too much to do."""

ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What a call raises when the server cannot be reached, or refuses. The last has timeouts among it."""
_LOST_ALREADY: Final = "cannot switch to state"
"""How asyncpg refuses a connection on which it has read the server's last words, but not yet the end."""

_READ_ONLY: Final = "25006"
_STARTING: Final = "57P03"
_FULL: Final = "53300"
_UNDONE: Final = {"40001", "40P01", "23505", _READ_ONLY}
"""The server has rolled back what was asked for the sake of others, or as it is a standby now."""
_ENDED: Final = {"57P01", "57P02", "57P05", "25P03"}
"""The server's last words on a connection."""

_GONE: Final = (
    "the tables or functions that this version uses are not there (any more): a newer Greenroom may have changed "
    "them, or someone removed them; restart this process with the newer version, or have the operator put back a backup"
)
_POOLED: Final = (
    "a pooler between us and PostgreSQL hands out its connections by transaction; add ?statement_cache_size=0 to "
    "the URL"
)
_DISK: Final = (
    "PostgreSQL's disk does not work, or what is on it is damaged; the operator finds more in its log"
)
_MANY: Final = (
    "PostgreSQL has as many connections as it allows; try again in a moment, and have the operator raise "
    "max_connections, or lower pool_size here"
)
_STANDBY: Final = (
    "this PostgreSQL may only be read: it is a standby, or was set so; name the primary in the URL, or all servers "
    "with ?target_session_attrs=read-write"
)
_RIGHTS: Final = "this role lacks a right it needs; GRANT it the schema and what is in it"
_AWAY: Final = "PostgreSQL cannot be reached, or ended the connection; the operator sees whether it runs"
_MEANINGS: Final[dict[str, tuple[str, float]]] = {
    _FULL: (_MANY, SOON_SECONDS),
    "53100": ("PostgreSQL's disk is full; the operator has to make room", OPERATORS_SECONDS),
    "53200": ("PostgreSQL has no memory left; the operator finds more in its log", OPERATORS_SECONDS),
    _READ_ONLY: (_STANDBY, OPERATORS_SECONDS),
    _STARTING: ("PostgreSQL is starting or stopping; try again in a moment", SOON_SECONDS),
    "57014": ("PostgreSQL took too long; try again in a moment", SOON_SECONDS),
    "28P01": ("PostgreSQL refused the user name or the password of the URL", OPERATORS_SECONDS),
    "28000": ("PostgreSQL lets this user in from here by no rule of pg_hba.conf", OPERATORS_SECONDS),
    "3D000": ("the database that the URL names is not there; CREATE DATABASE makes it", OPERATORS_SECONDS),
    "42501": (_RIGHTS, OPERATORS_SECONDS),
    "42P01": (_GONE, OPERATORS_SECONDS),
    "42883": (_GONE, OPERATORS_SECONDS),
    "3F000": (_GONE, OPERATORS_SECONDS),
    "08P01": (_POOLED, OPERATORS_SECONDS),
    "26000": (_POOLED, OPERATORS_SECONDS),
    "42P05": (_POOLED, OPERATORS_SECONDS),
    "58030": (_DISK, OPERATORS_SECONDS),
    "XX001": (_DISK, OPERATORS_SECONDS),
    "XX002": (_DISK, OPERATORS_SECONDS),
}
_CLASSES: Final[dict[str, tuple[str, float]]] = {
    "08": (_AWAY, SOON_SECONDS),
    "40": ("too many wrote the same at once; try again in a moment", SOON_SECONDS),
    "57": (_AWAY, SOON_SECONDS),
}
_SLOW: Final = ("PostgreSQL did not answer in time; the operator sees what keeps it busy", SOON_SECONDS)
_OTHER: Final = ("PostgreSQL refused it; the operator finds more in the log", OPERATORS_SECONDS)


def is_broken(error: BaseException) -> bool:
    """Whether the connection is gone. What became of the call on it nobody knows, unless it `was_not_sent`."""
    if isinstance(error, asyncpg.PostgresError):
        return isinstance(error, asyncpg.PostgresConnectionError) or _state(error) in _ENDED
    return isinstance(error, ERRORS) and not isinstance(
        error, ValueError | asyncpg.TargetServerAttributeNotMatched
    )


def was_not_sent(error: BaseException) -> bool:
    """Whether the connection was lost while it was not used, and the call was never on it."""
    if isinstance(error, asyncpg.InternalClientError):
        return str(error).startswith(_LOST_ALREADY)
    return isinstance(error, asyncpg.InterfaceError) and not isinstance(
        error, ValueError
    )  # those are about values


def is_undone(error: BaseException) -> bool:
    """Whether the server says that nothing was done, and that another try may go better."""
    return _state(error) in _UNDONE


def is_read_only(error: BaseException) -> bool:
    """Whether the server does not write (any more): another one may be the primary now."""
    return _state(error) == _READ_ONLY


def is_starting(error: BaseException) -> bool:
    """Whether the server is there, and will take connections soon."""
    return _state(error) == _STARTING


def is_full(error: BaseException) -> bool:
    """Whether the server has no connection left for us."""
    return _state(error) == _FULL


def meaning(error: BaseException) -> tuple[str, float]:
    """What happened and what to do, and after how many seconds it may go better."""
    state = _state(error)
    if state:
        return _MEANINGS.get(state) or _CLASSES.get(state[:2], _OTHER)
    if isinstance(error, TimeoutError):
        return _SLOW
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return _MEANINGS[_READ_ONLY]
    return (_AWAY, SOON_SECONDS) if is_broken(error) else _OTHER


def unavailable(error: BaseException, *, maybe_done: bool) -> StoreUnavailable:
    """The error for a call that failed, for the caller of a turn: without places of this machine.

    `maybe_done`: it may have been done, as a whole.
    """
    words, seconds = meaning(error)
    outcome = (
        "whether it was written is not known: as a whole or not at all"
        if maybe_done
        else "and nothing was changed"
    )
    return StoreUnavailable(
        f"the store could not be read or written, {outcome}: {words}",
        retry_after=seconds,
        maybe_done=maybe_done,
    )


def _state(error: BaseException) -> str:
    """The server's code for it, or the empty string."""
    return str(getattr(error, "sqlstate", None) or "") if isinstance(error, asyncpg.PostgresError) else ""
