"""What a framework does anew for each agent, although it could be done once: clients of language models.

A handler as AgentScope's tutorial has it builds an agent and its model for every turn. Two things in that take longer
than all the rest of a turn, and hold the event loop up meanwhile (law 5): the first use of an `openai` client imports a
second's worth of modules, and each `httpx` client reads all certificates the machine trusts (20 ms).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Final

from greenroom.actors.scope import current_turn

_PREPARED = "_greenroom_shares_trust"


def _import_early() -> Iterator[Any]:
    """Import what clients import when they are first used; where httpx's transports get their trust from."""
    if importlib.util.find_spec("openai") is not None:
        importlib.import_module("greenroom.actors.frameworks.model_requests").prepare()
    for library in ("httpx", "httpx2"):  # openai 3 uses the second
        if importlib.util.find_spec(library) is not None:
            importlib.import_module(library.replace("httpx", "httpcore"))
            yield importlib.import_module(f"{library}._transports.default")


# With this module, as it is loaded with a framework; later there may be a loop to hold up.
_TRANSPORTS: Final = tuple(_import_early())


def prepare() -> None:
    """Let the clients made in turns share what they trust. Doing it twice is fine."""
    for transports in _TRANSPORTS:
        # Later versions that look elsewhere build their own, as before.
        create = getattr(transports, "create_ssl_context", None)
        if create is not None and not hasattr(create, _PREPARED):
            transports.create_ssl_context = share_trust(create)


def share_trust(create: Callable[..., ssl.SSLContext]) -> Callable[..., ssl.SSLContext]:
    """`httpx.create_ssl_context` that makes one context of each kind for all turns.

    Only of the default kind, which nobody adds certificates to; outside of turns each caller gets his own, as ever.
    """

    @functools.lru_cache(maxsize=8)
    def shared(trust_env: bool, _file: str | None, _directory: str | None) -> ssl.SSLContext:
        return create(trust_env=trust_env)

    @functools.wraps(create)
    def create_ssl_context(
        verify: Any = True, cert: Any = None, trust_env: bool = True, **more: Any
    ) -> ssl.SSLContext:
        if verify is not True or cert is not None or more or current_turn.get() is None:
            return create(verify=verify, cert=cert, trust_env=trust_env, **more)
        # The variables decide what the default kind trusts.
        return shared(trust_env, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))

    setattr(create_ssl_context, _PREPARED, True)
    return create_ssl_context
