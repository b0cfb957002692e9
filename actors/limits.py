"""The bounds of a process (law 6). Over a bound a caller is refused and told when to try again."""

from __future__ import annotations

from msgspec import Struct

from greenroom.actors.setting_checks import Count, Seconds, Share, Wait, check_fields


class Limits(Struct, frozen=True, kw_only=True):
    """How much of everything. Times are in seconds, sizes in bytes of text or JSON.

    Raises `ConfigurationError` for a bound that is none.
    """

    waiting_turns: Count = 128
    """Turns that may wait for one session, besides the one that runs."""
    waiting_bytes: Share = 64 * 1024 * 1024
    """What the requests of the turns say that wait for one session; one alone may wait whatever its size."""
    turns: Share = 20_000
    """Turns running or waiting in the whole process."""
    input_bytes: Share = 256 * 1024 * 1024
    """What the requests of all turns say that run or wait in the process; one alone may, whatever its size."""
    active_sessions: Share = 10_000
    """Sessions at work or with a warm agent; over it the idle one used longest ago is passivated. An idle one without
    an agent is passivated at once."""
    idle_seconds: Wait = 300.0
    """A session with a warm agent that is idle for so long is passivated."""
    turn_seconds: Seconds | None = None
    """A turn that runs longer fails with `turn_timeout`; none: no bound."""
    turn_bytes: Share = 64 * 1024 * 1024
    """Text and arguments of one turn; over it the turn fails with `turn_too_large`."""
    kept_turns: Count = 1_000
    """Ended turns whose log can still be read."""
    kept_bytes: Count = 64 * 1024 * 1024
    """Text and arguments of all ended turns that are kept, and what their requests say."""
    kept_seconds: Wait = 300.0
    """How long an ended turn's log can be read; also, where sessions outlive the process, how long a repeat gets the
    answer of a turn with an idempotency key of which nothing else is kept."""
    cancel_seconds: Wait = 5.0
    """How long a cancelled handler may tidy up before its turn is ended over its head."""
    elsewhere_seconds: Wait = 10.0
    """How long a turn waits for one that it continues from and that another process is at work on, before it is
    refused, a deletion for such turns, and one that may have joined a line for the store that says so. This and what
    follows is for stores that several processes share."""
    store_seconds: Wait = 10.0
    """How long the ending of a turn that went well waits for a store that cannot be reached; then it has failed."""
    journal_seconds: Wait = 0.25
    """How often what running turns say is written down: so much of it may be missing after a crash."""
    recovery_seconds: Seconds = 2.0
    """How often it is looked for turns that dead processes left."""
    attempts: Share = 3
    """How often a turn of an idempotent handler is begun, when processes die over it."""
    worker_threads: Share = 64
    """Threads for synchronous handlers and tools; one that a cancelled turn left behind counts until it returns."""

    def __post_init__(self) -> None:
        check_fields(self)
