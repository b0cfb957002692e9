"""Addresses that boxes must not reach, and every way to spell an address. No I/O.

What counts as public is a table of ours and not `ipaddress.is_global`, whose answers differ between Python's versions.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401  (the codec is loaded now, and not from disk on the event loop)
import re
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final, NamedTuple, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

LONGEST_NAME: Final = 253
"""DNS has no longer ones."""

METADATA: Final = frozenset(
    map(
        ip_address,
        [
            "169.254.169.254",  # AWS, Google, Azure, DigitalOcean, Oracle, OpenStack
            "169.254.169.253",  # AWS: the name server that knows what is inside
            "169.254.170.2",  # AWS: credentials of tasks
            "169.254.170.23",  # AWS: credentials of pods
            "169.254.0.23",  # Tencent
            "169.254.42.42",  # Scaleway
            "100.100.100.200",  # Alibaba
            "168.63.129.16",  # Azure: a public address that is the host
            "192.0.0.192",  # Oracle, before
            "fd00:ec2::254",
            "fd00:ec2::253",
            "fd00:ec2::23",
            "fd20:ce::254",  # Google
            "fd00:42::42",  # Scaleway
        ],
    )
)
"""Where clouds hand out a machine's credentials: refused always, whatever the rules say."""

_NOT_PUBLIC: Final[tuple[tuple[Network, str], ...]] = tuple(
    (ip_network(network), what)
    for network, what in [
        ("0.0.0.0/8", "an address of this host"),
        ("10.0.0.0/8", "a private address"),
        ("100.64.0.0/10", "a shared address of a provider's inner network"),
        ("127.0.0.0/8", "a loopback address"),
        ("169.254.0.0/16", "a link-local address"),
        ("172.16.0.0/12", "a private address"),
        ("192.0.0.0/24", "a reserved address"),
        ("192.0.2.0/24", "a reserved address"),
        ("192.88.99.0/24", "a reserved address"),
        ("192.168.0.0/16", "a private address"),
        ("198.18.0.0/15", "a reserved address"),
        ("198.51.100.0/24", "a reserved address"),
        ("203.0.113.0/24", "a reserved address"),
        ("224.0.0.0/4", "a multicast address"),
        ("240.0.0.0/4", "a reserved address"),
        ("::/128", "an address of this host"),
        ("::1/128", "a loopback address"),
        ("fc00::/7", "a private address"),
        ("fe80::/10", "a link-local address"),
        ("fec0::/10", "a private address"),
        ("ff00::/8", "a multicast address"),
        ("2001::/23", "a reserved address"),  # Teredo too
        ("2001:db8::/32", "a reserved address"),
        ("2002::/16", "a 6to4 address, which may lead anywhere"),
        ("3fff::/20", "a reserved address"),
    ]
)
_GLOBAL_6: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64: Final = IPv6Network("64:ff9b:1::/48")
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")
_TEREDO: Final = IPv6Network("2001::/32")
_LOW_HALF: Final = 0xFFFFFFFF
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})

_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_NUMBER: Final = re.compile(r"(0x[0-9a-f]*|[0-9]+)\Z")
_WRITTEN_V6: Final = re.compile(r"[0-9a-f:.]+\Z")


class Host(NamedTuple):
    """A host as asked for, in its one spelling. `address`: what it is when it is no name."""

    text: str
    address: Address | None = None

    def at(self, port: int) -> str:
        """`host:port`, as in a URL."""
        return f"[{self.text}]:{port}" if isinstance(self.address, IPv6Address) else f"{self.text}:{port}"


def read_host(text: str) -> Host:
    """The host that a URL's host part names, brackets included. Browsers' rules: case, one dot at the end, other
    alphabets, full-width letters, and octal, hexadecimal and shortened addresses do not make another host.

    Raises `ValueError` for what is no host.
    """
    if text.startswith("[") and text.endswith("]"):
        return _read_v6(text[1:-1].lower())
    if len(text) > LONGEST_NAME + 1:
        raise ValueError("it is too long for a name")
    name = (text if text.isascii() else _in_ascii(text)).lower().removesuffix(".")
    labels = name.split(".")
    if _NUMBER.match(labels[-1]):
        address = _read_v4(labels)
        return Host(str(address), address)
    if len(name) > LONGEST_NAME or not all(map(_LABEL.match, labels)):
        raise ValueError("it is no valid name")
    return Host(name)


