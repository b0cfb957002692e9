"""How many connections a client may have open, and whose a connection is: his who connects, or, behind a proxy that is
trusted, his for whom the proxy asks.

A proxy's connections serve many, so that not they are counted but the requests under way in them, by the last address
in `X-Forwarded-For` that is no trusted proxy's: what is before it, anybody may have written. Of an IPv6 address its
/64 counts, as every home has so many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from greenroom.actors.errors import ConfigurationError, GreenroomError

CLIENT_CONNECTIONS = 10_000
TRUSTED_PROXIES = ("127.0.0.1", "::1")
"""Who connects from this machine: a proxy on it is asked for many."""
FORWARDED = "X-Forwarded-For"
_HOPS = 32
"""More addresses than this in a header are somebody's joke."""
_Address: TypeAlias = IPv4Address | IPv6Address


class TooManyConnections(GreenroomError):
    """The client has as many connections open, or requests under way, as one may."""

    code = "too_many_connections"
    status = 429
    retry_after = 5.0


class Door:
    """Counts clients. `most`: the connections of one; `proxies`: addresses and networks that are trusted.

    Raises `ConfigurationError` for a proxy that is neither.
    """

    __slots__ = ("_most", "_open", "_proxies")

    def __init__(self, most: int = CLIENT_CONNECTIONS, proxies: Sequence[str] = TRUSTED_PROXIES) -> None:
        try:
            self._proxies = tuple(ip_network(proxy, strict=False) for proxy in proxies)
        except ValueError as error:
            raise ConfigurationError(
                f"trusted_proxies: {error}; it lists addresses and networks, such as 10.0.0.0/8"
            ) from None
        self._most = most
        self._open: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Door {self._open.total()} in, of {len(self._open)}>"

    def trusts(self, address: str) -> bool:
        """Whether it is a proxy's that may say for whom it asks."""
        at = _parsed(address)
        return at is not None and any(at in network for network in self._proxies)

    def client_of(self, headers: Mapping[str, str], proxy: str) -> str:
        """For whom a trusted proxy asks; for itself, if it does not say."""
        for hop in reversed(headers.get(FORWARDED, "").split(",")[-_HOPS:]):
            at = _parsed(hop.strip())
            if at is None:
                break
            if not any(at in network for network in self._proxies):
                return _whose(at)
        return proxy

    def enter(self, client: str) -> bool:
        """Count one more of this client; not, when he has as many as he may."""
        if self._open[client] >= self._most:
            return False
        self._open[client] += 1
        return True

    def leave(self, client: str) -> None:
        """One less."""
        self._open[client] -= 1
        if not self._open[client]:
            del self._open[client]

    def refusal(self) -> TooManyConnections:
        """What he is told who is not let in."""
        return TooManyConnections(
            f"there are {self._most} connections or requests of yours already; close some, and try again in a moment"
        )


def client_at(address: str) -> str:
    """Who connects from there."""
    at = _parsed(address)
    return address if at is None else _whose(at)


@lru_cache(maxsize=1024)
def _parsed(address: str) -> _Address | None:
    try:
        at = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return at.ipv4_mapped or at if isinstance(at, IPv6Address) else at


def _whose(at: _Address) -> str:
    return str(IPv6Network((at, 64), strict=False)) if isinstance(at, IPv6Address) else str(at)
