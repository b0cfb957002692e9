"""The folders, the links, pyproject.toml and what is built from them say the same."""

import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("actors", "transports", "services", "sandbox")
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]
LEFT_BEHIND = shutil.ignore_patterns(
    ".git", ".venv*", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis"
)


def source_files(root: Path = ROOT) -> list[Path]:
    """Every module of the library, by its real path from the root: the links are not followed."""
    found = [
        *(root / "greenroom").glob("*.py"),
        *(path for room in ROOMS for path in (root / room).rglob("*.py")),
    ]
    return sorted(path.relative_to(root) for path in found)


def data_files(root: Path) -> list[str]:
    """What is installed besides modules, as pyproject.toml lists it."""
    folders = {
        package: root / "/".join(package.split(".")[1:] or [package]) for package in SETUPTOOLS["packages"]
    }
    return [
        "/".join([*package.split("."), path.name])
        for package, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
        for path in folders[package].glob(pattern)
    ]


def installed_name(path: Path) -> str:
    """Where a module lies once installed: `greenroom/actors/log.py` for `actors/log.py`."""
    return path.as_posix() if path.parts[0] == "greenroom" else f"greenroom/{path.as_posix()}"


def test_the_list_of_packages_is_the_folders_that_hold_modules() -> None:
    folders = {Path(installed_name(path)).parent for path in source_files()}

    assert sorted(SETUPTOOLS["packages"]) == sorted(".".join(folder.parts) for folder in folders)
    assert all((ROOT / path.parent / "__init__.py").exists() for path in source_files())


def test_each_room_is_mapped_to_its_folder() -> None:
    assert SETUPTOOLS["package-dir"] == {"greenroom": "greenroom"} | {
        f"greenroom.{room}": room for room in ROOMS
    }


@pytest.mark.parametrize("room", ROOMS)
def test_the_front_door_links_to_the_room(room: str) -> None:
    link = ROOT / "greenroom" / room

    assert link.is_symlink(), f"greenroom/{room} must be a link; on Windows, clone with core.symlinks=true"
    assert link.readlink() == Path("..") / room


def test_tests_are_no_package() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_every_module_of_the_front_door_has_its_layer() -> None:
    layers = PYPROJECT["tool"]["importlinter"]["contracts"][0]["layers"][0]
    modules = {path.stem for path in (ROOT / "greenroom").glob("*.py")} - {"__init__"}

    assert modules <= {name.strip(" ()").removeprefix("greenroom.") for name in layers.split(":")}


def test_no_name_says_nothing_or_repeats_itself() -> None:
    for path in source_files():
        words = path.with_suffix("").parts
        assert not {"utils", "util", "common", "helpers", "misc"} & set(words), path
        assert len(words) == len(set(words)), path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, its dist/ holding an sdist and the wheel built from it; a stale build/ cannot help."""
    checkout = tmp_path_factory.mktemp("copy") / "checkout"
    shutil.copytree(ROOT, checkout, symlinks=True, ignore=LEFT_BEHIND)
    build = subprocess.run(
        [sys.executable, "-m", "build"], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert build.returncode == 0, build.stdout + build.stderr
    return checkout


@pytest.mark.slow
def test_the_wheel_holds_every_module_once_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("dist/*.whl"))) as wheel:
        names = wheel.namelist()

    code = [name for name in names if ".dist-info/" not in name]
    assert sorted(code) == sorted([*map(installed_name, source_files(built)), *data_files(built)])
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_sdist_brings_what_its_tests_need(built: Path) -> None:
    with tarfile.open(next(built.glob("dist/*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}

    tests = {path.relative_to(built).as_posix() for path in (built / "tests").rglob("*.py")}
    pages = {path.relative_to(built).as_posix() for path in (built / "docs").iterdir()}
    assert tests | pages | {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile"} <= names
