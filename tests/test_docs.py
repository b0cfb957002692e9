"""What pages, docstrings and the CI name is there: files by their paths, modules, what is in them, pages, headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("actors", "transports", "services", "sandbox")
FOLDERS = (*ROOMS, "benchmarks", "docs", "examples", "scripts", "tests")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SOURCES = sorted(
    [
        *(ROOT / "greenroom").glob("*.py"),  # its folders are links to the rooms
        *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")),
        *(ROOT / name for name in (".ci/run", "Makefile", "pyproject.toml")),
    ]
)

PATH = re.compile(rf"(?<![\w./-])(?:\.ci|{'|'.join(FOLDERS)})/[\w./-]*\w")
NAME = re.compile(r"(?<=`)(?:greenroom|kits)(?:\.\w+)+(?=[`(])")
IMPORT = re.compile(r"^ *from (greenroom(?:\.\w+)*) import (\w+(?:, \w+)*)", re.MULTILINE)
PAGE = re.compile(r"(?<![\w./-])[\w-]+\.md\b")
LINK = re.compile(r"\]\((?!https?:)([^)\s#]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def is_there(name: str) -> bool:
    """Whether there is a module of this name, or one in which the name stands. Nothing is imported."""
    words = name.split(".")
    root = ROOT / "tests" if words[0] == "kits" else ROOT
    for length in range(len(words), 0, -1):
        stem = root.joinpath(*words[:length])
        for file in (stem.with_suffix(".py"), stem / "__init__.py"):
            if file.is_file():
                text = file.read_text(encoding="utf-8")
                return length == len(words) or re.search(rf"\b{words[length]}\b", text) is not None
    return False


def missing(text: str) -> list[str]:
    """Paths and names of ours in it that are not there."""
    names = [*NAME.findall(text)]
    names += [f"{module}.{name}" for module, list_ in IMPORT.findall(text) for name in list_.split(", ")]
    paths = [path for path in PATH.findall(text) if not (ROOT / path).exists()]
    return paths + [name for name in names if not is_there(name)]


def dead_links(page: Path) -> Iterator[str]:
    """Links to files and headings that are not there, and pages that it names and that are not."""
    text = page.read_text(encoding="utf-8")
    for name, heading in LINK.findall(text):
        target = page.parent / name if name else page
        if not target.exists() or (heading and heading not in headings(target)):
            yield f"{name}#{heading}"
    for name in PAGE.findall(text):
        if not (ROOT / name).exists() and not (ROOT / "docs" / name).exists():
            yield name


def headings(page: Path) -> set[str]:
    """Of a page, as links name them."""
    found = HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    assert not missing(page.read_text(encoding="utf-8"))
    assert not list(dead_links(page))


def test_what_code_names_in_docstrings_and_comments_is_there() -> None:
    found = {path: missing(path.read_text(encoding="utf-8")) for path in SOURCES if path != Path(__file__)}
    assert not {path: names for path, names in found.items() if names}


def test_names_that_were_once_are_found_missing(tmp_path: Path) -> None:
    text = """See services/sqlite_storage.py, tests/kits, `greenroom.sandbox.docker_backend`, `kits.none`,
    `kits.tutorial` and `greenroom.AgentApp`.
    from greenroom.actors.events import TextDelta, TextGamma
    """
    gone = ["greenroom.sandbox.docker_backend", "kits.none", "greenroom.actors.events.TextGamma"]
    assert missing(text) == ["services/sqlite_storage.py", *gone]
    page = tmp_path / "page.md"
    page.write_text(
        "# The heading\n[a](#the-heading) [b](#none) [c](gone.md) [d](https://x.test/y)", encoding="utf-8"
    )
    assert list(dead_links(page)) == ["#none", "gone.md#", "gone.md"]
