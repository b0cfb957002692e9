"""What the tool server imports, compiled once, in a folder that boxes may read and only this side writes.

Boxes cannot write beside their modules, so without it those that are not compiled there (some installers leave that to
the first import) would be compiled at each start: for a second and more.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import py_compile
import subprocess
import sys
from pathlib import Path
from typing import Final

from greenroom.sandbox.local.mounts import PACKAGE
from greenroom.sandbox.places import private_folder, state_folder

log = logging.getLogger(__name__)

IMPORTS: Final = ("greenroom.sandbox.image.server", "playwright.async_api")

READABLE: Final = 0o022
"""A umask: whoever the box's user is must be able to read it."""


def compiled_modules(image: Path) -> Path | None:
    """The folder, filled if need be; none when it cannot be, and boxes compile for themselves. Blocks, for a second or
    two at the first use of an environment."""
    try:
        folder = private_folder(private_folder(state_folder()) / "compiled") / _fingerprint()
        done = folder / "done"
        if not done.exists():
            log.info("compiling what sandboxes import, once, into %s", folder)
            _compile_all(folder)
        _compile_ours(folder, image)
        done.touch()
    except (OSError, subprocess.SubprocessError) as error:
        log.info("what sandboxes import is not compiled ahead, so they start more slowly: %s", error)
        return None
    return folder


def _compile_all(folder: Path) -> None:
    program = f"import os; os.umask({READABLE}); import {', '.join(IMPORTS)}"
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-P", "-s", "-X", f"pycache_prefix={folder}", "-c", program]
    subprocess.run(command, cwd="/", env=environ, capture_output=True, check=True)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def _compile_ours(folder: Path, image: Path) -> None:
    """The server's own modules, for where boxes see them; those that have changed."""
    there = PACKAGE / "greenroom/sandbox/image"
    (folder / there.relative_to("/")).mkdir(mode=0o755, parents=True, exist_ok=True)
    for module in image.glob("*.py"):
        target = folder / there.relative_to("/") / Path(importlib.util.cache_from_source(str(module))).name
        if not target.exists() or target.stat().st_mtime <= module.stat().st_mtime:
            py_compile.compile(str(module), cfile=str(target), dfile=str(there / module.name))
            target.chmod(0o644)


def _fingerprint() -> str:
    """Changes with the interpreter and its environment. The interpreter itself notices modules that are newer."""
    spec = importlib.util.find_spec("playwright")
    theirs = str(Path(spec.origin).stat().st_mtime_ns) if spec and spec.origin else ""
    return hashlib.sha256("\n".join((sys.version, sys.executable, theirs)).encode()).hexdigest()[:24]
