"""Signing webhooks by the Standard Webhooks specification, version 1. No I/O.

A message is signed with its id and the time of the attempt: HMAC-SHA256 over `id.timestamp.body`, in base64. Who
receives it checks that the signature is right and the time is now, and does not work off the same id twice.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Final

from greenroom.actors.errors import ConfigurationError

PREFIX: Final = "whsec_"
LEAST_BYTES: Final = 24
MOST_BYTES: Final = 64
HOW: Final = f"echo {PREFIX}$(openssl rand -base64 32)"


class Signer:
    """Signs with every secret there is: while one is being replaced, receivers know the old or the new one."""

    __slots__ = ("_secrets",)

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = tuple(secrets)

    def __repr__(self) -> str:
        return f"<Signer with {len(self._secrets)} secrets>"

    @staticmethod
    def of(text: str) -> Signer:
        """One that has these secrets, as they are written: `whsec_…`, with a space between two.

        Raises `ConfigurationError`, which does not repeat them.
        """
        secrets = [_secret(word) for word in text.split()]
        if not secrets:
            raise ConfigurationError(f"the webhook secret is empty; this makes one: {HOW}")
        return Signer(secrets)

    def headers(self, message_id: str, at: float, body: bytes) -> Mapping[str, str]:
        """What an attempt at that time (seconds since the epoch) is sent with."""
        second = str(int(at))
        signed = f"{message_id}.{second}.".encode() + body
        return {
            "webhook-id": message_id,
            "webhook-timestamp": second,
            "webhook-signature": " ".join(f"v1,{_digest(secret, signed)}" for secret in self._secrets),
        }


def _digest(secret: bytes, signed: bytes) -> str:
    return base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


def _secret(text: str) -> bytes:
    try:
        secret = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not text.startswith(PREFIX) or not LEAST_BYTES <= len(secret) <= MOST_BYTES:
        raise ConfigurationError(
            f"the webhook secret is none: it is {PREFIX} and then {LEAST_BYTES} to {MOST_BYTES} random bytes in "
            f"base64, as this makes one: {HOW}"
        )
    return secret
