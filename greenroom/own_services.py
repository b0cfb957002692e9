"""The services of an application: those that its init hooks start, and those that it holds.

A fork, and a deletion, has to reach them all, also in a process where no turn has used them yet (law 3). Others of the
process are left alone: two applications may have sessions of the same name.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from greenroom.services.agent_state import InMemoryStateService
from greenroom.services.durable import is_durable
from greenroom.services.known_services import KnownServices
from greenroom.services.service import Forkable
from greenroom.services.session_history import InMemorySessionHistoryService
from greenroom.services.started import noting_starts
from greenroom.services.store import SessionStore

logger = logging.getLogger("greenroom")

IN_MEMORY: Final = (InMemoryStateService, InMemorySessionHistoryService)
PLACES: Final = ("Sqlite", "Redis", "Postgres")
KINDS: Final = ("StateService", "SessionHistoryService")
"""What services are called that outlive the process: `SqliteStateService`, and so on."""


@contextmanager
def noting_own(services: KnownServices, holders: Iterable[object]) -> Iterator[None]:
    """Entered around the init hooks. Adds at its end to `services` those that were started within it, and those that
    one of `holders` has as an attribute, as far as they are `Forkable`."""
    with noting_starts() as started:
        yield
    held = (attribute for holder in holders for attribute in list(vars(holder).values()))
    services.update(one for one in (*started, *held) if _follows_forks(type(one)))


def _follows_forks(kind: type) -> bool:
    """By its class, as a mock or a proxy seems to have every method. A store of sessions has methods of these names."""
    return issubclass(kind, Forkable) and not issubclass(kind, SessionStore)


def warn_of_forgetful(services: Iterable[object], store: SessionStore) -> None:
    """Log which services forget with the process what they have of sessions that outlive it, and what does not."""
    if not is_durable(store):
        return
    kinds = {type(service).__name__ for service in services if isinstance(service, IN_MEMORY)}
    if not kinds:
        return
    place = type(store.storage).__name__.removesuffix("Storage")
    instead = " and ".join(f"{place if place in PLACES else 'Sqlite'}{kind}" for kind in KINDS)
    logger.warning(
        "sessions outlive this process, and what they have in %s does not: after a restart, agents have forgotten "
        "conversations that go on; %s keep it",
        " and ".join(sorted(kinds)),
        instead,
    )
