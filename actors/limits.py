"""The bounds of a process (law 6). Over a bound a caller is refused and told when to try again."""

from __future__ import annotations

from msgspec import Struct


class Limits(Struct, frozen=True, kw_only=True):
    """How much of everything. Times are in seconds, sizes in bytes of text or JSON."""

    waiting_turns: int = 128
    """Turns that may wait for one session, besides the one that runs."""
    turns: int = 20_000
    """Turns running or waiting in the whole process."""
    active_sessions: int = 10_000
    """Sessions at work or with a warm agent; over it the idle one used longest ago is passivated. An idle one without
    an agent is passivated at once."""
    idle_seconds: float = 300.0
    """A session with a warm agent that is idle for so long is passivated."""
    turn_seconds: float | None = None
    """A turn that runs longer fails with `turn_timeout`; none: no bound."""
    turn_bytes: int = 64 * 1024 * 1024
    """Text and arguments of one turn; over it the turn fails with `turn_too_large`."""
    kept_turns: int = 1_000
    """Ended turns whose log can still be read."""
    kept_bytes: int = 64 * 1024 * 1024
    """Text and arguments of all ended turns that are kept."""
    kept_seconds: float = 300.0
    """How long an ended turn's log can be read; also, where sessions outlive the process, how long a repeat gets the answer
    of a turn with an idempotency key of which nothing else is kept."""
    cancel_seconds: float = 5.0
    """How long a cancelled handler may tidy up before its turn is ended over its head."""
    elsewhere_seconds: float = 10.0
    """How long a turn waits for a session that another process is at work on, before it is refused. This and what
    follows is for stores that several processes share."""
    store_seconds: float = 10.0
    """How long the ending of a turn that went well waits for a store that cannot be reached; then it has failed."""
    journal_seconds: float = 0.25
    """How often what running turns say is written down: so much of it may be missing after a crash."""
    recovery_seconds: float = 2.0
    """How often it is looked for turns that dead processes left."""
    attempts: int = 3
    """How often a turn of an idempotent handler is begun, when processes die over it."""
    worker_threads: int = 64
    """Threads for synchronous handlers and tools; one that a cancelled turn left behind counts until it returns."""
