"""The official image's container application, run as it is: what our client must be able to drive.

`make test` runs this file to put what it needs into the user's cache: the application, unpacked from its wheel on PyPI,
with what it imports, and npm's MCP server that it starts. A test run does so itself where that has not happened.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kits.node_clients import NodeMissing, check_node

SOURCE = Path(__file__).parent / "official"
FILES = ("package.json", "package-lock.json", ".npmrc", "requirements.txt")
WHEEL = "agentscope-runtime==1.1.5"
APPLICATION = "agentscope_runtime/sandbox/box/shared/"

END_SECONDS = 20.0


def official_folder() -> Path:
    """Where it lies: a folder of the user's cache, another one whenever what is in it would change."""
    own, shared = os.environ.get("GREENROOM_CACHE"), os.environ.get("XDG_CACHE_HOME")
    cache = Path(own).expanduser() if own else Path(shared or Path("~/.cache").expanduser()) / "greenroom"
    what = b"".join((SOURCE / name).read_bytes() for name in FILES)
    python = f"{WHEEL} {sys.version_info[:2]}".encode()
    return cache / "official" / hashlib.sha256(what + python).hexdigest()[:16]


def install() -> Path:
    """Make it, unless it is there. Raises NodeMissing, and CalledProcessError when pip or npm fails."""
    folder = official_folder()
    check_node()
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
        new = Path(unfinished)
        _install_python(new)
        _unpack_application(new)
        _install_node(new)
        try:
            new.rename(folder)
        except OSError:
            if not folder.exists():  # else another run was faster
                raise
        else:
            new.mkdir()  # the context manager wants something to remove
    return folder


def _install_python(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    _pip(folder, "install", "-r", str(SOURCE / "requirements.txt"))


def _unpack_application(folder: Path) -> None:
    _pip(folder, "download", "--no-deps", "--dest", str(folder / "wheel"), WHEEL)
    (wheel,) = (folder / "wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder, [name for name in packed.namelist() if name.startswith(APPLICATION)])
    (folder / APPLICATION).rename(folder / "application")
    for left in ("agentscope_runtime", "wheel"):
        shutil.rmtree(folder / left)


def _install_node(folder: Path) -> None:
    for name in FILES:
        shutil.copy(SOURCE / name, folder)
    npm = shutil.which("npm")
    assert npm
    # No scripts: Playwright's would download a browser.
    command = [npm, "ci", "--no-audit", "--no-fund", "--silent", "--ignore-scripts"]
    subprocess.run(command, cwd=folder, check=True)


def _pip(folder: Path, command: str, *arguments: str) -> None:
    python = str(folder / "venv" / "bin" / "python")
    quietly = ["--quiet", "--disable-pip-version-check"]
    subprocess.run([python, "-m", "pip", command, *quietly, *arguments], check=True)


@dataclass(frozen=True)
class OfficialBox:
    """It runs. `workspace`: the folder that its tools see."""

    url: str
    token: str
    workspace: Path
    log: Path


@contextmanager
def official_box(folder: Path, browser: str) -> Iterator[OfficialBox]:
    """Start one that drives this browser; `folder` gets its workspace and its log."""
    installed = install()
    application, workspace = folder / "application", folder / "workspace"
    shutil.copytree(installed / "application", application)
    shutil.copy(SOURCE / "serve.py", application)
    (application / "mcp_server_configs.json").write_text(
        json.dumps(servers(str(installed / "node_modules"), browser))
    )
    workspace.mkdir()
    port, token = _free_port(), secrets.token_hex(16)
    environ = {
        **{name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "TMPDIR"}},
        "SECRET_TOKEN": token,
        "WORKSPACE_DIR": str(workspace),
        "PYTHONPATH": str(application),
        "IPYTHONDIR": str(folder / "ipython"),
        "GIT_PYTHON_REFRESH": "quiet",  # it wants a git at its start, for routes that nobody calls here
    }
    command = [str(installed / "venv" / "bin" / "python"), str(application / "serve.py"), str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=workspace, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield OfficialBox(f"http://127.0.0.1:{port}", token, workspace, folder / "log")
    finally:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:  # its end is not what is tried here
            process.kill()
            process.wait()


def servers(modules: str, browser: str) -> dict[str, object]:
    """The image's own file of MCP servers is not in the wheel; in it is this one, which its client calls.

    `modules`: the folder of npm's packages."""
    program = f"{modules}/@playwright/mcp/cli.js"
    able = "core,tabs,pdf,history,wait,files,install"
    arguments = ["--headless", "--isolated", "--no-sandbox", "--executable-path", browser, "--caps", able]
    return {"mcpServers": {"playwright": {"command": "node", "args": [program, *arguments]}}}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    """Install, and say so. Without a Node say what is missing, but go on: only the tests that need it suffer."""
    if not official_folder().exists():
        sys.stdout.write("- installing the official sandbox's application, which the client is tried with\n")
        sys.stdout.flush()
    try:
        install()
    except NodeMissing as missing:
        sys.stdout.write(f"- {missing}\n")
    except subprocess.CalledProcessError as failed:
        sys.exit(f"{' '.join(map(str, failed.cmd))} failed, see above: the official sandbox is not installed")


if __name__ == "__main__":
    main()
