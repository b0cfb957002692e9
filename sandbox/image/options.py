"""What a box's tool server is told, and the socket it listens at: without heavy imports, to listen early."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

RELAY_PORT: Final = 3128
"""Where the way out is inside a box that has a network of its own."""

TOKEN_BYTES: Final = 4096


@dataclass(frozen=True, kw_only=True)
class BoxOptions:
    """See `greenroom.sandbox.image.__main__` for where each comes from."""

    token: str = field(repr=False)
    kind: str = "browser"
    directory: Path | None = None
    listen: tuple[str, int] | None = None
    workspace: Path = Path("/workspace")
    browser: str | None = None
    trusted_keys: str = ""
    chromium_sandbox: bool = True
    relay_port: int = RELAY_PORT

    @property
    def egress(self) -> Path | None:
        """The socket that leads out, if there is one."""
        path = None if self.directory is None else self.directory / "egress.sock"
        return path if path is not None and path.exists() else None


def options_of(environ: MutableMapping[str, str]) -> BoxOptions:
    """Read the options, and take the token away from where what runs in the box could find it.

    Raises `ValueError` for what is missing or cannot be understood, `OSError` for a token file that cannot be taken.
    """
    directory = Path(environ["GREENROOM_BOX"]) if environ.get("GREENROOM_BOX") else None
    listen = _address(environ["GREENROOM_BOX_LISTEN"]) if environ.get("GREENROOM_BOX_LISTEN") else None
    if directory is None and listen is None:
        raise ValueError("neither GREENROOM_BOX (a directory) nor GREENROOM_BOX_LISTEN (host:port) is set")
    kind = environ.get("GREENROOM_BOX_KIND") or "browser"
    if kind not in {"browser", "base"}:
        raise ValueError(f"GREENROOM_BOX_KIND is browser or base, not {kind!r}")
    relay_port = environ.get("GREENROOM_BOX_RELAY") or str(RELAY_PORT)
    if not relay_port.isdecimal() or int(relay_port) > 65535:
        raise ValueError(f"GREENROOM_BOX_RELAY is a port, not {relay_port!r}")
    return BoxOptions(
        token=_taken_token(directory, environ),
        kind=kind,
        directory=directory,
        listen=listen,
        workspace=Path(environ.get("WORKSPACE_DIR") or "/workspace"),
        browser=environ.get("GREENROOM_BOX_BROWSER") or None,
        trusted_keys=environ.get("GREENROOM_BOX_TRUST", ""),
        chromium_sandbox=environ.get("GREENROOM_BOX_NO_SANDBOX") != "1",
        relay_port=int(relay_port),
    )


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"GREENROOM_BOX_LISTEN is host:port, not {text!r}")
    return host.strip("[]"), int(port)


def _taken_token(directory: Path | None, environ: MutableMapping[str, str]) -> str:
    given = environ.pop("SECRET_TOKEN", "")
    path = None if directory is None else directory / "token"
    if path is not None and path.exists():
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            given = file.read(TOKEN_BYTES).decode("ascii").strip()
        path.unlink()
    if not given:
        raise ValueError("there is no token: a file `token` in GREENROOM_BOX, or SECRET_TOKEN")
    return given


def listener(options: BoxOptions) -> socket.socket:
    """The socket, listening: who connects now is answered when the server has started. Raises `OSError`."""
    if options.listen is not None:
        family = socket.AF_INET6 if ":" in options.listen[0] else socket.AF_INET
        return socket.create_server(options.listen, family=family, backlog=128)
    assert options.directory is not None
    path = options.directory / "api.sock"
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The box's user is not the one outside who connects. The directory lets in who may, and the token is asked for.
    mask = os.umask(0o111)
    try:
        listening.bind(os.fspath(path))
    finally:
        os.umask(mask)
    listening.listen(128)
    return listening
