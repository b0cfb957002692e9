"""Finding a browser on this machine: one of Chromium's family, as the tool server drives them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

from greenroom.actors.errors import SandboxUnavailable

NAMES: Final = (
    "chromium-headless-shell",
    "headless_shell",
    "chromium",
    "chromium-browser",
    "google-chrome-stable",
    "google-chrome",
)
"""On the path, the lightest first."""

SHELLS: Final = ("chromium_headless_shell-*/*/headless_shell", "chromium_headless_shell-*/*/*headless-shell")
FULL: Final = ("chromium-*/chrome-linux*/chrome",)
"""What Playwright keeps below its folder, over the years."""

WRAPPED: Final = {
    "chromium-headless-shell": "/usr/lib/chromium/chromium-headless-shell",
    "chromium": "/usr/lib/chromium/chromium",
    "google-chrome": "/opt/google/chrome/chrome",
    "google-chrome-stable": "/opt/google/chrome/chrome",
}
"""What distributions' starting scripts start in the end; these read settings and write below the user's home."""

HOW_TO_GET_ONE: Final = (
    "install one (`apt-get install chromium-headless-shell` on Debian, `playwright install chromium-headless-shell` "
    "elsewhere), or name it with GREENROOM_SANDBOX_BROWSER"
)


class Browser(Struct, frozen=True):
    """A browser's program, and the folder with all that it needs besides the system's libraries."""

    program: Path
    folder: Path


def find_browser(named: str | None = None, environ: Mapping[str, str] = os.environ) -> Browser:
    """The browser to use: the one named, the one that `GREENROOM_SANDBOX_BROWSER` names, Playwright's headless shell,
    what is on the path, Playwright's full one. Of a snap nothing can be used: it cannot be started from elsewhere.

    Raises `SandboxUnavailable` when the named one is not there, or none is.
    """
    wanted = named or environ.get("GREENROOM_SANDBOX_BROWSER")
    if wanted:
        found = shutil.which(wanted, path=environ.get("PATH"))
        if found is None:
            raise SandboxUnavailable(
                f"there is no program {wanted!r} to use as the browser; {HOW_TO_GET_ONE}"
            )
        return _browser(Path(found))
    for program in _candidates(environ):
        if not _is_of_a_snap(program):
            return _browser(program)
    raise SandboxUnavailable(f"no browser of Chromium's family was found; {HOW_TO_GET_ONE}")


def _candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    yield from _playwrights(environ, SHELLS)
    for name in NAMES:
        found = shutil.which(name, path=environ.get("PATH"))
        if found:
            yield Path(found)
    yield from _playwrights(environ, FULL)


def _playwrights(environ: Mapping[str, str], patterns: tuple[str, ...]) -> Iterator[Path]:
    """Newest first."""
    own = environ.get("PLAYWRIGHT_BROWSERS_PATH")
    if own and own != "0":
        folder = Path(own)
    else:
        cache = environ.get("XDG_CACHE_HOME")
        folder = (Path(cache) if cache else Path("~/.cache").expanduser()) / "ms-playwright"
    for pattern in patterns:
        found = [path for path in folder.glob(pattern) if os.access(path, os.X_OK)]
        yield from sorted(found, key=_revision, reverse=True)


def _revision(program: Path) -> int:
    number = program.parent.parent.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def _browser(program: Path) -> Browser:
    behind = Path(WRAPPED.get(program.name, ""))
    if program.is_relative_to("/usr/bin") and behind.is_file():
        program = behind
    program = program.resolve()
    return Browser(program, program.parent)


def _is_of_a_snap(program: Path) -> bool:
    if "snap" in program.resolve().parts:
        return True
    with program.open("rb") as file:
        start = file.read(2048)
    return start.startswith(b"#!") and b"snap" in start
