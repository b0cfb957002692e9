"""https://www.example.com/ on this machine, for browsers in sandboxes, certified by the tests' own authority."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NAME = "www.example.com"
URL = f"https://{NAME}/"
PAGE = """<!doctype html><meta charset=utf-8><title>Example Domain</title>
<h1>Example Domain</h1>
<label>Your name <input id=name></label>
<button onclick="document.getElementById('answer').textContent =
  'Hello ' + document.getElementById('name').value + ', your number is ' + 6 * 7 + '.'">Greet me</button>
<p id=answer></p>"""


class ExampleSite:
    """`env`: what makes sandboxes, of the local backend, go there and trust it. `asked`: paths, in order."""

    def __init__(self, env: dict[str, str]) -> None:
        self.env = env
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        """The page, whatever is asked for."""
        self.asked.append(request.path)
        return web.Response(text=PAGE, content_type="text/html")


@asynccontextmanager
async def example_site(folder: Path) -> AsyncIterator[ExampleSite]:
    """The site, on a free port; its certificates are made in `folder`."""
    authority, certificate, key = await anyio.to_thread.run_sync(make_certificates, folder)
    env = {
        "GREENROOM_SANDBOX": "local",
        "GREENROOM_SANDBOX_TRUST": str(authority),
        "GREENROOM_STATE": str(folder / "state"),
    }
    site = ExampleSite(env)
    app = web.Application()
    app.router.add_get("/{path:.*}", site.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        await anyio.to_thread.run_sync(context.load_cert_chain, certificate, key)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        port = runner.addresses[0][1]
        env["GREENROOM_SANDBOX_HOSTS"] = f"{NAME}=127.0.0.1:{port}"
        yield site
    finally:
        await runner.cleanup()


def make_certificates(folder: Path) -> tuple[Path, Path, Path]:
    """An authority's certificate; the site's, followed by the authority's; the site's key."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of tests")])
    authority = (
        _begin(issuer, authority_key, issuer, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_SIGNS_CERTIFICATES, critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    names = x509.SubjectAlternativeName([x509.DNSName(NAME)])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    leaf = _begin(subject, key, issuer, authority_key).add_extension(names, critical=False)
    pem = serialization.Encoding.PEM
    paths = folder / "authority.pem", folder / "site.pem", folder / "site.key"
    paths[0].write_bytes(authority.public_bytes(pem))
    signed = leaf.sign(authority_key, hashes.SHA256())
    paths[1].write_bytes(signed.public_bytes(pem) + authority.public_bytes(pem))
    plain = serialization.NoEncryption()
    paths[2].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return paths


_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _begin(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.CertificateBuilder:
    """With what RFC 5280 asks of every certificate: Python 3.13 looks."""
    now = dt.datetime.now(dt.UTC)
    whose = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=2))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(whose, critical=False)
    )
