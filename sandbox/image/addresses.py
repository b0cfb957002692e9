"""Which addresses tools may open."""

from __future__ import annotations

import re
from typing import Final

from greenroom.sandbox.image.answers import ToolError, one_line

SCHEMES: Final = frozenset({"http", "https", "about", "data", "blob"})
"""Not `file` (the box's files are for tools of files), `chrome`, `javascript`, `view-source`, `devtools`, …"""

_HOST: Final = re.compile(r"(?:[\w-]+\.)*[\w-]+(?::\d+)?(?=[/?#]|$)|\[[0-9a-fA-F:.]+\](?::\d+)?(?=[/?#]|$)")
_SCHEME: Final = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")


def address_of(url: str) -> str:
    """The address that is meant: `example.com/news` is one of https. Raises `ToolError` for what may not be opened."""
    # Browsers drop line breaks and tabs inside addresses, so that `java\nscript:` would be read otherwise than here.
    address = _CONTROLS.sub("", url).strip()
    if _HOST.match(address):
        local = address.startswith(("localhost", "127.", "[::1]"))
        return f"{'http' if local else 'https'}://{address}"
    scheme = _SCHEME.match(address)
    if scheme is None:
        raise ToolError(f"{one_line(url)!r} is no web address. Give a whole one, like https://example.com/.")
    if scheme[1].lower() not in SCHEMES:
        raise ToolError(
            f"Addresses of {scheme[1].lower()}: may not be opened, only those of http, https, about, data and blob. "
            "Files of the workspace are read with run_shell_command."
        )
    return address
