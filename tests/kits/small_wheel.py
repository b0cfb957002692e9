"""A package with one file in it, and a folder that pip and uv take for their only index."""

import hashlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

from greenroom.services.local_model.cache import ModelSource

CONTENT = bytes(range(256)) * 400


def small_source(content: bytes = CONTENT, file: str = "small_model/small.gguf") -> ModelSource:
    """What `write_wheel` offers, as `fetch_model` wants it named."""
    return ModelSource(
        requirement="small-model==1.0",
        file=file,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        wheel_size=len(content),
    )


def write_wheel(folder: Path, content: bytes = CONTENT) -> Path:
    """The wheel of small-model 1.0, which declares a dependency that nobody has."""
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / "small_model-1.0-py3-none-any.whl"
    info = "small_model-1.0.dist-info"
    metadata = (
        "Metadata-Version: 2.1\nName: small-model\nVersion: 1.0\nRequires-Dist: nobody-has-this-package\n"
    )
    files = {
        "small_model/small.gguf": content,
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(wheel, "w") as archive:  # stored, not deflated: its size is about the content's
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr(f"{info}/RECORD", record)
    return wheel


def write_empty_wheel(folder: Path, name: str, version: str) -> None:
    """The wheel of a package that has nothing in it and needs nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    word = name.replace("-", "_")
    info = f"{word}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{word}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(
            f"{info}/RECORD", "".join(f"{info}/{file},,\n" for file in ("METADATA", "WHEEL", "RECORD"))
        )


def index_settings(folder: Path) -> Mapping[str, str]:
    """The environment in which pip and uv see this folder and nothing else."""
    return {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "UV_NO_CONFIG": "1",
        "UV_NO_INDEX": "1",
        "UV_FIND_LINKS": str(folder),
        "UV_OFFLINE": "1",
    }
