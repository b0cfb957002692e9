"""What a framework does anew for each agent, although it could be done once: clients of language models.

A handler as AgentScope's tutorial has it builds an agent and its model for every turn. Two things in that take longer
than all the rest of a turn, and hold the event loop up meanwhile (law 5): the first use of an `openai` client imports a
second's worth of modules, and each `httpx` client reads all certificates the machine trusts (20 ms). A smaller one it
does seven times a turn: to take apart the same addresses.

Private names: `create_ssl_context` in httpx's `_transports.default`, and `urlparse` in its `_urls` and `_urlparse`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import ssl
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from greenroom.actors.scope import current_turn

_PREPARED = "_greenroom_shares"
ADDRESSES: Final = 256
LONGEST: Final = 256
"""Characters of an address, or of a part of one, that is remembered."""
_SECRET: Final = ("query", "fragment", "userinfo", "username", "password")

_REQUESTS: Final = (
    "greenroom.actors.frameworks.model_requests" if importlib.util.find_spec("openai") else None
)


def _import_early() -> Iterator[str]:
    """Import what clients import when they are first used; which kinds of httpx there are."""
    if _REQUESTS is not None:
        importlib.import_module(_REQUESTS)
    for library in ("httpx", "httpx2"):  # openai 3 uses the second
        if importlib.util.find_spec(library) is not None:
            importlib.import_module(library.replace("httpx", "httpcore"))
            importlib.import_module(library)
            yield library


# With this module, as it is loaded with a framework; later there may be a loop to hold up.
_LIBRARIES: Final = tuple(_import_early())


def prepare() -> None:
    """Let the clients made in turns share what they trust and know. Doing it twice is fine."""
    if _REQUESTS is not None:
        importlib.import_module(_REQUESTS).prepare()
    for library in _LIBRARIES:
        # Later versions that look elsewhere build their own, as before.
        _wrap(library, "create_ssl_context", share_trust, "_transports.default")
        _wrap(library, "urlparse", share_addresses, "_urls", "_urlparse")


def _wrap(library: str, name: str, wrapper: Callable[..., Any], *modules: str) -> None:
    """Put a wrapper around a function of a library, once, in all modules that call it."""
    wrapped = None
    for part in modules:
        module: Any = sys.modules.get(f"{library}.{part}")
        function = getattr(module, name, None)
        if function is not None and not hasattr(function, _PREPARED):
            wrapped = wrapped or wrapper(function)
            setattr(module, name, wrapped)


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


def share_addresses(parse: Callable[..., Any]) -> Callable[..., Any]:
    """`urlparse` of httpx, whose outcome nobody can change, that takes an address apart once for all turns.

    Not those that may hold what is secret or seldom comes again: a user's name or password, or a query.
    """
    remembered = functools.lru_cache(maxsize=ADDRESSES, typed=True)(parse)

    @functools.wraps(parse)
    def urlparse(url: str = "", **parts: Any) -> Any:
        if current_turn.get() is None or any(map(parts.get, _SECRET)):
            return parse(url, **parts)
        if not all(map(_is_open, (url, *parts.values()))):
            return parse(url, **parts)
        return remembered(url, **parts)

    setattr(urlparse, _PREPARED, True)
    return urlparse


def _is_open(part: Any) -> bool:
    if type(part) is str:
        return len(part) <= LONGEST and "@" not in part and "?" not in part
    return part is None
