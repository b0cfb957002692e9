"""Certificates that boxes' browsers are to trust, as Chromium takes them: hashes of their public keys."""

from __future__ import annotations

import base64
import hashlib
import re
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from greenroom.actors.errors import ConfigurationError

PEM: Final = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
VERSION_TAG: Final = 0xA0
FIELDS_BEFORE_KEY: Final = 5  # serial number, signature algorithm, issuer, validity, subject


class _Element(NamedTuple):
    """One element of DER: where it begins, where its content does, where it ends."""

    tag: int
    start: int
    content: int
    end: int


def spki_hashes(path: Path) -> Sequence[str]:
    """Base64 of the SHA-256 of the public key of each certificate in a PEM file, for
    `--ignore-certificate-errors-spki-list`. Reads the file: call it off the event loop.

    Raises `ConfigurationError` for a file that cannot be read or holds no certificate.
    """
    try:
        found = PEM.findall(path.read_text(encoding="ascii", errors="replace"))
        hashes = [_hash(ssl.PEM_cert_to_DER_cert(text)) for text in found]
    except (OSError, ValueError, IndexError) as error:
        raise ConfigurationError(f"trusted_certificates: {path} cannot be read: {error}") from error
    if not hashes:
        raise ConfigurationError(f"trusted_certificates: {path} holds no certificate in PEM form")
    return hashes


def _hash(certificate: bytes) -> str:
    return base64.b64encode(hashlib.sha256(_public_key(certificate)).digest()).decode()


def _public_key(certificate: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a certificate (RFC 5280, 4.1)."""
    to_be_signed = _element(certificate, _element(certificate, 0).content)
    element = _element(certificate, to_be_signed.content)
    if element.tag == VERSION_TAG:
        element = _element(certificate, element.end)
    for _ in range(FIELDS_BEFORE_KEY):
        element = _element(certificate, element.end)
    return certificate[element.start : element.end]


def _element(der: bytes, start: int) -> _Element:
    length = der[start + 1]
    content = start + 2
    if length & 0x80:
        content += length & 0x7F
        length = int.from_bytes(der[start + 2 : content], "big")
    return _Element(der[start], start, content, content + length)
