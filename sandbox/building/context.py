"""What our image is built from: the Dockerfile, Python packages and the tool server's code, as one archive.

The image carries a digest of these as a label, so that one which was built for another version of Greenroom is known.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

from greenroom.actors.errors import SandboxUnavailable

REQUIREMENTS: Final = (
    "aiohttp>=3.11,<4",
    "ipykernel>=7.1,<8",
    "jupyter-client>=8.6,<9",
    "playwright>=1.65,<2",
)
"""What the tool server imports. The browser in the image is Debian's, which any Playwright this new drives."""

IMAGE_PYTHON: Final = "3.11"
GLIBC: Final = 36
"""Minor version of the C library in the image (Debian bookworm)."""

MACHINES: Final = {"amd64": "x86_64", "arm64": "aarch64", "x86_64": "x86_64", "aarch64": "aarch64"}
"""What engines call an architecture, and what wheels do."""

OnLine = Callable[[str], None]


def image_folder() -> Path:
    """Where the Dockerfile and the tool server's modules are."""
    return Path(str(files("greenroom.sandbox.image")))


def inputs_digest(folder: Path | None = None) -> str:
    """Of all that the image is built from and that is ours. Reads files: call it off the event loop."""
    digest = hashlib.sha256("\n".join((*REQUIREMENTS, IMAGE_PYTHON)).encode())
    root = folder or image_folder()
    for path in _our_files(root):
        digest.update(f"\n{path.relative_to(root)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def packages_folder(
    machine: str, environ: Mapping[str, str] = os.environ, requirements: Sequence[str] = REQUIREMENTS
) -> Path:
    """Where the packages for this machine are kept between builds; another one whenever `requirements` change."""
    own, shared = environ.get("GREENROOM_CACHE"), environ.get("XDG_CACHE_HOME")
    cache = Path(own).expanduser() if own else Path(shared or Path("~/.cache").expanduser()) / "greenroom"
    wanted = "\n".join((*requirements, IMAGE_PYTHON, machine))
    return cache / "sandbox" / f"packages-{hashlib.sha256(wanted.encode()).hexdigest()[:16]}"


def fetch_packages(
    machine: str,
    *,
    on_line: OnLine,
    environ: Mapping[str, str] = os.environ,
    requirements: Sequence[str] = REQUIREMENTS,
) -> Path:
    """Fetch the image's Python packages, unless they are there; the folder they are in.

    By pip or uv, with the index, proxy and certificates they are set up for: nothing of these gets into the image.
    Blocks: call it off the event loop. Raises `SandboxUnavailable` when they cannot be had.
    """
    folder = packages_folder(machine, environ, requirements)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".packages-", dir=folder.parent) as work:
        target = Path(work) / "packages"
        _install(target, machine, on_line, requirements)
        shutil.rmtree(target / "bin", ignore_errors=True)
        try:
            target.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another build was faster
                raise
    return folder


def _install(target: Path, machine: str, on_line: OnLine, requirements: Sequence[str]) -> None:
    if importlib.util.find_spec("pip") is not None:
        command = [sys.executable, "-P", "-m", "pip", "install", *_pip_options(machine)]
    elif (uv := _uv_command()) is not None:
        command = [*uv, "pip", "install", *_uv_options(machine)]
    else:
        raise SandboxUnavailable(
            f"the image's Python packages cannot be fetched: {sys.executable} has no pip, and there is no uv on the "
            f"path; run `{sys.executable} -m ensurepip`, then try again"
        )
    command += ["--target", str(target), "--only-binary=:all:", *requirements]
    on_line(f"{len(requirements)} packages and what they need, for Python {IMAGE_PYTHON} on {machine}")
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SandboxUnavailable(
            f"the image's Python packages cannot be fetched: {' '.join(command[:6])} … failed with exit code "
            f"{done.returncode}; the package index must be reachable from here. Its last words:\n{tail(done.stdout)}"
        )


def _pip_options(machine: str) -> Iterator[str]:
    yield from (
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar=off",
        "--root-user-action=ignore",
    )
    yield from (
        "--no-compile",
        "--implementation=cp",
        f"--python-version={IMAGE_PYTHON}",
        "--no-warn-conflicts",
    )
    for minor in range(
        GLIBC, 4, -1
    ):  # pip takes a platform by its name: it does not know which include which
        yield f"--platform=manylinux_2_{minor}_{machine}"
    yield f"--platform=manylinux2014_{machine}"


def _uv_options(machine: str) -> Sequence[str]:
    platform = f"{machine}-manylinux_2_{GLIBC}"
    return ("--no-progress", f"--python-version={IMAGE_PYTHON}", f"--python-platform={platform}")


def _uv_command() -> Sequence[str] | None:
    if importlib.util.find_spec("uv") is not None:
        return (sys.executable, "-P", "-m", "uv")
    found = shutil.which("uv")
    return None if found is None else (found,)


def tail(text: str, lines: int = 12) -> str:
    """The last lines of what a program wrote."""
    return "\n".join(text.strip().splitlines()[-lines:])


def write_context(archive: Path, packages: Path) -> None:
    """Write the archive that the engine builds from. Blocks: call it off the event loop."""
    source = image_folder()
    with tarfile.open(archive, "w") as tar:
        tar.add(source / "Dockerfile", "Dockerfile", filter=_nobodys)
        tar.add(packages, "packages", filter=_nobodys)
        for path in _our_files(source):
            if path.name != "Dockerfile":
                name = f"code/greenroom/sandbox/image/{path.relative_to(source).as_posix()}"
                tar.add(path, name, filter=_nobodys)
        for package in (
            "greenroom",
            "greenroom/sandbox",
        ):  # of the rest of Greenroom a box needs to know nothing
            tar.addfile(_nobodys_file(f"code/{package}/__init__.py"))


def _our_files(folder: Path) -> Sequence[Path]:
    kept = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return sorted(
        path for path in kept if path.suffix in {".py", ".html", ".json", ".js"} or path.name == "Dockerfile"
    )


def _nobodys(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Root's, readable by all, whoever fetched it: that is also what lets the engine reuse what it built before."""
    if info.name.endswith("__pycache__"):
        return None
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    executable = info.isdir() or bool(info.mode & 0o100)
    info.mode = 0o755 if executable else 0o644
    return info


def _nobodys_file(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode = 0o644
    return info