def _in_ascii(text: str) -> str:
    """As the name system has it: `münchen.de` is `xn--mnchen-3ya.de`."""
    try:
        return text.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ValueError("it is no valid international name") from error


def _read_v6(text: str) -> Host:
    if not _WRITTEN_V6.match(text):
        raise ValueError("it is no valid IPv6 address (zones are not supported)")
    address = plain(IPv6Address(text))
    return Host(str(address), address)


def _read_v4(labels: list[str]) -> IPv4Address:
    """As `inet_aton` reads it: up to four numbers, the last of which fills the rest."""
    if len(labels) > 4:
        raise ValueError("it is no valid IPv4 address")
    numbers = [_read_number(label) for label in labels]
    *first, last = numbers
    if any(number > 255 for number in first) or last >= 256 ** (5 - len(numbers)):
        raise ValueError("it is no valid IPv4 address")
    return IPv4Address(last + sum(number << (24 - 8 * place) for place, number in enumerate(first)))


def _read_number(label: str) -> int:
    if not _NUMBER.match(label):
        raise ValueError("it is no valid IPv4 address")
    if label.startswith("0x"):
        return int(label[2:] or "0", 16)
    if label.startswith("0"):
        if "8" in label or "9" in label:
            raise ValueError("it is no valid IPv4 address: a number that starts with 0 is octal")
        return int(label, 8)
    return int(label)


def read_address(text: str) -> Address:
    """An address as a resolver gives it. Raises `ValueError`, also for one with a zone: it is link-local."""
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError(f"{text} has a zone, so it is no address of the internet")
    return plain(address)


def plain(address: Address) -> Address:
    """The address that is connected to in the end: an IPv4 address in IPv6's clothes is the IPv4 address."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def is_metadata(address: Address) -> bool:
    """Whether it is where a cloud hands out credentials, also when it is wrapped into another address."""
    return address in METADATA or any(inner in METADATA for inner in wrapped(address))


def why_not_public(address: Address) -> str | None:
    """What the address is when it is not one of the public internet; none: it is."""
    if isinstance(address, IPv6Address) and address in _NAT64:
        inner = why_not_public(IPv4Address(int(address) & _LOW_HALF))
        return inner and f"a translation of {inner.removeprefix('a ').removeprefix('an ')}"
    for network, what in _NOT_PUBLIC:
        if address.version == network.version and address in network:
            return what
    if isinstance(address, IPv6Address) and address not in _GLOBAL_6:
        return "a reserved address"
    return None


def wrapped(address: Address) -> list[IPv4Address]:
    """The IPv4 addresses that this one may be carried to: mapped, compatible, NAT64, 6to4, Teredo, ISATAP."""
    if isinstance(address, IPv4Address):
        return []
    number = int(address)
    low = number & _LOW_HALF
    found = []
    if number >> 64 == 0 or address in _NAT64 or address in _LOCAL_NAT64:
        found.append(low)
    if address in _LOCAL_NAT64:  # RFC 6052's other places, with a byte left out at bit 64
        found += [
            (number >> 64 & 0xFFFF) << 16 | number >> 40 & 0xFFFF,
            (number >> 64 & 0xFF) << 24 | number >> 32 & 0xFFFFFF,
            number >> 24 & _LOW_HALF,
        ]
    if address in _SIX_TO_FOUR:
        found.append(number >> 80 & _LOW_HALF)
    if address in _TEREDO:
        found += [number >> 64 & _LOW_HALF, low ^ _LOW_HALF]
    if number >> 32 & _LOW_HALF in _ISATAP:
        found.append(low)
    return [IPv4Address(value) for value in found]
