"""Clients written in JavaScript: their packages, and scripts that use them.

`make test` runs this file to install what tests/e2e/node/package.json names into the user's cache; a test run
installs it itself where that has not happened. On Debian, as root, it installs Node too.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1] / "e2e" / "node"
FILES = ("package.json", "package-lock.json", ".npmrc")

OLDEST_NODE = 20
"""The oldest major version that all the packages run on."""

HOW_TO_GET_NODE = (
    f"the JavaScript clients need node, {OLDEST_NODE} or newer, and npm on the path: install them "
    "(on Debian or Ubuntu: apt-get install nodejs npm; elsewhere: https://nodejs.org) and run the tests again"
)


class NodeMissing(Exception):
    """There is no Node to run the clients with. The message says what to install."""


def modules_folder() -> Path:
    """Where the packages lie: a folder of the user's cache, another one whenever the lock file changes."""
    own, shared = os.environ.get("GREENROOM_CACHE"), os.environ.get("XDG_CACHE_HOME")
    cache = Path(own).expanduser() if own else Path(shared or Path("~/.cache").expanduser()) / "greenroom"
    digest = hashlib.sha256(b"".join((PACKAGE / name).read_bytes() for name in FILES)).hexdigest()
    return cache / "node" / digest[:16]


def install() -> Path:
    """Install the packages, unless they are there. Raises NodeMissing, and CalledProcessError when npm fails."""
    folder = modules_folder()
    check_node()
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
        for name in FILES:
            shutil.copy(PACKAGE / name, unfinished)
        npm = shutil.which("npm")
        assert npm
        subprocess.run([npm, "ci", "--no-audit", "--no-fund", "--silent"], cwd=unfinished, check=True)
        try:
            Path(unfinished).rename(folder)
        except OSError:
            if not folder.exists():  # else another run was faster
                raise
        else:
            Path(unfinished).mkdir()  # the context manager wants something to remove
    return folder


def check_node() -> None:
    """Raise NodeMissing unless there is a Node that is new enough, installing Debian's where we may."""
    if _node_version() >= OLDEST_NODE and shutil.which("npm"):
        return
    if not (shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0):
        raise NodeMissing(HOW_TO_GET_NODE)
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "nodejs", "npm"]):
        if subprocess.run(["apt-get", *command], env=environ, check=False).returncode:
            raise NodeMissing(f"apt-get {command[0]} failed, and {HOW_TO_GET_NODE}")
    if _node_version() < OLDEST_NODE:
        raise NodeMissing(f"this system's own node is version {_node_version()}, and {HOW_TO_GET_NODE}")


def _node_version() -> int:
    """The major version of the Node on the path; 0 without one."""
    node = shutil.which("node")
    if node is None:
        return 0
    printed = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    major = printed.strip().removeprefix("v").partition(".")[0]
    return int(major) if major.isdigit() else 0


class Scripts:
    """The scripts of tests/e2e/node, beside the packages they import."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for script in PACKAGE.glob("*.mjs"):
            shutil.copy(script, folder)
        (folder / "node_modules").symlink_to(install() / "node_modules")

    async def run(self, script: str, **arguments: Any) -> Any:
        """Run a script, which gets the arguments as JSON; what it printed, JSON too.

        Raises AssertionError when it fails, with what it wrote.
        """
        node = shutil.which("node")
        assert node
        process = await asyncio.create_subprocess_exec(
            node,
            str(self._folder / script),
            json.dumps(arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            printed, complaints = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, complaints.decode()
        assert not complaints, complaints.decode()
        return json.loads(printed)


def main() -> None:
    """Install, and say so. Without a Node say what is missing, but go on: only the tests that need it suffer."""
    if not modules_folder().exists():
        sys.stdout.write("- installing the JavaScript clients\n")
        sys.stdout.flush()
    try:
        install()
    except NodeMissing as missing:
        sys.stdout.write(f"- {missing}\n")
    except subprocess.CalledProcessError as failed:
        sys.exit(f"{' '.join(failed.cmd)} failed, see above: the JavaScript clients are not installed")


if __name__ == "__main__":
    main()
