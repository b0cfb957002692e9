"""Which URLs webhooks may go to: a pure decision, but for asking the kernel which addresses are its own.

The URL is the client's choice, so it must not make this process knock on doors that only it can reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network
from urllib.parse import urlsplit

from greenroom.actors.errors import ConfigurationError, InvalidRequest
from greenroom.sandbox.egress.addresses import (
    Address,
    Host,
    Network,
    is_metadata,
    read_host,
    why_not_public,
)
from greenroom.sandbox.egress.dial import is_own
from greenroom.sandbox.egress.rules import NOT_FOR_THE_WEB, WEB_PORTS


class Gate:
    """Which addresses webhooks may go to. `private`: addresses and networks besides those of the public internet."""

    def __init__(self, private: Sequence[str] = ()) -> None:
        self._private = [_network(text) for text in private]

    def read(self, url: str) -> str:
        """The host that the URL names, if there is nothing in it to refuse; what a name leads to is judged later.

        Raises `InvalidRequest`.
        """
        if not url.isprintable() or " " in url:
            raise _refused("it has blanks or control characters in it")
        try:
            parts = urlsplit(url)
            if parts.scheme not in ("https", "http"):
                raise _refused("it must begin with https:// (or http://)")
            port = parts.port
            host = read_host(f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "")
        except ValueError as error:
            raise _refused(f"it is no URL: {error}") from None
        if parts.username is not None or parts.password is not None:
            raise _refused("it has a user or a password in it, which would be written to logs")
        port = port or (443 if parts.scheme == "https" else 80)
        self._check_port(host, port)
        if host.address is not None and (why := self.why_not(host.address)) is not None:
            raise _refused(why)
        return host.text

    def why_not(self, address: Address) -> str | None:
        """Why webhooks may not go to the address; none: they may."""
        if is_metadata(address):
            return "it leads to a cloud's metadata"
        if self._named(address):
            return None
        what = why_not_public(address)
        if what is None and _is_own(address):
            what = "an address of this host"
        return None if what is None else f"it leads to {what}, and the application allows no webhooks there"

    def _check_port(self, host: Host, port: int) -> None:
        if port in WEB_PORTS or (port >= 1024 and port not in NOT_FOR_THE_WEB):
            return
        if host.address is None or not self._named(host.address):
            raise _refused(f"port {port} is not one of the web's")

    def _named(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self._private)


def _network(text: str) -> Network:
    try:
        return ip_network(text, strict=False)
    except ValueError as error:
        raise ConfigurationError(
            f"webhook_private has {text!r}, which is no address and no network, such as 10.0.0.0/8: {error}"
        ) from None


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(f"webhook cannot be told: {why}", field="webhook")


def _is_own(address: Address) -> bool:
    try:
        return is_own(address)
    except OSError:  # it cannot be told now, for want of file descriptors
        return True
