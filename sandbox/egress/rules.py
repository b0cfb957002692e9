"""What the rules say about a host, a port, an address: a pure decision. No I/O, no lookups."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from ipaddress import ip_network
from typing import Final, NamedTuple

from greenroom.actors.errors import ConfigurationError
from greenroom.sandbox.egress.addresses import (
    Address,
    Host,
    Network,
    is_metadata,
    plain,
    read_address,
    read_host,
    why_not_public,
)
from greenroom.sandbox.egress.refusal import Refusal, forbidden
from greenroom.sandbox.settings import EgressRules

WEB_PORTS: Final = frozenset({80, 443})
NOT_FOR_THE_WEB: Final = frozenset(
    [1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6679, 6697, 10080, *range(6665, 6670)]
)
"""Ports from 1024 on that browsers refuse, since servers of other protocols listen there (Fetch, "port blocking").
Below 1024 only the web's own are served."""

ANY: Final = Host("*")


class Target(NamedTuple):
    """What a box asks for."""

    host: Host
    port: int

    def __str__(self) -> str:
        return self.host.at(self.port)


class Route(NamedTuple):
    """Where it may go: these very addresses and no other; the first that answers."""

    addresses: Sequence[Address]
    port: int
    trusted: bool = False
    """The operator named the address: it may be one of this machine's."""


class Pattern(NamedTuple):
    """One entry of a list. `network` none: a name; `below`: the names below it, not itself; `port` none: all."""

    host: Host
    below: bool = False
    network: Network | None = None
    port: int | None = None

    def matches(self, target: Target) -> bool:
        """Whether the target, as asked for, is meant."""
        if self.port not in {None, target.port}:
            return False
        if self.network is not None:
            return self.holds(target.host.address, target.port)
        if self.below:
            return target.host.address is None and target.host.text.endswith("." + self.host.text)
        return self.host in {ANY, target.host}

    def holds(self, address: Address | None, port: int) -> bool:
        """Whether the address is meant, whatever name led to it."""
        return (
            address is not None
            and self.network is not None
            and self.network.version == address.version
            and address in self.network
            and self.port in {None, port}
        )


class Policy:
    """The rules, understood. Raises `ConfigurationError` when they cannot be."""

    def __init__(self, rules: EgressRules) -> None:
        self._allow = [_read(text, "allow") for text in rules.allow]
        self._deny = [_read(text, "deny") for text in rules.deny]
        self._private = [_read_private(text) for text in rules.private]
        self._hosts = {_read_name(name): _read_pin(name, to) for name, to in rules.hosts.items()}

    def before_lookup(self, target: Target) -> Route | None:
        """Where the target leads, or none: its name has to be looked up. Raises `Refusal`."""
        if any(pattern.matches(target) for pattern in self._deny):
            raise forbidden(f"{target} is on the list of hosts that boxes may not reach")
        if self._allow and not any(pattern.matches(target) for pattern in self._allow):
            raise forbidden(f"{target} is not on the list of hosts that boxes may reach")
        pinned = self._hosts.get(target.host)
        if pinned is not None:
            return self._pinned(target, *pinned)
        if target.host.address is not None:
            return self.after_lookup(target, [target.host.text])
        return None

    def after_lookup(self, target: Target, found: Sequence[str]) -> Route:
        """Where the target leads, whose name has these addresses: those of them that are fine.

        Raises `Refusal` when none is.
        """
        refusals = []
        fine: list[Address] = []
        for text in found:
            try:
                address = read_address(text)
            except ValueError as error:
                refusals.append(forbidden(f"{target} leads to no address of the internet", detail=str(error)))
                continue
            refusal = self._judge(target, address)
            if refusal is None:
                fine.append(address)
            else:
                refusals.append(refusal)
        if fine:
            trusted = all(self._excepted(address, target.port) for address in fine)
            return Route(list(dict.fromkeys(fine)), target.port, trusted)
        if refusals:
            raise refusals[0]
        raise Refusal(HTTPStatus.BAD_GATEWAY, f"{target} has no address")

    def _judge(self, target: Target, address: Address) -> Refusal | None:
        detail = "" if target.host.address else f"its name leads to {address}"
        if is_metadata(address):
            return forbidden(f"{target} leads to a cloud's metadata, which no box may reach", detail=detail)
        if any(pattern.holds(address, target.port) for pattern in self._deny):
            return forbidden(f"{target} is on the list of addresses that boxes may not reach", detail=detail)
        if self._excepted(address, target.port):
            return None
        what = why_not_public(address)
        if what is not None:
            return forbidden(f"{target} leads to {what}, which boxes may not reach", detail=detail)
        return self._judge_port(target)

    def _judge_port(self, target: Target) -> Refusal | None:
        if target.port in WEB_PORTS or (target.port >= 1024 and target.port not in NOT_FOR_THE_WEB):
            return None
        if any(pattern.port is not None and pattern.matches(target) for pattern in self._allow):
            return None
        return forbidden(f"{target} has a port that is not for the web, so boxes may not reach it")

    def _excepted(self, address: Address, port: int) -> bool:
        return any(pattern.holds(address, port) for pattern in self._private)

    @staticmethod
    def _pinned(target: Target, address: Address, port: int | None) -> Route:
        if is_metadata(address):
            raise forbidden(f"{target} leads to a cloud's metadata, which no box may reach")
        return Route([address], port or target.port, trusted=True)


def own_address(target: Target) -> Refusal:
    """The target is an address of the machine that the filter runs on."""
    return forbidden(f"{target} leads to this host itself, which boxes may not reach")


def _read(text: str, where: str) -> Pattern:
    """`example.com`, `*.example.com`, `*`, an address or a network, each with `:port` or without."""
    try:
        host, port = _split(text)
        if host == "*":
            return Pattern(ANY, port=port)
        if "/" in host:
            return Pattern(Host(host), network=ip_network(host.strip("[]")), port=port)
        below = host.startswith("*.")
        read = read_host(host.removeprefix("*."))
    except ValueError as error:
        raise _not_understood(where, text, f"{error}; it is like example.com, *.example.com:443") from None
    if read.address is not None:
        return Pattern(read, network=ip_network(read.address), port=port)
    return Pattern(read, below=below, port=port)


def _read_private(text: str) -> Pattern:
    pattern = _read(text, "private")
    if pattern.network is None:
        raise _not_understood("private", text, "it is an address, a network, or address:port")
    return pattern


def _read_name(name: str) -> Host:
    try:
        return read_host(name)
    except ValueError as error:
        raise _not_understood("hosts", name, str(error)) from None


def _read_pin(name: str, to: str) -> tuple[Address, int | None]:
    try:
        host, port = _split(to)
        address = read_host(host).address
    except ValueError as error:
        raise _not_understood("hosts", f"{name}={to}", str(error)) from None
    if address is None:
        raise _not_understood(
            "hosts", f"{name}={to}", "a name leads to an address, like 10.0.0.1 or 10.0.0.1:8443"
        )
    return plain(address), port


def _split(text: str) -> tuple[str, int | None]:
    """Host and port. A colon more is IPv6's."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return text, None
    if ":" in host and not host.startswith("["):
        return (text if "/" in text else f"[{text}]"), None
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f"{port!r} is no port")
    return host, int(port)


def _not_understood(where: str, text: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"the sandbox's egress rules have {text!r} in {where!r}, which is not understood: {why}"
    )
